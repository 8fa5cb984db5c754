"""Which architecture: gains with intervals, at equal parameters, with what each costs and why."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from kraken_sim.cli import main
from kraken_sim.explore.architectures import ArchitectureAnswer, Rival, best_architecture, reason

if TYPE_CHECKING:
    from pathlib import Path

DECODE: dict[str, Any] = {
    "hardware": "h100-sxm-x8",
    "model": {"preset": "13B"},
    "phase": "decode",
    "batch_size": 64,
    "context_length": 1024,
}
PREFILL: dict[str, Any] = {"hardware": "h100-pcie-x4", "model": {"preset": "1.3B"}, "context_length": 1024}


@cache
def answered(decode: bool) -> ArchitectureAnswer:
    return best_architecture(DECODE if decode else PREFILL)


def rival(kind: str, *, decode: bool) -> Rival:
    return next(found for found in answered(decode).rivals if found.kind == kind)


@pytest.mark.parametrize("decode", [True, False])
def test_the_fastest_at_equal_parameters_comes_first_and_probabilities_add_up(decode: bool) -> None:
    rivals = answered(decode).rivals
    gains = [found.gain_at_equal_parameters for found in rivals]
    assert gains == sorted(gains, reverse=True)
    assert sum(found.probability for found in rivals) == pytest.approx(1.0)
    for found in rivals:
        low, high = found.interval
        assert low <= found.gain <= high
        assert (low < high) == (abs(found.gain) > 1e-6)


@pytest.mark.parametrize("kind", ["kraken", "parallel_track"])
@pytest.mark.parametrize("decode", [True, False])
def test_equal_parameters_lie_between_two_neighbouring_widths(kind: str, decode: bool) -> None:
    found = rival(kind, decode=decode)
    assert found.equal is not None
    low, high = found.equal.num_parameters
    assert low <= found.base.num_parameters <= high
    assert found.equal.widths[1] - found.equal.widths[0] == 128
    share = (found.base.num_parameters - low) / (high - low)
    first, second = found.equal.latencies_s
    assert found.equal.latency_s == pytest.approx(first + share * (second - first))


def test_only_layers_of_a_width_of_their_own_need_it() -> None:
    assert [found.kind for found in answered(True).rivals if found.equal is None] != []
    assert {found.kind for found in answered(True).rivals if found.equal is not None} == {"kraken", "parallel_track"}
    given = best_architecture(
        {**PREFILL, "architecture": {"kind": "kraken", "hidden_size": 1024}}, architectures=["kraken"]
    )
    assert [found.equal for found in given.rivals] == [None, None]


def test_what_is_sent_and_computed_is_that_of_the_program() -> None:
    standard, ladder, parallel = (rival(kind, decode=False).account for kind in ("standard", "ladder", "parallel"))
    assert (standard.blocking, standard.beside) == (48, 0)
    assert (ladder.blocking, ladder.beside) == (0, 48)
    assert ladder.sent_bytes == standard.sent_bytes == pytest.approx(2 * parallel.sent_bytes)
    # A ring of four sends 3/4 of [T, d] twice.
    assert standard.sent_bytes == pytest.approx(48 * 1.5 * 1024 * 2048 * 2)
    assert ladder.flops == standard.flops
    # Two FLOPs a parameter of the layers and token, and attention; a quarter on each device.
    assert standard.flops == pytest.approx(2 * 1.208e9 * 1024 / 4, rel=0.06)


def test_a_kraken_that_loses_by_its_cache_says_so_and_what_grouped_queries_give_back() -> None:
    kraken = rival("kraken", decode=True)
    assert kraken.gain < 0.0
    assert kraken.cache_remedy is not None
    assert kraken.cache_remedy.kv_cache_bytes <= kraken.base.memory.kv_cache_bytes
    assert kraken.cache_remedy.latency_s < kraken.prediction.latency_s
    words = reason(kraken)
    assert "kraken loses" in words
    assert "more attention" in words
    assert "its KV cache is 3.6 times as large" in words
    assert "key/value heads a sub-layer" in words


def test_why_a_ladder_wins_where_links_are_slow() -> None:
    words = reason(rival("ladder", decode=False))
    assert words.startswith("ladder wins")
    assert "less exposed communication" in words


def test_one_command_answers_with_tables_reasons_and_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    asked = ["explore", "architecture", "kraken-13b-decode-on-eight-h100", "--architectures", "kraken,ladder,domino"]
    assert main([*asked, "--json", "-", "--html", str(page)]) == 0
    (answer,) = json.loads(capsys.readouterr().out)
    assert {row["architecture"] for row in answer["architectures"]} == {"standard", "kraken", "ladder", "domino"}
    assert answer["best"] == answer["architectures"][0]["architecture"]
    assert "at equal parameters" in page.read_text(encoding="utf-8")
    assert main(asked) == 0
    shown = capsys.readouterr().out
    assert "Fastest at equal parameters" in shown
    assert "What each costs beside time" in shown


def test_compare_says_how_sure_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["compare", "kraken-6.7b-on-two-h200", "--architectures", "ladder,desync"]
    assert main([*asked, "--json", "-"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["quality"] for row in rows][::2] == ["the reference", "unknown"]
    for row in rows[1:]:
        low, high = row["speedup_interval_percent"]
        assert low < row["speedup_percent"] < high
        assert row["account"]["kv_cache_bytes"] == row["memory_bytes"]["kv_cache"]
    assert main(asked) == 0
    assert "Like with like" in capsys.readouterr().out


def test_what_does_not_fit_is_named_with_the_reason() -> None:
    assert "domino cuts the sequences" in answered(False).impossible["domino"]
    assert "file" not in answered(False).impossible


def test_a_whole_answer_is_compared_at_equal_parameters_as_a_whole() -> None:
    asked = {**PREFILL, "phase": "generate", "output_length": 16, "context_length": 256}
    kraken = next(r for r in best_architecture(asked, architectures=["kraken"]).rivals if r.kind == "kraken")
    assert kraken.equal is not None
    low, high = sorted(kraken.equal.latencies_s)
    assert 0.8 * low < kraken.prediction.latency_s < 1.2 * high
