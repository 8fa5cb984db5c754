"""The Python API: a scenario in, a prediction out; or one op in, its seconds out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.architectures.registry import build_program
from kraken_sim.architectures.workload import Phase, Workload
from kraken_sim.costs.pricing import Pricing
from kraken_sim.engine.simulation import Machine, run
from kraken_sim.hardware.load import load_profile
from kraken_sim.hardware.placement import placed
from kraken_sim.models.config import ArchitectureKind
from kraken_sim.models.counts import parameter_count
from kraken_sim.prediction import Prediction
from kraken_sim.program.ops import AllReduce
from kraken_sim.scenario import Launch, Scenario, scenario_from, with_architecture
from kraken_sim.scenario_resolve import check_memory, memory_of, resolve_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.hardware.profile import HardwareProfile, Provenance
    from kraken_sim.program.program import Program
    from kraken_sim.scenario_resolve import ResolvedModel


def simulate(
    scenario: Scenario | Mapping[str, object],
    *,
    exact: bool = False,
    profile: HardwareProfile | None = None,
) -> Prediction:
    """Predict one forward step.

    Args:
        scenario: a `Scenario`, or a mapping of its shape.
        exact: simulate every rank and every layer instead of folding what repeats; the answer is the same.
        profile: the machine, instead of the one that the scenario names.

    Raises:
        InputError: the scenario is wrong, or does not fit its machine's profile.
        InfeasibleError: the model does not fit in the machine's memory.
    """
    if not isinstance(scenario, Scenario):
        scenario = scenario_from(scenario)
    machine = load_profile(scenario.hardware) if profile is None else profile
    resolved = resolve_model(scenario, len(machine.topology.gpus))
    machine = placed(machine, scenario.placement, resolved.num_devices)
    memory = memory_of(scenario, resolved)
    check_memory(memory, machine.device.hbm_capacity_bytes)
    program = program_of(scenario, resolved)
    pricing = Pricing(machine, scenario.runtime.collective.policy()).under_sustained_load(program)
    eager = scenario.runtime.launch is Launch.EAGER
    timeline = run(program, engine_machine(machine, pricing), eager=eager, exact=exact)
    return Prediction(
        scenario=scenario,
        resolved=resolved,
        timeline=timeline,
        memory=memory,
        num_parameters=parameter_count(resolved.config, resolved.kind, resolved.kraken),
        provenance=_provenance(machine, program),
        slowdown=pricing.slowdown,
    )


def compare(scenario: Scenario, profile: HardwareProfile | None = None) -> list[Prediction]:
    """The same model, machine and workload as standard, parallel and Kraken.

    Raises:
        InputError, InfeasibleError: see `simulate`.
    """
    kinds = (ArchitectureKind.STANDARD, ArchitectureKind.PARALLEL, ArchitectureKind.KRAKEN)
    return [simulate(with_architecture(scenario, kind), profile=profile) for kind in kinds]


def program_of(scenario: Scenario, resolved: ResolvedModel) -> Program:
    """The program that the scenario's devices run."""
    work = Workload(
        num_devices=resolved.num_devices,
        batch_size=scenario.batch_size,
        context_length=scenario.context_length,
        phase=Phase(scenario.phase.value),
        dtype=scenario.dtype,
        overlap=scenario.runtime.overlap,
    )
    return build_program(resolved.kind.value, resolved.config, resolved.kraken, work)


def engine_machine(profile: HardwareProfile, pricing: Pricing) -> Machine:
    """The profile as the engine sees it."""
    return Machine(
        num_sms=profile.device.num_sms,
        hbm_bandwidth_bytes_per_s=profile.device.hbm_bandwidth_bytes_per_s,
        launch=profile.launch,
        contention=profile.contention,
        kernel_cost=pricing.kernel,
        collective_cost=pricing.collective,
    )


def _provenance(profile: HardwareProfile, program: Program) -> dict[str, Provenance]:
    """Where the numbers come from that this program's ops needed."""
    ops = [kernel.op for segment in program.segments for kernel in segment.kernels]
    communicates = any(isinstance(op, AllReduce) for op in ops)
    unused = {"serving_attention"} | (set() if communicates else {"collectives", "contention"})
    return {path: record for path, record in profile.provenance.items() if path.split(".")[0] not in unused}
