"""The suite of loads and rests: what it asks, and that its records say what was asked."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from kraken_sim.measurements.records.loads import SustainedCase, SustainedRecord, WakeCase, WakeRecord  # noqa: E402
from kraken_sim.measurements.records.together import GemmOp  # noqa: E402
from kraken_sim.measurements.schema import CPU_CONDITION, DEFAULT_CONDITION  # noqa: E402
from validation.control import Control  # noqa: E402
from validation.microbench.bench import Bench  # noqa: E402
from validation.microbench.blocks import Machine  # noqa: E402
from validation.microbench.plan import plan  # noqa: E402
from validation.microbench.runners import RUN, Ranks, attempt, record_of  # noqa: E402
from validation.model_grid import SHAPES  # noqa: E402
from validation.timing import Clock  # noqa: E402

pytestmark = pytest.mark.torch


def test_no_load_has_a_matrix_of_a_model_whose_passes_are_measured() -> None:
    judged = set()
    for shape in SHAPES:
        width, queries = shape.hidden_size, shape.num_attention_heads * shape.head_dim
        both = queries + 2 * shape.num_key_value_heads * shape.head_dim
        judged |= {(both, width), (2 * shape.intermediate_size, width), (width, shape.intermediate_size)}
    for block in plan("power", Machine("cuda", 1), [DEFAULT_CONDITION]):
        for case in block.cases:
            assert isinstance(case, SustainedCase | WakeCase)
            assert not {(op.n, op.k) for op in case.compute if isinstance(op, GemmOp)} & judged


def test_loads_and_rests_run_on_a_cpu() -> None:
    bench = Bench(Clock(torch.device("cpu")), Control(), CPU_CONDITION, l2_bytes=1 << 20, free_bytes=1 << 30)
    for block in plan("power", Machine("cpu", 1), [CPU_CONDITION]):
        for case in block.cases:
            tried = attempt(bench, lambda case=case: RUN[case.kind](bench, case))  # type: ignore[misc]
            assert tried.message == ""
            record = record_of(case, Ranks({0: tried}))
            if isinstance(record, SustainedRecord):
                assert record.chunk_end_s[-1] >= record.duration_s
                # A round is never faster than the pause behind it.
                assert max(record.chunk_rounds_per_s) * record.pause_s <= 1.0
                assert (record.pause_s > 0.0) == (record.pause_share > 0.0)
            else:
                assert isinstance(record, WakeRecord)
                # Without events in a graph all of it counts as inside.
                assert record.time_s == record.inside_s
