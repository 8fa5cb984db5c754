"""Architectures as an axis of a purchase, beside its machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from procure_support import PRICE, SMALL, request, with_file

from kraken_sim.errors import InputError
from kraken_sim.explore.procure.candidates import procure
from kraken_sim.explore.procure.request import load_procure_request
from kraken_sim.report.procure import caveat_sentences

if TYPE_CHECKING:
    from pathlib import Path

AXIS: dict[str, Any] = {
    "architectures": [{"kind": "standard"}, {"kind": "ladder"}],
    "candidates": [
        {"name": name, "hardware": hardware, "num_devices": [2], "price": PRICE}
        for name, hardware in (("h200", "h200-sxm-x2"), ("a100", "a100-sxm4-80gb-x8"))
    ],
}


def test_architectures_are_an_axis_beside_machines() -> None:
    result = procure(request(**AXIS))
    names = ["h200 with standard", "h200 with ladder", "a100 with standard", "a100 with ladder"]
    assert [candidate.name for candidate in result.request.choices] == names
    assert sorted(offer.candidate.name for offer in result.base.offers) == sorted(names)
    rows = {row["candidate"]: row for row in result.as_dict()["offers"]}
    assert rows["h200 with ladder"]["architecture"] == "ladder"
    assert "arXiv 2501.06589" in rows["h200 with ladder"]["services"][0]["quality"]
    ladder = request(workloads=[SMALL["workloads"][0] | {"architecture": {"kind": "ladder"}}])
    alone = procure(ladder).best.as_dict()
    same = {"candidate", "price"}
    assert {k: v for k, v in rows["h200 with ladder"].items() if k not in same} == {
        k: v for k, v in alone.items() if k not in same
    }
    assert "What is known of quality beside standard: ladder: 1B and 3B" in " ".join(caveat_sentences(result))


def test_a_candidate_may_have_an_architecture_of_its_own() -> None:
    candidates = [
        {**SMALL["candidates"][0], "name": kind, "architecture": {"kind": kind}} for kind in ("standard", "parallel")
    ]
    offers = {
        offer.candidate.name: offer.as_dict()["architecture"]
        for offer in procure(request(candidates=candidates)).base.offers
    }
    assert offers == {"standard": "standard", "parallel": "parallel"}


def test_architectures_of_one_kind_are_told_apart_by_what_they_say() -> None:
    both = [{"kind": "desync", "sync_every": 1}, {"kind": "desync", "sync_every": 2}]
    asked = request(architectures=both)
    assert [choice.name for choice in asked.choices] == [
        "two with desync (sync_every 1)",
        "two with desync (sync_every 2)",
    ]


def test_an_architecture_of_a_file_is_found_beside_the_request(tmp_path: Path) -> None:
    steps = [
        "{norm: a}",
        "attention",
        "{residual: {name: b, by: c}}",
        "{norm: d}",
        "ffn",
        "{residual: {name: e, by: f}}",
    ]
    text = "name: mine\nlayers: [{period: [[" + ", ".join(steps) + "]]}]\n"
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    path = with_file(tmp_path, architectures=[{"kind": "standard"}, {"kind": "file", "path": "mine.yaml"}])
    standard, mine = procure(path).base.offers
    assert {standard.candidate.name, mine.candidate.name} == {"two with standard", "two with mine"}
    assert standard.cost_per_hour == mine.cost_per_hour


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architectures": [{"kind": "ladder"}, {"kind": "ladder"}]}, "the same one stands there twice"),
        ({"architectures": [{"kind": "laddr"}]}, "did you mean 'ladder'"),
        (
            {"architectures": [{"kind": "ladder"}], "what_if": [{"name": "k", "architecture": {"kind": "kraken"}}]},
            r"what_if\.0\.architecture: line \d+: architectures has it run beside the others already",
        ),
        (
            {
                "architectures": [{"kind": "ladder"}],
                "candidates": [{**SMALL["candidates"][0], "architecture": {"kind": "kraken"}}],
            },
            r"candidates\.0\.architecture",
        ),
    ],
)
def test_what_architectures_have_against_each_other_is_named(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        load_procure_request(with_file(tmp_path, **changes))
