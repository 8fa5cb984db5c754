"""From a scenario to its prediction, and what scenarios have in common built once.

A design point of a sweep shares most of its parts with others: the machine, the shapes of a model, the program of a
workload, the price of a kernel. A `Predictor` keeps each part under the few fields it depends on; parts are immutable,
so a kept one is what would have been built. Caches are bounded, and memory stays flat however many points follow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kraken_sim.architectures.workload import Workload
from kraken_sim.engine.simulation import Machine
from kraken_sim.models.counts import parameter_count
from kraken_sim.predict.kernel_choice import all_reduce_norm_bytes
from kraken_sim.predict.memo import Memo
from kraken_sim.predict.number_formats import check_formats, input_format
from kraken_sim.predict.prediction import Prediction
from kraken_sim.predict.prepared import Described, Prepared
from kraken_sim.predict.pricing import MOST_PRICES, Pricing
from kraken_sim.predict.uncertainty import block_residuals
from kraken_sim.profiles.load import load_profile
from kraken_sim.profiles.placement import placed
from kraken_sim.profiles.profile import QUANTISED_BLOCKS
from kraken_sim.program.kernel_sets import RULES
from kraken_sim.program.ops import Collective
from kraken_sim.scenario.resolve import check_context, check_memory, memory_of, resolve_model

if TYPE_CHECKING:
    from kraken_sim.costs.types import KernelCost
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.program.program import Program
    from kraken_sim.scenario.resolve import ResolvedModel
    from kraken_sim.scenario.spec import Scenario


@dataclass(frozen=True, slots=True)
class Shaped:
    """A model on its devices, with the programs of its workloads and whether they communicate."""

    resolved: ResolvedModel
    num_parameters: int
    programs: Memo[tuple[Program, bool]] = field(default_factory=lambda: Memo(500))


@dataclass(slots=True)
class Predictor:
    """Predicts scenarios one after the other; `profile` replaces the machine that they name.

    A profile's file is read once, so all of a predictor's answers are of the same machine.
    """

    profile: HardwareProfile | None = None
    _profiles: Memo[HardwareProfile] = field(default_factory=lambda: Memo(64))
    _models: Memo[Shaped] = field(default_factory=lambda: Memo(500))
    _pricings: Memo[Pricing] = field(default_factory=lambda: Memo(256))
    _kernels: Memo[Memo[KernelCost]] = field(default_factory=lambda: Memo(64))
    _described: Memo[Described] = field(default_factory=lambda: Memo(128))

    def predict(self, scenario: Scenario, *, exact: bool = False) -> Prediction:
        """The answer to one scenario; `exact` as in `Prepared.run`.

        Raises:
            InputError, InfeasibleError: see `prepare`.
        """
        prepared = self.prepare(scenario)
        return Prediction(prepared, prepared.run(exact=exact))

    def prepare(self, scenario: Scenario) -> Prepared:
        """The only way from a scenario to a placed machine, a priced program and what the engine runs it on.

        Raises:
            InputError: the scenario does not fit its machine's profile.
            InfeasibleError: the model does not fit in the machine's memory.
        """
        shaped = self._shaped(scenario)
        resolved = shaped.resolved
        device = self._profile(scenario.hardware).device
        device.rate_flops(scenario.dtype)
        check_formats(scenario, device)
        profile = self._placed(scenario, resolved.num_devices)
        memory = memory_of(scenario, resolved)
        check_memory(memory, profile.device.hbm_capacity_bytes)
        workload = _workload_of(scenario, all_reduce_norm_bytes(scenario, resolved, profile))
        program, communicates = self._program(workload, shaped)
        pricing = self._pricing(scenario, profile, program.num_devices).under_load(program, scenario.runtime.load)
        return Prepared(
            scenario=scenario,
            profile=profile,
            resolved=resolved,
            program=program,
            pricing=pricing,
            machine=engine_machine(profile, pricing),
            memory=memory,
            num_parameters=shaped.num_parameters,
            described=self._describe(scenario, profile, communicates),
            again=self.prepare,
        )

    def resolve(self, scenario: Scenario) -> ResolvedModel:
        """The shapes of a scenario on its machine, whether or not they fit in its memory.

        Raises:
            InputError: the scenario does not fit its machine's profile.
        """
        return self._shaped(scenario).resolved

    def _describe(self, scenario: Scenario, profile: HardwareProfile, communicates: bool) -> Described:
        """Where the numbers come from that a program's ops needed; of its products the layers' residual counts."""
        inputs = input_format(scenario)
        by_row = inputs is not None and inputs.by_row and RULES[scenario.runtime.kernels].torch_gemms
        layers, _ = profile.gemm_of(scenario.quantization, by_row=by_row)

        def build() -> Described:
            unused = {"serving_attention"} | (set() if communicates else {"collectives", "contention"})
            unused |= {block for block in QUANTISED_BLOCKS if block != layers}
            found = {path: record for path, record in profile.provenance.items() if path.split(".")[0] not in unused}
            residuals = block_residuals(found)
            if layers in residuals:
                residuals["gemm"] = residuals[layers]
            return Described(found, residuals)

        return self._described.get((scenario.hardware, communicates, layers), build)

    def _profile(self, hardware: str) -> HardwareProfile:
        return self.profile or self._profiles.get(hardware, lambda: load_profile(hardware))

    def _placed(self, scenario: Scenario, num_devices: int) -> HardwareProfile:
        """The machine with its ranks where the scenario puts them."""
        profile = self._profile(scenario.hardware)
        if scenario.placement is None:
            return profile
        key = (scenario.hardware, scenario.placement, num_devices)
        return self._profiles.get(key, lambda: placed(profile, scenario.placement, num_devices))

    def _shaped(self, scenario: Scenario) -> Shaped:
        """Shapes and parameters: they depend on the context in nothing but its limit."""
        devices = len(self._profile(scenario.hardware).topology.gpus)

        def build() -> Shaped:
            found = resolve_model(scenario, devices)
            return Shaped(found, parameter_count(found.config, found.layout))

        key = (scenario.model, scenario.architecture, scenario.num_devices, scenario.placement, devices)
        shaped = self._models.get(key, build)
        check_context(scenario, shaped.resolved)
        return shaped

    def _program(self, workload: Workload, shaped: Shaped) -> tuple[Program, bool]:
        resolved = shaped.resolved

        def build() -> tuple[Program, bool]:
            program = resolved.architecture.program(resolved.layout, resolved.config, workload)
            ops = (kernel.op for segment in program.segments for kernel in segment.kernels)
            return program, any(isinstance(op, Collective) for op in ops)

        return shaped.programs.get(workload, build)

    def _pricing(self, scenario: Scenario, profile: HardwareProfile, num_devices: int) -> Pricing:
        """One pricing for each runtime and number of devices; those of a machine share what its kernels cost."""
        policy = scenario.runtime.collective.policy()
        kernels = self._kernels.get(scenario.hardware, lambda: Memo(MOST_PRICES))
        return self._pricings.get(
            (scenario.hardware, scenario.placement, policy, num_devices),
            lambda: Pricing(profile, policy, num_devices, _kernels=kernels),
        )


def _workload_of(scenario: Scenario, norm_bytes: tuple[tuple[int, int], ...]) -> Workload:
    """What the scenario asks of its devices, whose AllReduces take in a norm up to `norm_bytes`."""
    return Workload(
        batch_size=scenario.batch_size,
        context_length=scenario.context_length,
        phase=scenario.phase,
        dtype=scenario.dtype,
        overlap=scenario.runtime.overlap,
        overlap_copies=scenario.runtime.overlap_copies,
        kernels=scenario.runtime.kernels,
        all_reduce_norm_bytes=norm_bytes,
        inputs=input_format(scenario),
        kv_dtype=scenario.kv_cache_dtype.dtype,
    )


def engine_machine(profile: HardwareProfile, pricing: Pricing) -> Machine:
    """The profile as the engine sees it."""
    return Machine(
        num_sms=profile.device.num_sms,
        hbm_bandwidth_bytes_per_s=profile.device.hbm_bandwidth_bytes_per_s,
        launch=profile.launch,
        contention=profile.contention,
        kernel_cost=pricing.kernel,
        collective_cost=pricing.collective,
        link_speeds=pricing.link_speeds,
    )
