"""The host that a scenario names: its file, its costs, and what they do to an eager step and to its interval."""

from __future__ import annotations

import json
from math import log, sqrt
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest
from measurement_support import launch_record, write

from kraken_sim import simulate
from kraken_sim.calibration.fit_profile import calibrate
from kraken_sim.cli import main
from kraken_sim.costs.host import host_share, shares_in
from kraken_sim.errors import InputError
from kraken_sim.measurements.host import host_of
from kraken_sim.measurements.launch import LAYER_CALLS, launch_costs
from kraken_sim.measurements.schema import MeasurementFile, read_measurements
from kraken_sim.predict.host_bound import host_bound
from kraken_sim.profiles.load import load_profile
from kraken_sim.profiles.profile import ProvenanceKind
from kraken_sim.program.kernel_sets import KernelSet
from kraken_sim.program.ops import Attention, ComputeOp, Copy, DType, Elementwise, Gemm, Norm
from kraken_sim.scenario.host import HostSpec
from kraken_sim.scenario.spec import load_scenario
from kraken_sim.validate.passes import validate_passes

if TYPE_CHECKING:
    from kraken_sim.predict.uncertainty import Interval

HARDWARE = "h200-sxm-x2"
MEASUREMENTS = Path(__file__).parents[1] / "validation" / "measurements"
F16 = DType.FLOAT16


def predict(launch: str = "eager", context_length: int = 128, **runtime: Any) -> Any:
    return simulate(
        {
            "hardware": HARDWARE,
            "model": {"preset": "1.3B", "num_hidden_layers": 6},
            "num_devices": 1,
            "context_length": context_length,
            "runtime": {"launch": launch, **runtime},
        }
    )


def host_records(kernel_us: float, llama_us: float | None = None, process: int = 1) -> list[Any]:
    layer_us = kernel_us * sum(LAYER_CALLS.values())
    found = [launch_record("host_layer", "standard", layer_us, process=process)]
    if llama_us is not None:
        found.append(launch_record("host_layer", "llama", llama_us, process=process))
    return found


def test_a_step_that_waits_for_the_host_takes_as_long_as_the_host_does() -> None:
    slow, fast = (predict(host={"eager_kernel_s": f"{us} us"}).latency_s for us in (60, 30))
    assert slow == pytest.approx(2.0 * fast, rel=0.02)
    assert predict("graph", host={"eager_kernel_s": "60 us"}).latency_s == predict("graph").latency_s


def test_a_file_of_the_host_suite_says_what_its_processes_measured(tmp_path: Path) -> None:
    records = [*host_records(20.0), *host_records(30.0, process=2), launch_record("graph_start", "nodes=1", 9.0)]
    path = write(tmp_path / "host.jsonl", records)
    host = host_of(HostSpec(file=str(path)))
    assert host.costs == pytest.approx({"eager_kernel_s": 25e-6, "graph_launch_s": 9e-6})
    assert host.processes == 2
    assert host.spread == pytest.approx(log(30.0 / 20.0) / sqrt(2.0))
    asked = predict(host=str(path))
    assert asked.profile.launch.eager_kernel_s == pytest.approx(25e-6)
    where = asked.provenance["launch.eager_kernel_s"]
    assert where.kind is ProvenanceKind.MEASURED
    assert "host.jsonl" in where.source
    # The graph's launch is the host's as well.
    longer_s = 9e-6 - load_profile(HARDWARE).launch.graph_launch_s
    assert predict("graph", host=str(path)).latency_s - predict("graph").latency_s == pytest.approx(longer_s, rel=1e-3)


def test_a_host_file_of_cpus_says_that_it_is_a_dry_run(tmp_path: Path) -> None:
    path = write(tmp_path / "laptop.jsonl", host_records(900.0), device_type="cpu", device_name="Some CPU")
    assert "dry run on CPUs" in predict(host=str(path)).provenance["launch.eager_kernel_s"].source


def test_calls_that_a_file_does_not_tell_go_with_its_kernels() -> None:
    asked, profile = predict(host={"eager_kernel_s": "48.6 us"}), load_profile(HARDWARE)
    factor = 48.6e-6 / profile.launch.eager_kernel_s
    assert asked.profile.launch.eager_collective_s == pytest.approx(factor * profile.launch.eager_collective_s)
    assert asked.provenance["launch.eager_collective_s"].kind is ProvenanceKind.ASSUMED
    assert asked.profile.launch.graph_node_gap_s == profile.launch.graph_node_gap_s


def test_who_knows_how_far_hosts_differ_says_so() -> None:
    sure, unsure = (predict(host={"eager_kernel_s": "22 us", "spread": spread}) for spread in (0.02, 0.5))
    assert sure.latency_s == unsure.latency_s
    assert sure.interval.high_s < 1.2 * sure.latency_s
    assert unsure.interval.high_s > 2.0 * unsure.latency_s


def test_a_graph_keeps_its_interval_whatever_the_host() -> None:
    one, other = (predict("graph", host={"eager_kernel_s": "22 us", "spread": spread}) for spread in (0.02, 0.5))
    assert one.interval == other.interval


def test_the_launch_of_a_rested_graph_is_the_hosts_matter_and_of_one_under_load_is_not() -> None:
    busy, rested = (predict("graph", context_length=64, load=load) for load in ("sustained", "rested"))
    assert busy.hosts_s is None
    launch_s = rested.prepared.machine.launch.graph_launch_s
    fast_s, slow_s = rested.hosts_s
    hosts = rested.prepared.hosts
    assert (slow_s - rested.latency_s) / launch_s == pytest.approx(hosts.high - 1.0)
    assert (rested.latency_s - fast_s) / launch_s == pytest.approx(1.0 - hosts.low)
    assert slow_s < rested.interval.high_s
    assert rested.interval.low_s < fast_s


def test_a_yaml_file_and_costs_by_name_count_alike(tmp_path: Path) -> None:
    (tmp_path / "host.yaml").write_text("eager_kernel_s: 30 us\nspread: 0.1\n", encoding="utf-8")
    scenario = tmp_path / "scenario.yaml"
    scenario.write_text(
        f"hardware: {HARDWARE}\nmodel: {{preset: 1.3B}}\ncontext_length: 128\n"
        "runtime: {launch: eager, host: host.yaml}\n",
        encoding="utf-8",
    )
    spec = load_scenario(scenario).runtime.host
    assert spec is not None
    host = host_of(spec)
    assert (host.costs, host.spread) == ({"eager_kernel_s": 30e-6}, 0.1)
    both = host_of(spec.model_copy(update={"eager_event_s": 2e-6, "eager_kernel_s": 40e-6}))
    assert both.costs == {"eager_kernel_s": 40e-6, "eager_event_s": 2e-6}


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"eager_kernel_s": "30 GB"}, "is a amount of data|time"),
        ({"eager_kernel_us": 30}, "eager_kernel_s"),
        ({}, "at least one cost"),
        ("nowhere.jsonl", "nowhere.jsonl"),
        ("nowhere.yaml", "nowhere.yaml"),
    ],
)
def test_a_wrong_host_is_named(host: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        predict(host=host)


def test_a_file_without_launch_records_tells_nothing_of_a_host(tmp_path: Path) -> None:
    path = write(tmp_path / "passes.jsonl", [])
    with pytest.raises(InputError, match="--suite host"):
        predict(host=str(path))


OPS: dict[str, ComputeOp] = {
    "gemm": Gemm(8, 8, 8, F16),
    "attention": Attention(1, 8, 8, 1, 1, 64, True, F16),
    "norm": Norm(8, 8, F16),
    "copy": Copy(64),
    "pointwise": Elementwise("gelu", 8, 1, F16),
}
SHARES = {"gemm": 1.3, "attention": 1.4, "norm": 1.1, "copy": 0.5, "pointwise": 0.6, "generated": 4.0}


@pytest.mark.parametrize("kind", OPS)
def test_every_kind_of_call_has_its_share(kind: str) -> None:
    for kernels in KernelSet:
        assert host_share(OPS[kind], shares_in(SHARES, kernels)) == SHARES[kind]
    assert host_share(OPS[kind], {}) == 1.0


def test_generated_kernels_cost_an_engine_what_its_operators_do() -> None:
    for op in (Norm(8, 8, F16, "rms_norm", fused=True), Elementwise("silu_mul", 8, 2, F16)):
        assert host_share(op, shares_in(SHARES, KernelSet.PYTORCH)) == 4.0
        assert host_share(op, shares_in(SHARES, KernelSet.SERVING)) == 0.6
    rope = Elementwise("rope", 8, 1, F16)
    assert host_share(rope, shares_in(SHARES, KernelSet.PYTORCH)) == 4.0
    assert host_share(rope, shares_in(SHARES, KernelSet.COMPILED)) == 0.6  # the second kernel of a call


def test_the_shares_of_a_layers_kernels_are_one_on_average() -> None:
    calls = {"add": 6.0, "copy": 5.0, "attention": 16.0, "gelu": 6.0, "gemm": 13.0, "norm": 10.0}
    records = [launch_record("host_kernel", kernel, us) for kernel, us in calls.items()]
    records += [launch_record("host_module", name, us) for name, us in (("linear", 14.0), ("layer_norm", 11.0))]
    records += host_records(20.0, llama_us=400.0)
    file = MeasurementFile("host.jsonl", read_measurements_header(), tuple(records))
    shares = launch_costs(file, load_profile(HARDWARE).launch, "a machine").constants.eager_shares
    kinds = {"gemm": 4, "norm": 2, "pointwise": 3, "copy": 1, "attention": 1}
    assert sum(count * shares[kind] for kind, count in kinds.items()) == pytest.approx(11.0)
    # What is left of the Llama-like layer is its three generated kernels.
    others = 4 * shares["gemm"] + 2 * shares["norm"] + 2 * shares["pointwise"] + shares["attention"]
    assert 20.0 * (others + 3 * shares["generated"]) == pytest.approx(400.0)


def read_measurements_header() -> Any:
    return read_measurements(MEASUREMENTS / "launch" / "h200-sxm-x1-1.jsonl").header


def test_the_answer_says_where_the_host_is_from() -> None:
    answer = predict(host={"eager_kernel_s": "30 us"}).as_dict()
    assert answer["provenance"]["launch.eager_kernel_s"]["source"] == "runtime.host of the scenario"
    json.dumps(answer)


def test_a_host_bound_step_says_what_a_graph_would_give() -> None:
    eager, graph = predict(), predict("graph")
    found = host_bound(eager)
    assert found is not None
    assert found.graph_latency_s == graph.latency_s
    assert 0.1 < found.share == eager.host_wait_s / eager.latency_s < 1.0
    assert f"({100 * found.share:.0f} % of the time)" in found.sentence()
    assert host_bound(graph) is None
    assert host_bound(predict(context_length=2048, host={"eager_kernel_s": "2 us"})) is None


@pytest.mark.parametrize("verb", ["run", "compare"])
def test_run_and_compare_say_so(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = tmp_path / "small.yaml"
    scenario.write_text(
        f"hardware: {HARDWARE}\nmodel: {{preset: 1.3B, num_hidden_layers: 2}}\ncontext_length: 128\n"
        "runtime: {launch: eager}\n",
        encoding="utf-8",
    )
    page, data = tmp_path / "page.html", tmp_path / "data.json"
    assert main([verb, str(scenario), "--html", str(page), "--json", str(data)]) == 0
    answers = json.loads(data.read_text(encoding="utf-8"))
    for answer in answers if isinstance(answers, list) else [answers]:
        assert answer["host_bound"]["graph_latency_s"] < answer["ttft_s"]
    said = " ".join(capsys.readouterr().out.split())
    assert "for the host to launch its next kernel; as a CUDA graph the step would take" in said
    assert "for the host to launch its next kernel" in page.read_text(encoding="utf-8")


def test_a_host_suites_own_spread_narrows_the_interval_and_holds_passes_of_that_host() -> None:
    """24 eager passes of Llama-like models right after the host suite, on the same host; none was fitted."""
    measured = read_measurements(MEASUREMENTS / "h200-sxm-x1-host-passes.jsonl")
    spec = HostSpec(file=str(MEASUREMENTS / "launch" / "h200-sxm-x1-4.jsonl"))
    unknown, known = (validate_passes(measured, HARDWARE, host) for host in (None, spec))
    assert known.summary(lambda _: "all")["all"].inside >= 0.85
    pairs = zip(known.comparisons, unknown.comparisons, strict=True)
    widths = [width(one.interval) / width(other.interval) for one, other in pairs]
    assert max(widths) < 1.0
    assert median(widths) < 0.6


def width(interval: Interval) -> float:
    return interval.high_s / interval.low_s


def test_a_profile_carries_a_measured_host() -> None:
    file = MEASUREMENTS / "launch" / "h200-sxm-x1-4.jsonl"
    mine = calibrate(read_measurements(file), load_profile(HARDWARE)).profile
    host = host_of(HostSpec(file=str(file)))
    assert mine.launch.eager_kernel_s == host.costs["eager_kernel_s"]
    assert mine.launch.eager_spread == host.spread
    assert 0.0 < mine.launch.eager_spread < 0.34


def test_validate_takes_a_host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    passes = str(MEASUREMENTS / "h200-sxm-x1-host-passes.jsonl")
    host = str(MEASUREMENTS / "launch" / "h200-sxm-x1-4.jsonl")
    data = tmp_path / "answer.json"
    assert main(["validate", passes, "--hardware", HARDWARE, "--host", host, "--json", str(data)]) == 0
    assert "in 90 % interval" in capsys.readouterr().out
    answer = json.loads(data.read_text(encoding="utf-8"))
    assert all(low < found["predicted_s"] < high for found in answer["passes"] for low, high in [found["interval_s"]])
    assert main(["validate", passes, "--host", str(tmp_path / "none.jsonl")]) == 2
