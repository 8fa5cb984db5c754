"""How sure a ranking is: probabilities that add up, and perturbations that are simulated."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from math import log
from pathlib import Path
from statistics import NormalDist

import pytest
from explore_support import asked

from kraken_sim import simulate
from kraken_sim.explore.sensitivity import (
    Alternative,
    decide,
    error_covariance,
    error_terms,
    lowest,
    perturbed_residuals,
    probability_best,
    speedup_interval,
)
from kraken_sim.measurements.records.passes import PassRecord
from kraken_sim.measurements.schema import read_measurements
from kraken_sim.predict.explain import with_channels
from kraken_sim.predict.uncertainty import shared_square
from kraken_sim.profiles.load import load_profile
from kraken_sim.scenario.spec import with_architecture
from kraken_sim.validate.passes import scenario_of_pass

PASSES = Path(__file__).parent.parent / "validation" / "measurements" / "h200-sxm-x2-passes.jsonl"
H200 = load_profile("h200-sxm-x2")


def alternatives(*channels: int | None) -> list[Alternative]:
    return [Alternative(str(count), with_channels(asked(), count), H200) for count in channels]


def test_probabilities_add_up_and_the_clear_winner_is_sure() -> None:
    decision = decide(alternatives(None, 1, 8), perturb=False)
    assert sum(decision.probability.values()) == pytest.approx(1.0)
    # One channel serialises the AllReduce behind everything: no residual makes up for a third of the time.
    assert decision.latencies_s["1"] > 1.25 * decision.latencies_s["8"]
    assert decision.probability["1"] < 0.01


def test_the_same_design_twice_shares_every_error_so_the_first_is_taken() -> None:
    # 24 channels are what NCCL takes by itself: the two are one and the same.
    decision = decide(alternatives(None, 64), perturb=False)
    assert decision.latencies_s["None"] == decision.latencies_s["64"]
    assert decision.best == "None"
    assert decision.probability == {"None": 1.0, "64": 0.0}


def test_two_that_share_nothing_are_judged_by_the_normal_difference() -> None:
    # Other machines share no error: P = Phi(difference / sqrt(sum of variances)).
    first = simulate(asked(architecture={"kind": "standard"}))
    second = simulate(asked(architecture={"kind": "standard"}, hardware="h100-sxm-x8"))
    covariance = error_covariance([first, second])
    assert covariance[0, 1] == covariance[1, 0] == 0.0
    expected = NormalDist().cdf((second.latency_s - first.latency_s) / (covariance[0, 0] + covariance[1, 1]) ** 0.5)
    assert probability_best([first, second])[0] == pytest.approx(expected, abs=0.01)


def test_the_covariance_of_a_step_with_itself_is_the_variance_of_its_interval() -> None:
    prediction = simulate(asked(architecture={"kind": "standard"}, num_devices=1))
    variance = error_covariance([prediction])[0, 0] / prediction.latency_s**2
    assert log(1.0 + 1.645 * variance**0.5) == pytest.approx(log(prediction.latency_s / prediction.interval.low_s))


def test_intervals_of_speedups_hold_most_measured_speedups() -> None:
    # 90 graph passes of standard and Kraken on two H200; a 90 % interval must hold about 81 of them.
    measurements = read_measurements(PASSES)
    sides: dict[tuple[str, int, str], dict[str, PassRecord]] = defaultdict(dict)
    for record in measurements.select(PassRecord):
        kind = record.architecture["kind"]
        if record.launch == "graph" and (kind == "standard" or (kind == "kraken" and record.overlap)):
            sides[str(record.model), record.context_length, record.condition][kind] = record
    held, widths = [], []
    for (_, _, condition), pair in sides.items():
        collective = measurements.header.conditions[condition] or {}
        standard, kraken = pair["standard"], pair["kraken"]
        low, high = speedup_interval(
            *(simulate(scenario_of_pass(record, collective, "h200-sxm-x2")) for record in (standard, kraken))
        )
        held.append(low <= standard.time_s.median / kraken.time_s.median - 1.0 <= high)
        widths.append(high - low)
    assert len(held) == 90
    assert 0.85 <= sum(held) / len(held) < 1.0
    assert sum(widths) / len(widths) < 0.4


def test_what_two_have_in_common_cancels() -> None:
    # The same kernels twice: of a difference nothing is left; kernels of one block share a tenth of their variance.
    seconds: dict[object, float] = {"a": 3.0, "b": 4.0}
    assert shared_square(seconds, seconds) == pytest.approx(0.1 * 49.0 + 0.9 * 25.0)
    assert shared_square(seconds, {"c": 7.0}) == pytest.approx(0.1 * 49.0)
    assert shared_square({}, {}) == 0.0


def test_error_terms_cover_the_step_and_the_overlapped_time() -> None:
    prediction = simulate(with_architecture(asked(), asked(architecture={"kind": "standard"}).architecture.kind))
    covered = sum(sum(seconds.values()) for seconds in error_terms(prediction).values())
    assert covered == pytest.approx(prediction.latency_s, rel=1e-6)
    overlapped = simulate(asked())
    contended = sum(error_terms(overlapped)["contention"].values())
    assert contended >= overlapped.hidden_communication_s


def test_perturbations_are_simulations_of_the_changed_machine() -> None:
    decision = decide(alternatives(None, 8))
    blocks = {item.block for item in decision.perturbations}
    assert blocks == set(perturbed_residuals(H200, asked()))
    for item in decision.perturbations:
        assert item.factor in (pytest.approx(1 + item.residual), pytest.approx(1 / (1 + item.residual)))
        slower = item.latencies_s["8"] > decision.latencies_s["8"]
        assert slower == (item.factor > 1.0) or item.latencies_s["8"] == decision.latencies_s["8"]
    assert all(name == lowest(item.latencies_s) != decision.best for item, name in decision.flips)


def test_an_answer_that_hangs_on_a_block_is_said_to() -> None:
    doubtful = {
        path: replace(record, residual=0.5) if path.startswith("collectives.") else record
        for path, record in H200.provenance.items()
    }
    machine = replace(H200, provenance=doubtful)
    scenario = asked(context_length=2048)
    sure = decide([Alternative(str(c), with_channels(scenario, c), H200) for c in (2, 16)])
    unsure = decide([Alternative(str(c), with_channels(scenario, c), machine) for c in (2, 16)])
    assert len(unsure.flips) >= len(sure.flips)
    assert {item.residual for item in unsure.perturbations if item.block == "collectives"} == {0.5}


def test_eager_launches_are_more_doubtful_than_graphs() -> None:
    graph, eager = (simulate(asked(runtime={"launch": launch})) for launch in ("graph", "eager"))
    doubts = [
        perturbed_residuals(H200, one.scenario)["launch"] * sum(error_terms(one)["launch"].values())
        for one in (graph, eager)
    ]
    assert doubts[1] > 3.0 * doubts[0]
    assert log(eager.interval.high_s / eager.latency_s) > log(graph.interval.high_s / graph.latency_s)


def test_alternatives_need_names_of_their_own() -> None:
    with pytest.raises(ValueError, match="names of their own"):
        decide(alternatives(8, 8))
    with pytest.raises(ValueError, match="names of their own"):
        decide([])
