"""Questions of one command each: channels, degree, interconnect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from explore_support import asked

from kraken_sim import simulate
from kraken_sim.cli import main
from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.explore.channels import best_channels
from kraken_sim.explore.channels_measured import compare_channels
from kraken_sim.explore.degree import best_degree, degrees
from kraken_sim.explore.interconnect import Crossing, crossing_of, worthwhile_bandwidth
from kraken_sim.measurements.schema import read_measurements
from kraken_sim.predict.explain import explain_overlap
from kraken_sim.profiles.load import load_profile
from kraken_sim.report.explore import channels_sentences

ROOT = Path(__file__).parent.parent
PASSES = ROOT / "validation" / "measurements" / "h200-sxm-x2-passes.jsonl"


def test_the_best_channels_are_those_that_explaining_the_overlap_names() -> None:
    answer = best_channels(asked(context_length=128), perturb=False)
    advice = explain_overlap(simulate(asked(context_length=128)))
    assert answer.best == str(advice.best_channels or "default")
    assert answer.gain >= 0.0


def test_channels_are_asked_of_overlapping_krakens_on_nccl_only() -> None:
    wrong = asked(architecture={"kind": "standard"}, runtime={"overlap": False, "collective": {"library": "custom"}})
    with pytest.raises(InputError) as caught:
        best_channels(wrong)
    assert {problem.path for problem in caught.value.problems} == {
        "architecture.kind", "runtime.overlap", "runtime.collective.library",
    }  # fmt: skip


def test_predicted_channels_hold_against_the_measured_passes() -> None:
    # 15 Krakens on two H200. Following the prediction must lose little, and less than NCCL's own choice does; the
    # stated probabilities must be honest: as many hits as they promise, give or take two standard deviations.
    result = compare_channels(read_measurements(PASSES))
    assert len(result.rows) == 15
    assert result.mean_regret < 0.025
    assert result.mean_regret < result.mean_default_regret
    assert max(row.regret for row in result.rows) < 0.09
    chances = [row.answer.decision.probability[row.answer.best] for row in result.rows]
    spread = sum(chance * (1.0 - chance) for chance in chances) ** 0.5
    assert abs(result.num_agreeing - result.expected_agreeing) < 2.0 * spread
    assert min(result.mean_fixed_regret().values()) >= 0.0


def test_a_file_without_several_limits_of_channels_is_refused(tmp_path: Path) -> None:
    lines = PASSES.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if '"condition":"channels' not in line]
    path = tmp_path / "few.jsonl"
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="several limits of channels"):
        compare_channels(read_measurements(path))


def test_degrees_are_powers_of_two_and_the_number_asked_for() -> None:
    profile = load_profile("h100-sxm-x8")
    assert degrees(profile) == [1, 2, 4, 8]
    assert degrees(profile, 6) == [1, 2, 4, 6]
    with pytest.raises(InputError, match="has 8 devices"):
        degrees(profile, 9)


def test_the_best_degree_is_the_fastest_row_and_one_gpu_the_most_economical() -> None:
    answer = best_degree(asked(hardware="h100-sxm-x8", num_devices=None, model={"preset": "13B"}, context_length=2048))
    by_name = {row.name: row for row in answer.rows}
    assert answer.best == min(by_name, key=lambda name: by_name[name].prediction.latency_s) == "kraken x8"
    assert answer.best_of("standard") == "standard x8"
    assert answer.best_throughput == max(by_name, key=lambda name: by_name[name].sequences_per_s) == "standard x1"
    assert by_name["standard x8"].num_replicas == 1
    assert by_name["standard x2"].num_replicas == 4
    assert "parallel x1" not in by_name


def test_degrees_that_do_not_fit_say_why_and_none_is_infeasible() -> None:
    answer = best_degree(asked(hardware="h100-sxm-x8", num_devices=None, model={"preset": "65B"}), perturb=False)
    assert "device memory" in answer.impossible["standard x1"]
    with pytest.raises(InfeasibleError, match="limiting number"):
        best_degree(asked(hardware="l40s-x8", num_devices=2, model={"preset": "175B"}, context_length=2048))


def crossing(*speedups: float) -> Crossing:
    return crossing_of([1e9 * 2.0**index for index in range(len(speedups))], speedups, 0.1)


def test_the_crossing_is_interpolated_on_the_logarithm_of_the_bandwidth() -> None:
    found = crossing(0.3, 0.2, 0.0)
    assert found.sure_bytes_per_s == found.last_bytes_per_s == pytest.approx(2e9 * 2.0**0.5)


def test_a_curve_that_goes_back_and_forth_has_two_ends() -> None:
    found = crossing(0.3, 0.0, 0.3, 0.0)
    assert found.sure_bytes_per_s is not None
    assert found.last_bytes_per_s is not None
    assert 1e9 < found.sure_bytes_per_s < 2e9
    assert 4e9 < found.last_bytes_per_s < 8e9


def test_curves_that_never_cross() -> None:
    assert crossing(0.0, 0.0).last_bytes_per_s is None
    always = crossing(0.3, 0.3)
    assert always.sure_bytes_per_s == always.last_bytes_per_s == 2e9
    late = crossing(0.0, 0.3, 0.0)
    assert late.sure_bytes_per_s is None
    assert late.last_bytes_per_s is not None


def test_slower_links_make_kraken_worth_more() -> None:
    answer = worthwhile_bandwidth(asked(), 0.1, (0.125, 0.5, 1.0), perturb=False)
    assert answer.points[0].speedup > answer.points[-1].speedup
    assert answer.own == answer.points[-1]
    assert all(point.interval[0] < point.speedup < point.interval[1] for point in answer.points)
    with pytest.raises(InputError, match="no interconnect"):
        worthwhile_bandwidth(asked(num_devices=1))
    for wrong in (-0.1, float("nan")):
        with pytest.raises(InputError, match="--worth"):
            worthwhile_bandwidth(asked(), wrong)


@pytest.mark.parametrize(
    ("verb", "words"), [("channels", "probability"), ("degree", "replicas"), ("interconnect", "as built")]
)
def test_every_question_is_one_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, words: str
) -> None:
    page, data = tmp_path / "new" / "page.html", tmp_path / "new" / "data.json"
    flags = ["--hardware", "h200-sxm-x2", "--model", "1.3B", "--context-length", "128"]
    assert main(["explore", verb, *flags, "--html", str(page), "--json", str(data)]) == 0
    assert words in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert words in text
    assert "plotly" in text
    assert len(json.loads(data.read_text(encoding="utf-8"))) == 1


def test_options_change_a_scenario_and_lists_ask_several_questions(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["explore", "degree", "kraken-6.7b-on-two-h200", "--model", "1.3B", "--context-length", "128", "256"]
    assert main([*arguments, "--json", "-"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [answer["context_length"] for answer in answers] == [128, 256]
    assert answers[0]["best_by_architecture"]["parallel"] == "parallel x2"


def test_measured_channels_are_a_command_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "measured.html"
    assert main(["explore", "channels", "--measured", str(PASSES), "--html", str(page)]) == 0
    assert "measured best" in capsys.readouterr().out
    assert "175B, 2048 tokens" in page.read_text(encoding="utf-8")


def test_what_is_missing_is_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", "degree"]) == 2
    error = capsys.readouterr().err
    for option in ("--hardware", "--model", "--context-length"):
        assert option in error
    assert main(["explore", "degree", "--hardware", "h100-sxm-x8", "--model", "14B", "--context-length", "9"]) == 2
    assert "did you mean '13B'" in capsys.readouterr().err
    both = ["--model", "13B", "--hardware", "h200-sxm-x2", "h200-sxm-x8"]
    assert main(["explore", "channels", "--measured", str(PASSES), *both]) == 2
    error = capsys.readouterr().err
    assert "--model" in error
    assert "--hardware" in error


@pytest.mark.parametrize(("tokens", "words"), [(256, "NCCL_MAX_NCHANNELS="), (2048, "leave it to NCCL")])
def test_a_limit_is_advised_only_where_it_surely_gains(tokens: int, words: str) -> None:
    answer = best_channels(asked(context_length=tokens), perturb=False)
    low, high = answer.gain_interval
    assert low <= answer.gain <= high
    assert (answer.advice == answer.best) is (low > 0.0)
    assert answer.as_dict()["advised_channels"] == (int(answer.best) if low > 0.0 else None)
    assert words in channels_sentences([answer])[0]
