from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from statistics import NormalDist, fmean
from typing import TYPE_CHECKING, Any

import pytest
from measurement_support import header, microbenchmarks, pass_record, write

from kraken_sim import predict_op, simulate
from kraken_sim.calibration.gemm import GemmSample, gemm_shape
from kraken_sim.calibration.split import split
from kraken_sim.measurements.records.kernels import GemmRecord, MemoryBoundRecord
from kraken_sim.measurements.schema import MeasurementFile, read_measurements
from kraken_sim.predict.ideal_overlap import ideal_overlap
from kraken_sim.predict.pricing import Pricing
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.ops import DType, Gemm
from kraken_sim.scenario.spec import Launch
from kraken_sim.validate.passes import KRAKEN_NAME, scenario_of_pass, validate_passes
from validation import accuracy
from validation.accuracy_causes import bias_section, explained_section, explained_share, gemm_shift_s
from validation.accuracy_left_out import left_out_sources, within
from validation.accuracy_passes import (
    eager_section,
    graph_section,
    host_spreads,
    launched,
    speedup_section,
    with_ideal_overlap,
)
from validation.accuracy_public import public_sections
from validation.accuracy_table import Bar, Line, Section, cells, line, text_table

if TYPE_CHECKING:
    from pathlib import Path

    from kraken_sim.scenario.spec import Scenario
    from kraken_sim.validate.passes import ValidationResult

HARDWARE = "h200-sxm-x2"
NCCL = {"library": "nccl", "channels": None, "transport": "auto"}
CONDITIONS = header().conditions


def predicted_s(record: Any) -> float:
    collective = CONDITIONS[record.condition]
    assert collective is not None
    return simulate(scenario_of_pass(record, collective, HARDWARE)).latency_s


def slower(architecture: str, factor: float, **changes: Any) -> Any:
    """A pass that took `factor` times what is predicted."""
    blank = pass_record(architecture, 1.0, **changes)
    return pass_record(architecture, factor * predicted_s(blank), **changes)


def kraken_at_512() -> Scenario:
    return scenario_of_pass(pass_record("kraken", 1.0, model={"preset": "6.7B"}, context_length=512), NCCL, HARDWARE)


def blocked(scenario: Scenario) -> Scenario:
    return scenario.model_copy(update={"runtime": scenario.runtime.model_copy(update={"overlap": False})})


def result_of(*records: Any) -> ValidationResult:
    return validate_passes(MeasurementFile("measured.jsonl", header(), records), HARDWARE)


def by_labels(section: Section) -> dict[tuple[str, ...], Line]:
    return {item.labels: item for item in section.lines}


@pytest.fixture(scope="module")
def committed() -> ValidationResult:
    return validate_passes(read_measurements(accuracy.MEASUREMENTS / "h200-sxm-x2-passes.jsonl"))


def test_a_line_sums_up_signed_errors_and_meets_its_bar_only_with_mean_and_worst() -> None:
    found = line(("x",), [0.02, -0.04], Bar(mean=0.03, worst=0.03))
    assert found.count == 2
    assert found.mean == pytest.approx(0.03)
    assert found.worst == pytest.approx(0.04)
    assert found.bias == pytest.approx(-0.01)
    assert (found.mean_met, found.worst_met, found.met) == (True, False, False)
    assert line(("x",), [0.02]).met is None
    assert line(("x",), [0.02], Bar(mean=0.03)).met is True


def test_a_section_reads_the_same_as_cells_as_a_table_and_as_json() -> None:
    section = Section("s", "Errors", ("of",), (line(("a",), [0.1], Bar(mean=0.05), ("e",)),), ("more",))
    assert cells(section, section.lines[0]) == ("a", "1", "10.0", "10.0", "+10.0", "mean ≤ 5", "no", "e")
    assert len(section.header) == 8
    table = text_table(section)
    assert (table.rows, list(table.missed)) == ([cells(section, section.lines[0])], [0])
    (found,) = section.as_dict()["lines"]
    assert found == {
        "of": "a", "count": 1, "mean": 10.0, "worst": 10.0, "bias": 10.0,
        "bar_mean": 5.0, "bar_worst": None, "met": False, "more": "e",
    }  # fmt: skip


def test_errors_of_passes_are_relative_to_what_was_measured() -> None:
    records = [slower("standard", 1.25), slower("standard", 1.0, context_length=256), slower("kraken", 0.8)]
    lines = by_labels(graph_section(result_of(*records, slower("parallel", 1.0, condition="channels-4"))))
    standard = lines["standard", "nccl-default"]
    assert standard.count == 2
    assert standard.mean == pytest.approx(0.1)
    assert standard.bias == pytest.approx(-0.1)
    assert standard.worst == pytest.approx(0.2)
    assert standard.met is False
    assert lines["kraken", "nccl-default"].bias == pytest.approx(0.25)
    assert lines["parallel", "channels-4"].met is True
    assert lines["all", "all"].mean == pytest.approx((0.2 + 0.25) / 4)


def test_the_speed_up_is_judged_in_points_and_by_its_sign() -> None:
    result = result_of(slower("standard", 0.7), slower("kraken", 1.0))
    (speedup,) = result.speedups()
    assert speedup.measured_percent < -3.0 < 3.0 < speedup.predicted_percent
    section = speedup_section(result, result)
    found = by_labels(section)[("nccl-default",)]
    assert 100 * found.bias == pytest.approx(speedup.error_points)
    assert found.extra[0] == found.extra[2] == "0 of 1"
    assert found.extra[1] == f"{found.mean * 100:.1f}"


def test_overlap_that_costs_nothing_is_faster_than_overlap_that_does_and_than_none() -> None:
    scenario = kraken_at_512()
    blocking = blocked(scenario)
    ideal_s = ideal_overlap(simulate(scenario).prepared).duration_s
    assert ideal_s < simulate(scenario).latency_s
    assert ideal_s < simulate(blocking).latency_s


def test_ideal_overlap_takes_the_longer_side_of_each_overlap() -> None:
    # One clock for all: an overlapped pass is denser and would run at a lower one.
    profile = replace(load_profile(HARDWARE), power=None)
    scenario = kraken_at_512()
    overlapped = simulate(scenario, profile=profile)
    spans = overlapped.timeline.spans
    reduce_s = min(span.alone_s for span in spans if span.kind == "collective")
    blocking = blocked(scenario)
    saved_s = simulate(blocking, profile=profile).latency_s - ideal_overlap(overlapped.prepared).duration_s
    # The kernels up to the FFN are the longer side, so each of 31 layers saves its AllReduce with the gap before it,
    # but for fork and join.
    gap_s = profile.launch.graph_node_gap_s + profile.launch.graph_node_wait_s
    assert 0.8 * 31 * reduce_s < saved_s <= 31 * (reduce_s + gap_s) * (1 + 1e-6)


def test_only_kraken_with_overlap_is_predicted_anew_for_ideal_overlap() -> None:
    records = [slower("standard", 1.0), slower("kraken", 1.0), slower("kraken", 1.0, overlap=False)]
    result = result_of(*records)
    ideal = with_ideal_overlap(result, CONDITIONS, load_profile(HARDWARE))
    changed = [a.architecture for a, b in zip(result.comparisons, ideal.comparisons, strict=True) if a != b]
    assert changed == [KRAKEN_NAME]


def test_the_spread_of_hosts_is_that_of_passes_that_wait_for_the_host_everywhere() -> None:
    records = []
    for condition, factor in (("nccl-default", 3.0), ("channels-4", 6.0)):
        records.append(slower("standard", 1.0, condition=condition))
        device_s = records[-1].time_s.median
        records.append(pass_record("standard", factor * device_s, launch="eager", condition=condition))
        records.append(slower("parallel", 1.0, condition=condition))
        other = 1.1 if condition == "channels-4" else 4.0
        records.append(pass_record("parallel", other * records[-1].time_s.median, launch="eager", condition=condition))
    result = result_of(*records)
    spreads = host_spreads(result)
    assert set(spreads) == {("standard", "1.3B", 128)}
    eager = [c.measured_s for c in result.comparisons if c.record.launch is Launch.EAGER][::2]
    assert spreads["standard", "1.3B", 128].spread == pytest.approx(max(eager) / min(eager))
    assert by_labels(eager_section(result))[("standard",)].extra[0] == "1"


def test_a_common_bias_is_explained_by_its_group_and_noise_within_groups_is_not() -> None:
    shapes = [{"context_length": tokens} for tokens in (128, 256)]
    biased = result_of(*(slower("standard", 1.25, **shapes[0], condition=c) for c in ("nccl-default", "channels-4")),
                       slower("standard", 0.8, **shapes[1]))  # fmt: skip
    assert explained_share(biased.comparisons, lambda c: c.record.context_length) == pytest.approx(1.0)
    even = [
        replace(c, predicted_s=c.measured_s * (1 + e)) for c, e in zip(biased.comparisons, (0.1, -0.1, 0), strict=True)
    ]
    assert explained_share(even, lambda c: c.record.context_length) == pytest.approx(0.0)
    lines = by_labels(bias_section(biased, "tokens"))
    assert lines["standard", "128"].bias == pytest.approx(-0.2)
    assert lines["all", "256"].bias == pytest.approx(0.25)
    assert by_labels(explained_section(biased))["number of tokens", "2"].mean == pytest.approx(0.0, abs=1e-9)


def test_gemms_measured_twice_as_slow_lengthen_a_pass_by_its_gemm_time() -> None:
    scenario = scenario_of_pass(pass_record("standard", 1.0), NCCL, HARDWARE)
    prediction = simulate(scenario)
    prepared = prediction.prepared
    spans = simulate(scenario, exact=True).timeline.spans
    ops = {span.op for span in spans if isinstance(span.op, Gemm)}
    pricing = Pricing(prepared.profile)
    alone = {op: pricing.kernel(op).busy_s for op in ops}
    shift_s, share = gemm_shift_s(prepared, alone)
    assert share == pytest.approx(1.0)
    assert shift_s == pytest.approx(0.0, abs=1e-9 * prediction.latency_s)
    gemms_s = sum(span.alone_s for span in spans if isinstance(span.op, Gemm) and span.rank == 0)
    shift_s, _ = gemm_shift_s(prepared, {op: 2.0 * busy_s for op, busy_s in alone.items()})
    assert shift_s == pytest.approx(gemms_s, rel=1e-6)
    assert gemm_shift_s(prepared, {})[1] == 0.0


SHAPES = [(m, n, k) for m in (1, 64, 512, 2048) for n, k in ((4096, 4096), (4096, 1024), (8192, 8192))]


def gemm_table(folder: Path, card: str, name: str, factor: float) -> None:
    profile = load_profile(name)
    rows = ["# a comment", "m,n,k,latency_ms", "512,128,4096,1.0"]
    for m, n, k in SHAPES:
        time_s = predict_op(profile, {"op": "gemm", "m": m, "n": n, "k": k, "dtype": "bfloat16"})
        rows.append(f"{m},{n},{k},{factor * time_s * 1e3!r}")
    (folder / f"gemm_bf16_{card}.csv").write_text("\n".join(rows), encoding="utf-8")


def attention_table(folder: Path, factor: float) -> None:
    attention = {"batch": 2, "q_len": 1, "num_heads": 16, "num_kv_heads": 4, "head_dim": 128, "dtype": "bfloat16"}
    rows = ["batch_size,kv_len,num_heads,num_key_value_heads,head_dim,latency_ms"]
    for length in (256, 512, 1024, 2048):
        time_s = predict_op("l40s-x8", {"op": "attention", "kv_len": length, **attention})
        rows.append(f"2,{length},16,4,128,{1e3 * factor * time_s!r}")
    (folder / "gen_attn_bf16_l40s_pcie_trtllm.csv").write_text("\n".join(rows), encoding="utf-8")


def test_public_tables_are_compared_row_by_row_on_shapes_that_no_fit_saw(tmp_path: Path) -> None:
    gemm_table(tmp_path, "a100sxm80_trtllm", "a100-sxm4-80gb-x8", 1.25)
    gemm_table(tmp_path, "l40s_pcie_trtllm", "l40s-x8", 1.0)
    attention_table(tmp_path, 0.5)
    sizes = [4096 << step for step in range(10)]
    times = [predict_op("h100-sxm-x8", {"op": "all_reduce", "bytes": size, "num_devices": 4}) for size in sizes]
    rows = [f"h100_sxm,2.29.2,4,{size},{1e3 * time_s!r}" for size, time_s in zip(sizes, times, strict=True)]
    rows += ["h100_sxm,2.29.2,4,512,1", "h100_sxm,2.20.3,4,4096,1", "other,2.29.2,4,4096,1"]
    text = "\n".join(["system,nccl_version,num_gpus,message_bytes,latency_ms", *rows])
    (tmp_path / "nccl_all_reduce.csv").write_text(text, encoding="utf-8")
    sections = {section.key: by_labels(section) for section in public_sections(tmp_path)}
    a100 = sections["public_gemm"][("a100-sxm4-80gb-x8",)]
    products = [GemmSample(*shape, DType.BFLOAT16, 1.0, weights_warm=True) for shape in SHAPES]
    assert a100.count == len(split(products, gemm_shape)[1]) < len(SHAPES)
    assert a100.mean == pytest.approx(0.2)
    assert a100.met is False
    assert sections["public_gemm"][("l40s-x8",)].mean == pytest.approx(0.0, abs=1e-9)
    assert sections["public_attention"]["l40s-x8", "decode"].bias == pytest.approx(1.0)
    assert 1 <= sections["public_all_reduce"]["h100-sxm-x8", "4"].count < len(sizes)
    assert sections["public_all_reduce"]["h100-sxm-x8", "4"].met is True
    assert sections["left_out_gemm"]["l40s-x8", "a100-sxm4-80gb-x8"].count == a100.count


def test_without_public_tables_a_line_says_so(tmp_path: Path) -> None:
    (section,) = public_sections(tmp_path)
    assert not section.lines
    assert "left out" in section.note


def test_a_gpu_left_out_takes_constants_of_another_chip_at_least_once() -> None:
    for name in ("h100-sxm-x8", "h200-sxm-x8", "a100-sxm4-80gb-x8", "l40s-x8"):
        target = load_profile(name).device
        sources = [load_profile(source).device for source in left_out_sources(name)]
        assert target not in sources
        assert any(source.generation != target.generation for source in sources)


def test_the_interval_of_a_stated_error_holds_nine_tenths_of_normal_errors_of_that_size() -> None:
    normal = NormalDist(0.0, 0.1)
    errors = [normal.inv_cdf((index + 0.5) / 1000) for index in range(1000)]
    stated = fmean(map(abs, errors))
    assert within(errors, stated) == pytest.approx(0.9, abs=0.04)  # in factors, so a little less below
    assert within(errors, stated / 2.0) < 0.65


def small_microbench() -> list[Any]:
    records = microbenchmarks(load_profile(HARDWARE))
    return [record for record in records if isinstance(record, GemmRecord | MemoryBoundRecord)]


def test_the_command_prints_all_tables_and_writes_page_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no tables").mkdir()
    passes = [slower("standard", 1.25), slower("kraken", 1.0), slower("standard", 1.0, launch="eager")]
    measured, single = write(tmp_path / "p.jsonl", passes), write(tmp_path / "m.jsonl", small_microbench())
    page, data = tmp_path / "out" / "a.html", tmp_path / "a.json"
    files = ["--passes", str(measured), "--microbench", str(single), "--public-data", str(tmp_path / "no tables")]
    assert accuracy.main([*files, "--html", str(page), "--json", str(data)]) == 0
    printed = capsys.readouterr().out
    assert "No public tables" in printed
    found = json.loads(data.read_text(encoding="utf-8"))
    keys = [section["key"] for section in found["sections"]]
    assert keys == [
        "graph", "speedup", "explained", "bias_tokens", "bias_size", "measured_gemms",
        "eager", "intervals", "microbench", "public",
    ]  # fmt: skip
    assert all(section["title"] in printed for section in found["sections"] if section["lines"])
    standard = next(x for x in found["sections"][0]["lines"] if x["architecture"] == "standard")
    assert standard["mean"] == pytest.approx(20.0, abs=0.01)
    held_out = {(x["kernel"], x["class"]): x for x in found["sections"][8]["lines"]}
    assert held_out["gemm", "all"]["met"] is True
    text = page.read_text(encoding="utf-8")
    assert text.count('class="figure"') == 3
    assert text.count("<table") == 9
    assert not any(f'src="{scheme}' in text for scheme in ("http", "//"))


def test_a_file_without_passes_is_an_input_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    single = write(tmp_path / "m.jsonl", small_microbench()[:1])
    assert accuracy.main(["--passes", str(single), "--microbench", str(single)]) == 2
    assert "no whole passes" in capsys.readouterr().err


def test_accuracy_needs_no_torch() -> None:
    code = "import sys, validation.accuracy; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=accuracy.ROOT)


def test_all_measured_passes_are_compared(committed: ValidationResult) -> None:
    assert len(committed.comparisons) == 720
    assert not committed.skipped
    lines = by_labels(graph_section(launched(committed, Launch.GRAPH)))
    for architecture in ("standard", "parallel", "kraken", "kraken (blocking)"):
        assert sum(labels[0] == architecture for labels in lines) == 7
