"""Models that run a wiring compute the architecture's formulas, and launch the kernels that are simulated."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from layout_support import layout_of, program_of

from kraken_sim.architectures.workload import Phase, Workload
from kraken_sim.errors import InputError
from kraken_sim.program.ops import Collective, DType

torch = pytest.importorskip("torch")

import rivals_worker as worker  # noqa: E402
from ranks_support import run_ranks  # noqa: E402
from test_validation_models import kinds_of  # noqa: E402
from validation_worker import TINY  # noqa: E402

from validation.models import ARCHITECTURES, build_model  # noqa: E402
from validation.models.communication import Group  # noqa: E402
from validation.models.kernels import record_kernels  # noqa: E402
from validation.passes import build_pass_model  # noqa: E402
from validation.rival_grid import rival_passes  # noqa: E402

if TYPE_CHECKING:
    from kraken_sim.program.program import Kernel

pytestmark = pytest.mark.torch

CASES = worker.rival_cases()
BY_NAME = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("rivals")
    run_ranks(worker.run, worker.SIZE, str(folder))
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(worker.SIZE)]


@BY_NAME
def test_each_rank_computes_what_the_formulas_say_of_its_device(
    outcomes: list[dict[str, dict[str, Any]]], case: worker.RivalCase
) -> None:
    assert max(rank[case.name]["logits_error"] for rank in outcomes) < 1e-12


@BY_NAME
def test_steps_with_the_cache_compute_what_a_longer_prefill_computes(
    outcomes: list[dict[str, dict[str, Any]]], case: worker.RivalCase
) -> None:
    assert max(rank[case.name]["decode_error"] for rank in outcomes) < 1e-12


@BY_NAME
def test_collectives_beside_compute_change_no_bit(
    outcomes: list[dict[str, dict[str, Any]]], case: worker.RivalCase
) -> None:
    assert [rank[case.name]["overlap_difference"] for rank in outcomes] == [0.0] * worker.SIZE


@pytest.mark.parametrize("case", [case for case in CASES if case.gradients], ids=lambda case: case.name)
def test_every_matrix_has_the_gradient_of_the_whole_model(
    outcomes: list[dict[str, dict[str, Any]]], case: worker.RivalCase
) -> None:
    for rank in outcomes:
        errors = rank[case.name]["gradient_errors"]
        assert len(errors) >= 4 * case.config.num_hidden_layers
        assert {name: error for name, error in errors.items() if error > 1e-11} == {}


@BY_NAME
def test_a_wired_model_launches_the_kernels_of_its_program(
    outcomes: list[dict[str, dict[str, Any]]], case: worker.RivalCase
) -> None:
    expected = kinds_of(program_kernels(case, worker.SIZE), case.config)
    for rank in outcomes:
        assert tuple(rank[case.name]["kernels"]) == expected


@BY_NAME
def test_a_decode_step_of_a_wired_model_launches_those_of_its_program(case: worker.RivalCase) -> None:
    model = build_model(case.kind, case.config, num_ways=case.ways, fields=case.own, dtype=torch.float32)
    model.kernels = case.kernels
    cache = model.new_cache(2, 8)
    with torch.inference_mode():
        model(torch.zeros(2, 7, dtype=torch.long), cache)
        seen = record_kernels(lambda: model(torch.zeros(2, 1, dtype=torch.long), cache, start=7))
    alone = program_kernels(case, 1, Phase.DECODE)
    assert not any(isinstance(kernel.op, Collective) for kernel in alone)
    assert seen == kinds_of(alone, case.config)


def program_kernels(case: worker.RivalCase, size: int, phase: Phase = Phase.PREFILL) -> tuple[Kernel, ...]:
    """The kernels of the program for as many sequences as the worker looks at."""
    layout = layout_of(case.kind, case.config, size, **case.own)
    batch, length = (case.batch, 7) if phase is Phase.DECODE else case.seen
    work = Workload(batch, length, phase=phase, dtype=DType.FLOAT32, kernels=case.kernels)
    return tuple(program_of(case.kind, layout, case.config, work).kernels())


def test_every_pass_of_the_suite_of_rivals_on_two_gpus_can_be_built() -> None:
    passes = rival_passes(2, "sysmem")
    last = {case.architecture["kind"]: case for case in passes}
    assert set(last) == set(ARCHITECTURES) - {"sync_point_drop"}
    assert {case.context_length for case in passes if case.architecture["kind"] == "token_weave"} == {512, 2048}
    for case in last.values():
        config = build_pass_model(case, "meta").config
        assert (config.hidden_size < 4096) == (case.architecture["kind"] in ("kraken", "parallel_track"))


def test_half_of_a_sequence_goes_on_from_the_other_without_a_cache() -> None:
    model = build_model("token_weave", worker.LONG, dtype=torch.float64)
    ids = torch.arange(1030)[None] % worker.LONG.vocab_size
    with torch.inference_mode():
        torch.testing.assert_close(model(ids), model(ids, model.new_cache(1, 1030)))
    with pytest.raises(InputError, match="gradients of a sequence that is cut in two"):
        model(ids)


def test_what_is_not_made_by_a_wiring_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'ladder'"):
        build_model("laddr", TINY, world=Group(), device="meta")
    with pytest.raises(InputError, match="without biases"):
        build_model("sync_point_drop", TINY, world=Group(), device="meta")
    model = build_model("desync", TINY, world=Group(0, 2))
    with pytest.raises(InputError, match="gradients of residuals that differ"):
        model(torch.zeros(1, 3, dtype=torch.long))
