"""Published figures: how a file of them is read, what the simulator says to each, and the page that comes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kraken_sim import predict_op
from kraken_sim.errors import InputError
from validation.public_facts import COLUMNS, read_facts
from validation.public_questions import answer, answers
from validation.public_truth import main, page

if TYPE_CHECKING:
    from pathlib import Path

    from validation.public_facts import Fact

GEMM = "gemm,a100-sxm4-80gb-x8,m=4096 n=4096 k=4096,,,,1,float16,cuBLAS,250,TFLOPS,some/repo path,A"
REDUCED = "all_reduce,h100-sxm-x8,1048576,,,,8,float32,NCCL,28.56,us,other/repo README,A"
BUSBW = (
    "all_reduce,h100-sxm-x8,1073741824,,,,8,float32,NCCL,440,busbw GB/s,other/repo README,B: one process drives 8 GPUs"
)
PREFILL = "prefill,h100-sxm-x8,Llama-3-8B,1,512,1,1,bfloat16,vLLM,20,ms,third/repo,B: serving engine"
GENERATED = "generate,h100-sxm-x8,Llama-3-8B,1,512,5,1,bfloat16,vLLM,60,ms,third/repo,B: serving engine"


def facts(folder: Path, *rows: str) -> list[Fact]:
    file = folder / "facts.csv"
    file.write_text("\n".join((",".join(COLUMNS), *rows)) + "\n")
    return read_facts(file)


def test_rates_become_times(tmp_path: Path) -> None:
    """2 x 4096^3 operations at 250 TFLOP/s; a GiB of 8 ranks at 440 GB/s of bus bandwidth, which counts 14/8 of it."""
    gemm, busbw = facts(tmp_path, GEMM, BUSBW)
    assert gemm.measured_s == pytest.approx(2 * 4096**3 / 250e12)
    assert busbw.measured_s == pytest.approx(2**30 * 14 / 8 / 440e9)
    assert (busbw.grade, busbw.reason) == ("B", "one process drives 8 GPUs")


def test_a_machine_file_lies_beside_the_figures(tmp_path: Path) -> None:
    (fact,) = facts(tmp_path, GEMM.replace("a100-sxm4-80gb-x8", "machines/own.yaml"))
    assert fact.machine == str(tmp_path / "machines" / "own.yaml")


@pytest.mark.parametrize(
    ("row", "word"),
    [
        (GEMM.replace("gemm", "gem", 1), "line 2, class: must be one of gemm"),
        (GEMM.replace("250", "0"), "line 2, value: must be a number above 0"),
        (GEMM.replace("TFLOPS", "GB"), "line 2, unit: must be one of us, ms, s, TFLOPS"),
        (GEMM.replace("m=4096 ", ""), "line 2, unit"),
        (GEMM.replace("some/repo path", ""), "line 2, source: must say who published it"),
        (GEMM[:-1] + "D", "line 2, comparability: must begin with A, B or C"),
        (REDUCED.replace(",8,", ",eight,"), "line 2, tp: must be a whole number"),
    ],
)
def test_a_wrong_row_is_named_by_its_line(tmp_path: Path, row: str, word: str) -> None:
    with pytest.raises(InputError) as caught:
        facts(tmp_path, row)
    assert word in str(caught.value)


def test_a_file_without_sources_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "facts.csv"
    file.write_text("class,machine\n")
    with pytest.raises(InputError, match=r"lacks the columns model_or_shape, .*source"):
        read_facts(file)


def test_an_op_is_predict_ops_answer_with_the_interval_of_its_block(tmp_path: Path) -> None:
    (fact,) = facts(tmp_path, REDUCED)
    found = answer(fact)
    assert found.predicted_s == predict_op("h100-sxm-x8", {"op": "all_reduce", "bytes": 2**20, "num_devices": 8})
    assert found.low_s < found.predicted_s < found.high_s
    assert found.error == pytest.approx(found.predicted_s / 28.56e-6 - 1.0)


def test_a_generation_is_a_prefill_and_its_decode_steps(tmp_path: Path) -> None:
    """Four steps, between the first and the last: a cache of 513 and of 516 tokens."""
    prefill, generated, first, last = (
        answer(fact).predicted_s
        for fact in facts(
            tmp_path,
            PREFILL,
            GENERATED,
            PREFILL.replace("prefill", "decode", 1).replace(",512,", ",513,"),
            PREFILL.replace("prefill", "decode", 1).replace(",512,", ",516,"),
        )
    )
    assert generated == pytest.approx(prefill + 2 * (first + last))


def test_what_cannot_be_asked_is_said(tmp_path: Path) -> None:
    found, unanswered = answers(facts(tmp_path, GEMM, PREFILL.replace("Llama-3-8B", "Llama-9-8B")))
    assert len(found) == 1
    assert "must be one of Llama-2-7B" in unanswered[0][1]


def test_the_page_tells_failures_of_ours_from_set_ups(tmp_path: Path) -> None:
    """A figure of grade A that is four times off is ours; one of grade B is listed by its reason."""
    rows = (GEMM, REDUCED.replace("28.56", "7.0"), BUSBW)
    text = page(*answers(facts(tmp_path, *rows)))
    ours, rest = text.split("## Failures of ours")[1].split("## Set-ups that are not described")
    assert "| collectives | H100 SXM | other/repo | 1 | +2" in ours
    assert "| one process drives 8 GPUs | collectives | 1 |" in rest
    assert "gemm | A | 1 |" in text
    assert "other/repo (2)" in text


def test_the_command_writes_the_page_and_refuses_bad_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts(tmp_path, GEMM)
    target = tmp_path / "page.md"
    assert main([str(tmp_path / "facts.csv"), "--markdown", str(target)]) == 0
    assert target.read_text().startswith("# Public truth")
    assert main([str(tmp_path / "missing.csv")]) == 2
    assert "no file of this name" in capsys.readouterr().err
