"""The end times that `tests/golden.py` recorded still come out.

Here up to the rounding of another CPU; `python tests/golden.py check` compares bit for bit.
"""

from __future__ import annotations

import golden
import pytest

RELATIVE = 1e-9
AT_LEAST_PS = 1


def moved(kept: dict[str, str], found: dict[str, str]) -> list[str]:
    """Every scenario that ends elsewhere than recorded, with both ends; also one that is only on one side."""
    return [
        f"{name}: {kept.get(name)} is now {found.get(name)}"
        for name in {**kept, **found}
        if not same(kept.get(name), found.get(name))
    ]


def same(kept: str | None, found: str | None) -> bool:
    if kept is None or found is None or not (kept.isdecimal() and found.isdecimal()):
        return kept == found
    return abs(int(found) - int(kept)) <= max(RELATIVE * int(kept), AT_LEAST_PS)


def test_every_recorded_scenario_ends_when_it_did() -> None:
    found = {name: golden.end_ps(data) for name, data in golden.scenarios()}
    assert len(found) >= 300
    names = moved(golden.recorded(), found)
    assert not names, f"{len(names)} of {len(found)} scenarios moved:\n" + "\n".join(names)


@pytest.mark.parametrize(
    ("kept", "found", "equal"),
    [
        ("1000000000000", "1000000001000", True),
        ("1000000000000", "1000000001001", False),
        ("1000", "1001", True),
        ("1000", "1002", False),
        ("InputError", "InputError", True),
        ("InputError", "InfeasibleError", False),
        ("1000", "InputError", False),
        ("1000", None, False),
        (None, "1000", False),
    ],
)
def test_an_end_may_differ_by_rounding_and_no_more(kept: str | None, found: str | None, equal: bool) -> None:
    assert same(kept, found) is equal


def test_recorded_scenarios_are_varied_and_few_of_them_are_errors() -> None:
    kept = golden.recorded()
    assert len({end for end in kept.values() if end.isdecimal()}) > 0.6 * len(kept)
    assert sum(not end.isdecimal() for end in kept.values()) < 0.1 * len(kept)


def test_a_scenario_that_moved_is_named() -> None:
    assert moved({"a": "5", "b": "7"}, {"a": "5", "b": "70", "c": "1"}) == ["b: 7 is now 70", "c: None is now 1"]
