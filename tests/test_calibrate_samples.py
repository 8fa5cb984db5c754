"""What a calibration reads out of records: samples of kernels and collectives, costs of launches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from calibrate_support import BASE, file_of, gemm_records
from measurement_support import launch_record

from kraken_sim.calibration.samples import all_reduce_samples, attention_samples, gemm_samples
from kraken_sim.calibration.small_kernels import memory_bound_samples
from kraken_sim.measurements.launch import LAYER_CALLS, launch_costs
from kraken_sim.measurements.records.base import Quartiles
from kraken_sim.measurements.records.launched import KernelsRecord
from kraken_sim.profiles.load import load_profile
from kraken_sim.scenario.spec import Launch

if TYPE_CHECKING:
    from kraken_sim.measurements.records.kernels import GemmRecord


def test_only_graph_launches_become_samples() -> None:
    eager = [record.model_copy(update={"launch": Launch.EAGER}) for record in gemm_records()]
    both = file_of(*eager)
    device = load_profile(BASE).device
    samples = gemm_samples(both, device, 5e-7)
    assert samples == gemm_samples(file_of(), device, 5e-7)
    assert len(samples) == len(eager)
    assert all(not sample.weights_warm for sample in samples)
    assert all(not sample.composite for sample in attention_samples(both))
    assert len(memory_bound_samples(both)) == 6 * 6 * 3


def profiled(record: GemmRecord, busy_s: float) -> KernelsRecord:
    kernel = {"name": "gemm", "grid": (132, 1, 1), "block": (384, 1, 1), "busy_s": busy_s}
    return KernelsRecord.model_validate({"of": record.key, "kernels": [kernel]})


@pytest.mark.parametrize(
    ("m", "busy_us", "expected_us"),
    [
        (2048, 80.0, 80.5),  # the chain ran at a lower clock
        (2048, 120.0, 100.0),  # the chain is as good as any
        (16, 80.0, 100.0),  # its weights were warm under the profiler
    ],
)
def test_gemms_count_at_the_boost_clock(m: int, busy_us: float, expected_us: float) -> None:
    record = gemm_records()[0].model_copy(update={"m": m, "n": 8192, "k": 4096, "time_s": Quartiles(9e-5, 1e-4, 2e-4)})
    found = file_of(only=(record, profiled(record, busy_us * 1e-6)))
    (sample,) = gemm_samples(found, load_profile(BASE).device, 5e-7)
    assert sample.period_s == pytest.approx(expected_us * 1e-6)


def test_a_condition_becomes_channels_and_transport() -> None:
    samples = all_reduce_samples(file_of(), 5e-7)
    found = {(sample.channels, sample.transport) for sample in samples}
    assert found == {(None, "p2p"), (4, "p2p"), (None, "shm")}
    unknown = file_of(conditions={"nccl-default": None, "channels-4": None, "p2p-off": None})
    assert all_reduce_samples(unknown, 5e-7) == []


def test_launch_costs_are_what_the_engine_charges() -> None:
    base = load_profile(BASE).launch
    fit = launch_costs(file_of(), base, "a machine")
    costs = fit.constants
    assert costs.eager_kernel_s == pytest.approx(6.0e-6)
    assert costs.eager_event_s == pytest.approx(1.5e-6)
    # two records and two waits around the call make up the whole again
    assert costs.eager_side_collective_s + 4 * costs.eager_event_s == pytest.approx(60e-6)
    assert costs.eager_collective_s == pytest.approx(30e-6)
    assert costs.graph_launch_s == pytest.approx(6.0e-6)
    assert costs.eager_kernel_gap_s == pytest.approx(1.2e-6)
    assert {path.partition(".")[0] for path in fit.sources} <= set(costs.__dataclass_fields__)
    told = ("gemm", "attention", "norm", "copy", "pointwise")
    assert {kind: costs.eager_shares[kind] for kind in told} == pytest.approx(dict.fromkeys(told, 1.0))
    assert costs.eager_shares["generated"] == base.eager_shares["generated"]
    assert all("a machine" in where.source for where in fit.sources.values())


def host_costs(*records: object) -> float:
    file = file_of(only=tuple(records))
    return launch_costs(file, load_profile(BASE).launch, "a machine").constants.eager_kernel_s


def test_a_kernels_host_time_is_that_of_a_whole_layer_over_its_kernels() -> None:
    layers = [launch_record("host_layer", "standard", us, process=n) for n, us in enumerate((220.0, 330.0, 231.0), 1)]
    assert host_costs(*layers) == pytest.approx(231e-6 / sum(LAYER_CALLS.values()))


def test_without_a_layer_the_host_stays_the_bases() -> None:
    """Loops of one call flatter a host by 1.1 to 2.6 times, and made eager passes of the README's profile worse."""
    calls = [launch_record("host_kernel", kernel, 2.0) for kernel in LAYER_CALLS]
    assert host_costs(*calls) == load_profile(BASE).launch.eager_kernel_s


def test_a_negative_slope_is_no_cost() -> None:
    fit = launch_costs(file_of(only=(launch_record("graph_edge", "", -0.1),)), load_profile(BASE).launch, "a machine")
    assert fit.constants.graph_edge_s == 0.0
