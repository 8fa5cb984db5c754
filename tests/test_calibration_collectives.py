"""Fitting the AllReduce constants: it recovers what made the samples, and meets the bar on published ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from collective_support import GAP_S, constants, gpu, nvswitch

from kraken_sim.calibration.collectives import AllReduceSample, fit_all_reduce
from kraken_sim.costs.collectives import all_reduce_cost
from kraken_sim.costs.collectives.policy import CollectivePolicy, Library
from kraken_sim.errors import InputError
from validation.public_data import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BAR = 0.08


def synthetic(truth: Any, devices: Any = (2, 4, 8), limits: Any = (None, 8, 2)) -> Any:
    samples = []
    for n in devices:
        for channels in limits:
            for power in range(10, 29):
                policy = CollectivePolicy(channels=channels)
                cost = all_reduce_cost(2**power, nvswitch(n), gpu("hopper"), truth, policy)
                samples.append(AllReduceSample(2**power, n, "nccl", "", channels, "p2p", "graph", cost.busy_s + 1e-6))
    return samples


def links(devices: Any = (2, 4, 8), generation: Any = "hopper") -> Any:
    return {(n, "p2p"): nvswitch(n, generation) for n in devices}


def test_fit_recovers_the_machine_that_made_the_samples() -> None:
    truth = replace(
        constants(),
        base_s={"nvlink": {"ll": 5e-6, "ll128": 11e-6, "simple": 16e-6, "nvls": 26e-6}},
        channel_bytes_per_s={"nvlink": {"ll": 10e9, "ll128": 15e9, "simple": 22e9, "nvls": 25e9}},
        link_efficiency={"nvlink": {"ll": 0.33, "ll128": 0.55, "simple": 0.75, "nvls": 0.45}},
    )
    fit = fit_all_reduce(synthetic(truth), links(), gpu("hopper"), constants())
    assert fit.residual is not None
    assert fit.residual < 0.02
    assert fit.constants.channel_bytes_per_s["nvlink"]["simple"] == pytest.approx(22e9, rel=0.05)
    assert fit.constants.base_s["nvlink"]["simple"] == pytest.approx(16e-6, rel=0.15)


def test_fit_is_deterministic_and_holds_out_a_third() -> None:
    samples = synthetic(constants())
    first = fit_all_reduce(samples, links(), gpu("hopper"), constants())
    again = fit_all_reduce(list(reversed(samples)), links(), gpu("hopper"), constants())
    assert first.constants == again.constants
    shapes = {(sample.num_devices, sample.num_bytes) for sample in samples}
    held_out = {(sample.num_devices, sample.num_bytes) for sample, _ in first.held_out}
    assert len(held_out) / len(shapes) == pytest.approx(0.3, abs=0.12)
    # whatever the channels, a shape is on one side
    assert held_out.isdisjoint((sample.num_devices, sample.num_bytes) for sample in first.fitted)


def test_one_wild_sample_does_not_move_the_fit() -> None:
    samples = synthetic(constants())
    wild = [replace(samples[15], period_s=20 * samples[15].period_s), *samples[:15], *samples[16:]]
    clean = fit_all_reduce(samples, links(), gpu("hopper"), constants())
    dirty = fit_all_reduce(wild, links(), gpu("hopper"), constants())
    for size in (2**16, 2**20, 2**24, 2**27):
        times = [
            all_reduce_cost(size, nvswitch(4), gpu("hopper"), fit.constants, CollectivePolicy()).busy_s
            for fit in (clean, dirty)
        ]
        assert times[1] == pytest.approx(times[0], rel=0.05)


def test_classes_without_samples_keep_their_constants() -> None:
    start = constants(28, 0)
    fit = fit_all_reduce(synthetic(start, (2,)), links((2,)), gpu("hopper"), start)
    assert fit.constants.base_s["pcie"] == start.base_s["pcie"]
    assert fit.constants.base_s["nvlink"]["ll128"] == start.base_s["nvlink"]["ll128"]
    assert fit.constants.custom_base_s == start.custom_base_s


def test_custom_kernels_are_fitted_by_name() -> None:
    truth = replace(constants(), custom_base_s={**constants().custom_base_s, "one_shot_vllm": 6e-6})
    policy = CollectivePolicy(library=Library.CUSTOM, algorithm="one_shot")
    samples = [
        AllReduceSample(
            2**power, n, "custom", "one_shot_vllm", None, "p2p", "graph",
            all_reduce_cost(2**power, nvswitch(n), gpu("hopper"), truth, policy).busy_s + 1e-6,
        )
        for n in (2, 4, 8)
        for power in range(10, 20)
    ]  # fmt: skip
    fit = fit_all_reduce(samples, links(), gpu("hopper"), constants())
    assert fit.constants.custom_base_s["one_shot_vllm"] == pytest.approx(6e-6, rel=0.05)
    assert fit.residual is not None
    assert fit.residual < 0.02


def test_graph_samples_are_preferred_over_eager_ones_of_the_same_class() -> None:
    graph = synthetic(constants())
    eager = [replace(sample, launch="eager", period_s=3 * sample.period_s) for sample in graph]
    fit = fit_all_reduce(graph + eager, links(), gpu("hopper"), constants())
    assert len(fit.fitted) + len(fit.held_out) == len(graph)
    assert fit.residual is not None
    assert fit.residual < 0.01


@pytest.mark.parametrize(
    ("samples", "word"),
    [
        ([], "no AllReduce samples"),
        ([AllReduceSample(1024, 2, "nccl", "", None, "p2p", "graph", 0.0)], "longer than its gap"),
        ([AllReduceSample(1024, 3, "nccl", "", None, "p2p", "graph", 1e-5)], "there is no interconnect"),
        ([AllReduceSample(1024, 2, "custom", "one_shoot", None, "p2p", "graph", 1e-5)], "one_shot"),
    ],
)
def test_unusable_samples_are_named(samples: Any, word: Any) -> None:
    with pytest.raises(InputError, match=word):
        fit_all_reduce(samples, links(), gpu("hopper"), constants())


@pytest.mark.parametrize(
    ("system", "generation", "version"),
    [("a100_sxm", "ampere", "2.27.3"), ("h100_sxm", "hopper", "2.29.2"), ("h200_sxm", "hopper", "2.29.2")],
)
def test_published_nccl_rows_are_met_within_the_bar(
    public_table: Callable[[str], Path], system: Any, generation: Any, version: Any
) -> None:
    samples = [
        AllReduceSample(
            int(row["message_bytes"]), int(row["num_gpus"]), "nccl", "", None, "p2p", "eager",
            float(row["latency_ms"]) * 1e-3, GAP_S[generation],
        )
        for row in rows_of(public_table("nccl_all_reduce.csv"))
        if row["system"] == system and row["nccl_version"] == version
        and 1024 <= int(row["message_bytes"]) <= 2**28
    ]  # fmt: skip
    start = constants(int(version.split(".")[1]), int(generation == "hopper"))
    fit = fit_all_reduce(samples, links(generation=generation), gpu(generation), start)
    assert len(samples) == 57
    assert fit.residual is not None
    assert fit.residual < BAR
    for n in (2, 4, 8):
        errors = [
            (
                all_reduce_cost(
                    sample.num_bytes, nvswitch(n, generation), gpu(generation), fit.constants, CollectivePolicy()
                ).busy_s
                + sample.gap_s
            )
            / sample.period_s
            - 1.0
            for sample in samples
            if sample.num_devices == n
        ]
        assert sum(map(abs, errors)) / len(errors) < BAR
