from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch")

from measurement_support import header  # noqa: E402

from kraken_sim.measurements.records.together import ChainCase, ChainRecord  # noqa: E402
from kraken_sim.measurements.schema import CPU_CONDITION, read_measurements  # noqa: E402
from kraken_sim.program.ops import DType  # noqa: E402 - torch decides whether any of this can be imported
from kraken_sim.scenario.spec import Launch  # noqa: E402
from validation.control import Control  # noqa: E402
from validation.microbench import chain, chains  # noqa: E402
from validation.microbench.bench import Bench  # noqa: E402
from validation.microbench.runners import RUN, Ranks, attempt, record_of  # noqa: E402
from validation.store import append, resume  # noqa: E402
from validation.timing import Clock  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.torch


def cpu_bench() -> Bench:
    return Bench(Clock(torch.device("cpu")), Control(), CPU_CONDITION, l2_bytes=1 << 20, free_bytes=1 << 30)


def test_chains_are_measured_written_and_read_again(tmp_path: Path) -> None:
    out, bench = tmp_path / "chains.jsonl", cpu_bench()
    resume(out, header())
    cases = [case for case in chains.cpu_cases() if isinstance(case, ChainCase)]
    with torch.inference_mode():
        tried = [attempt(bench, lambda case=case: RUN["chain"](bench, case)) for case in cases]  # type: ignore[misc]
    append(out, [record_of(case, Ranks({0: one})) for case, one in zip(cases, tried, strict=True)])
    found = read_measurements(out).select(ChainRecord)
    assert [record.key for record in found] == [case.key for case in cases]
    assert all(record.time_s.median > 0.0 for record in found)


def operators(compute: list[dict[str, object]]) -> Counter[str]:
    """What torch runs in the second round of a chain."""
    case = ChainCase.model_validate(
        {"compute": compute, "operands": "fresh", "dtype": DType.FLOAT32, "launch": Launch.EAGER}
    )
    with torch.inference_mode():
        first, second = chain.calls(cpu_bench(), case, 2)
        first()
        with torch.profiler.profile() as profiler:
            second()
    return Counter(event.name for event in profiler.events())


def test_a_round_runs_each_op_once_and_nothing_else_that_computes() -> None:
    gemm = {"op": "gemm", "m": 4, "n": 256, "k": 256}
    add = {"op": "add", "num_tokens": 4, "hidden_size": 256}
    norm = {"op": "norm", "num_tokens": 4, "hidden_size": 256}
    found = operators([gemm, add, norm])
    assert (found["aten::mm"], found["aten::add"], found["aten::native_layer_norm"]) == (1, 1, 1)
    assert not {"aten::copy_", "aten::clone", "aten::addmm"} & set(found)


def test_a_kernel_reads_what_the_one_before_it_wrote() -> None:
    gemm = {"op": "gemm", "m": 3, "n": 64, "k": 64}
    gelu = {"op": "gelu", "num_tokens": 3, "hidden_size": 64}
    case = ChainCase.model_validate(
        {"compute": [gemm, gelu, gemm], "operands": "kept", "dtype": DType.FLOAT32, "launch": Launch.EAGER}
    )
    bench = cpu_bench()
    chain.calls(bench, case, 1)[0]()
    bench.rewind()
    x, weights, outputs = (arena(DType.FLOAT32) for arena in (bench.inputs, bench.weights, bench.outputs))
    first, second = weights.take(64, 64), weights.take(64, 64)
    expected = torch.nn.functional.gelu(x.take(3, 64) @ first.t()) @ second.t()
    outputs.take(3, 64)
    torch.testing.assert_close(outputs.take(3, 64), expected)


def test_every_kernel_of_a_chain_is_also_measured_alone() -> None:
    cases = list(chains.chain_cases())
    alone = {str(case.compute[0]) + case.dtype for case in cases if len(case.compute) == 1}
    assert {str(op) + case.dtype for case in cases for op in case.compute} <= alone
