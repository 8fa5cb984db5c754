"""One way from a question to its answer: what-ifs run on the GPUs that the answer ran on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kraken_sim import best_degree, simulate, worthwhile_bandwidth
from kraken_sim.explore.sensitivity import error_covariance
from kraken_sim.predict.energy import step_energy
from kraken_sim.predict.explain import explain_overlap, with_channels
from kraken_sim.predict.ideal_overlap import ideal_overlap
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.predict.prediction import Prediction
from kraken_sim.predict.what_if import without_cost, without_interference, without_sms
from kraken_sim.profiles.load import load_profile
from kraken_sim.profiles.what_if import with_bandwidth_factor
from kraken_sim.program.points import without_side_stream
from kraken_sim.scenario.spec import Scenario

PLACED = {
    # machine: GPUs close together, GPUs far apart
    "l40s-x8-slow-host": ("0,1", "0,4"),
    "v100-dgx1-x8": ("0,3", "0,5"),
    "h100-sxm-2x8": ("0,1", "0,8"),
}
FAR = [(machine, far) for machine, (_, far) in PLACED.items()]


def asked(hardware: str, placement: str | None, **changes: Any) -> Scenario:
    data = {
        "hardware": hardware,
        "model": {"preset": "1.3B"},
        "architecture": {"kind": "kraken"},
        "num_devices": None if placement else 2,
        "placement": placement,
        "context_length": 512,
        **changes,
    }
    return Scenario.model_validate(data)


@pytest.mark.parametrize("hardware", PLACED)
def test_gpus_that_are_far_apart_answer_later(hardware: str) -> None:
    near, far = (simulate(asked(hardware, placement)) for placement in PLACED[hardware])
    assert far.communication_alone_s > near.communication_alone_s
    assert far.profile.topology.gpus[1] != near.profile.topology.gpus[1]


@pytest.mark.parametrize(("hardware", "placement"), FAR)
def test_an_explanation_is_of_the_gpus_that_the_answer_ran_on(hardware: str, placement: str) -> None:
    scenario = asked(hardware, placement)
    prediction = simulate(scenario)
    advice = explain_overlap(prediction)
    blocking = asked(hardware, placement, runtime={"overlap": False})
    assert advice.latency_s == prediction.latency_s
    assert advice.causes.blocking_s == simulate(blocking).latency_s
    causes = advice.causes
    assert causes.free_s + causes.sms_s + causes.bandwidth_s == pytest.approx(prediction.latency_s, rel=1e-12)
    for channels, latency_s in advice.latency_by_channels_s.items():
        assert latency_s == simulate(with_channels(scenario, channels)).latency_s


@pytest.mark.parametrize(("hardware", "placement"), FAR)
def test_ideal_overlap_is_that_of_the_placed_gpus(hardware: str, placement: str) -> None:
    prediction = simulate(asked(hardware, placement))
    ideal_s = ideal_overlap(prediction.prepared).duration_s
    assert ideal_s <= prediction.latency_s
    # Over far links the AllReduce is the longer side, so near GPUs would have an earlier end even at its best.
    near = simulate(asked(hardware, PLACED[hardware][0]))
    assert ideal_s > ideal_overlap(near.prepared).duration_s
    # And no overlap is better than the longer of its two sides: all collectives after another.
    assert ideal_s > 0.999 * prediction.communication_alone_s


def test_energy_counts_the_collectives_that_ran() -> None:
    # The transfer over the sockets takes longer, so the card idles longer and the step takes more energy.
    machine = with_power("l40s-x8-slow-host")
    near, far = (
        step_energy(simulate(asked("l40s-x8-slow-host", placement), profile=machine))
        for placement in PLACED["l40s-x8-slow-host"]
    )
    assert far.energy_j > near.energy_j
    assert far.device_w < near.device_w


def with_power(name: str) -> Any:
    profile = load_profile(name)
    power = load_profile("h200-sxm-x2").power
    assert power is not None
    return replace(profile, power=replace(power, limit_w=1e4))


def test_errors_of_a_what_if_s_prediction_are_those_of_its_own_profile() -> None:
    profile = load_profile("h200-sxm-x2")
    records = {
        path: replace(record, residual=2.0 * record.residual) if record.residual else record
        for path, record in profile.provenance.items()
    }
    unsure = replace(profile, provenance=records)
    scenario = asked("h200-sxm-x2", None, architecture={"kind": "standard"}, num_devices=1)
    before, after = (error_covariance([simulate(scenario, profile=machine)])[0, 0] for machine in (profile, unsure))
    # Not fourfold: what cards and machines differ by is not the profile's.
    assert after > 2.5 * before


def test_the_same_predictor_prepares_a_question_and_its_what_ifs() -> None:
    predictor = Predictor()
    prepared = predictor.prepare(asked("l40s-x8-slow-host", "0,4"))
    assert prepared.again(prepared.scenario).profile is prepared.profile
    assert Prediction(prepared, prepared.run()).latency_s == predictor.predict(prepared.scenario).latency_s


def test_a_question_that_is_asked_again_has_the_same_answer_at_once_and_another_one_its_own() -> None:
    predictor, question = Predictor(), asked("h200-sxm-x2", None)
    first = predictor.predict(question)
    assert predictor.predict(asked("h200-sxm-x2", None)) is first
    assert predictor.predict(asked("h200-sxm-x2", None, context_length=513)).latency_s > first.latency_s
    assert predictor.predict(question, exact=True).timeline.num_events > first.timeline.num_events


def test_another_program_of_a_prepared_question_has_windows_of_its_own() -> None:
    prepared = Predictor().prepare(asked("h200-sxm-x2", None))
    prepared.run()
    alone = replace(prepared, program=without_side_stream(prepared.program))
    assert alone.run().end_ps < prepared.run().end_ps


def test_what_ifs_take_away_one_cost_each_and_both_together_are_the_ideal() -> None:
    prepared = Predictor().prepare(asked("h200-sxm-x2", None))
    whole, no_sms, no_interference, free = (
        prepared.run(machine).duration_s
        for machine in (
            prepared.machine,
            without_sms(prepared.machine),
            without_interference(prepared.machine),
            without_cost(prepared.machine),
        )
    )
    assert free < no_sms < whole
    assert free < no_interference < whole
    assert free == ideal_overlap(prepared).duration_s


def test_a_model_that_does_not_fit_can_be_resolved_but_not_prepared() -> None:
    scenario = asked("a100-sxm4-40gb-x8", None, model={"preset": "175B"}, num_devices=4)
    assert Predictor().resolve(scenario).config.hidden_size == 12288
    with pytest.raises(Exception, match="device memory"):
        Predictor().prepare(scenario)


def test_degrees_of_a_placement_take_its_first_gpus() -> None:
    answer = best_degree(asked("l40s-x8-slow-host", "0,4,1,5"), perturb=False)
    by_name = {row.name: row for row in answer.rows}
    assert {row.num_devices for row in answer.rows} == {1, 2, 4}
    assert by_name["kraken x2"].prediction.latency_s == simulate(asked("l40s-x8-slow-host", "0,4")).latency_s
    assert by_name["standard x1"].num_replicas == 4
    near = best_degree(asked("l40s-x8-slow-host", "0,1,4,5"), perturb=False)
    assert {row.name: row for row in near.rows}["kraken x2"].prediction.latency_s == (
        simulate(asked("l40s-x8-slow-host", "0,1")).latency_s
    )


def test_a_worthwhile_bandwidth_of_a_placement_is_that_of_its_gpus() -> None:
    near, far = (
        worthwhile_bandwidth(asked("h100-sxm-2x8", placement), factors=(0.5, 1.0), perturb=False)
        for placement in PLACED["h100-sxm-2x8"]
    )
    assert near.num_devices == far.num_devices == 2
    assert near.own.bandwidth_bytes_per_s > 5.0 * far.own.bandwidth_bytes_per_s
    assert far.own.kraken_s == simulate(asked("h100-sxm-2x8", "0,8")).latency_s
    halved = simulate(asked("h100-sxm-2x8", "0,8"), profile=with_bandwidth_factor(load_profile("h100-sxm-2x8"), 0.5))
    assert far.points[0].kraken_s == halved.latency_s
