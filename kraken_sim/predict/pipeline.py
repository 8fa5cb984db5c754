"""From a scenario to its prediction, and what scenarios have in common built once.

A design point of a sweep shares most of its parts with others: the machine, the shapes of a model, the program of a
workload, the price of a kernel. A `Predictor` keeps each part under the few fields it depends on; parts are immutable,
so a kept one is what would have been built. Caches are bounded, and memory stays flat however many points follow.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import kraken_sim.measurements as measured
from kraken_sim.architectures.workload import Phase, Workload
from kraken_sim.costs.host import shares_in
from kraken_sim.costs.memory_bound import COMPOSED, QUANTISING
from kraken_sim.engine.simulation import Machine
from kraken_sim.errors import InputError, problems_with
from kraken_sim.models.counts import parameter_count
from kraken_sim.predict.generation import answered
from kraken_sim.predict.kernel_choice import all_reduce_norm_bytes
from kraken_sim.predict.many import ManyAnswers, answers_of
from kraken_sim.predict.memo import Memo
from kraken_sim.predict.number_formats import check_formats, input_format
from kraken_sim.predict.prepared import Described, Prepared
from kraken_sim.predict.pricing import MOST_PRICES, Pricing
from kraken_sim.predict.uncertainty import (
    ASSUMED_HOST_SPREAD,
    HOST_SPREAD,
    PROFILE_PROCESSES,
    HostRange,
    host_range,
)
from kraken_sim.predict.what_if import with_host_times
from kraken_sim.profiles.load import load_profile
from kraken_sim.profiles.placement import placed
from kraken_sim.profiles.profile import QUANTISED_BLOCKS, ProvenanceKind
from kraken_sim.profiles.what_if import on_host
from kraken_sim.program.formats import KVCacheDType
from kraken_sim.program.kernel_sets import RULES, CardLoad, KernelSet
from kraken_sim.program.many import is_many
from kraken_sim.program.ops import Collective
from kraken_sim.program.points import with_equal_ops_shared
from kraken_sim.program.residency import with_cold_operands
from kraken_sim.scenario.resolve import (
    as_stored,
    check_context,
    check_memory,
    memory_of,
    problems_without_machine,
    ragged_groups,
    resolve_model,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.costs.types import KernelCost
    from kraken_sim.errors import Problem
    from kraken_sim.hardware.host import HostTimes
    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.program.program import Program
    from kraken_sim.scenario.resolve import ResolvedModel
    from kraken_sim.scenario.spec import Scenario


MOST_ANSWERS = 16
"""Answers that are kept, so that a question asked again is answered at once; a limit of ours."""


@dataclass(frozen=True, slots=True)
class Shaped:
    """A model on its devices, with the programs of its workloads and whether they communicate."""

    resolved: ResolvedModel
    num_parameters: int
    programs: Memo[tuple[Program, bool]] = field(default_factory=lambda: Memo(500))


def shaped_as(found: ResolvedModel) -> Shaped:
    """A model of those shapes."""
    return Shaped(found, parameter_count(found.config, found.layout))


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
    _hosts: Memo[HostTimes] = field(default_factory=lambda: Memo(64))
    _answers: Memo[Prediction] = field(default_factory=lambda: Memo(MOST_ANSWERS))

    def predict(self, scenario: Scenario, *, exact: bool = False, fits: bool = True) -> Prediction:
        """The answer to one scenario, a `Generation` where it generates; `exact` as in `Prepared.run`.

        Where it need not be one that `fits`, the machine's memory does not count.

        Raises:
            InputError, InfeasibleError: see `prepare`.
        """
        if exact or is_many(scenario.context_length):  # large, or not to be looked up
            return answered(self.prepare(scenario, fits=fits), exact=exact)
        return self._answers.get((scenario, fits), lambda: answered(self.prepare(scenario, fits=fits)))

    def predict_many(self, scenarios: Sequence[Scenario]) -> ManyAnswers:
        """The answers to many scenarios as rows, each with the picoseconds that `predict` gives it.

        Those that share a program's structure are priced and summed up together as arrays; only windows of overlap are
        simulated one by one. What is wrong with a scenario is its answer.
        """
        return answers_of(self.predict, scenarios)

    def prepare(self, scenario: Scenario, *, fits: bool = True, shapes: ResolvedModel | None = None) -> Prepared:
        """The only way from a scenario to a placed machine, a priced program and what the engine runs it on.

        The program of a generation is the prefill of its whole prompt, its memory what the whole answer needs.

        Args:
            scenario: the question.
            fits: whether it must be one that fits in the machine's memory.
            shapes: instead of the scenario's own: those of many designs of its structure, whose sizes are arrays.

        Raises:
            InputError: the scenario does not fit its machine's profile.
            InfeasibleError: the model does not fit in the machine's memory.
        """
        shaped = self._checked(scenario)
        if shapes is not None:
            shaped = shaped_as(shapes)
        resolved = shaped.resolved
        scenario = as_stored(scenario, resolved)
        host = self._host(scenario)
        profile = self._hosted(scenario, self._placed(scenario, resolved.num_devices), host)
        memory = memory_of(scenario, resolved)
        if fits:
            check_memory(memory, profile.device.hbm_capacity_bytes)
        workload = _workload_of(scenario, all_reduce_norm_bytes(scenario, resolved, profile))
        program, communicates = self._program(workload, shaped, profile)
        pricing = self._pricing(scenario, profile, program.num_devices).under_load(program, scenario.runtime.load)
        hosts = _hosts_of(profile, host, program.num_devices)
        return Prepared(
            scenario=scenario,
            profile=profile,
            resolved=resolved,
            program=program,
            pricing=pricing,
            machine=with_host_times(
                engine_machine(profile, pricing, scenario.runtime.kernels, scenario.runtime.load), hosts.median
            ),
            memory=memory,
            num_parameters=shaped.num_parameters,
            described=self._describe(scenario, profile, communicates),
            again=self.prepare,
            hosts=hosts,
        )

    def resolve(self, scenario: Scenario) -> ResolvedModel:
        """The shapes of a scenario on its machine, whether or not they fit in its memory.

        Raises:
            InputError: the scenario does not fit its machine's profile.
        """
        return self._shaped(scenario).resolved

    def _checked(self, scenario: Scenario) -> Shaped:
        """The model on the machine's devices, both of which can run the scenario's number formats.

        Raises:
            InputError: everything that is wrong with the machine, the model, the formats and the host, together.
        """
        try:
            shaped = self._shaped(scenario)
            self._check_formats(as_stored(scenario, shaped.resolved))
            self._host(scenario)
        except InputError as error:
            problems = self._problems(scenario)
            # An error of one part alone names its file.
            raise error if len(problems) <= len(error.problems) else InputError(problems) from None
        return shaped

    def _problems(self, scenario: Scenario) -> list[Problem]:
        """What is wrong with each part of a scenario, as far as it can be told whatever is wrong with the others."""
        problems = problems_with(lambda: self._profile(scenario.hardware), within="hardware")
        if problems:
            problems += problems_without_machine(scenario)
        else:
            of_model = problems_with(lambda: self._shaped(scenario))
            stored = scenario if of_model else as_stored(scenario, self._shaped(scenario).resolved)
            problems = [*of_model, *problems_with(lambda: self._check_formats(stored))]
        return problems + problems_with(lambda: self._host(scenario), within="runtime.host")

    def _check_formats(self, scenario: Scenario) -> None:
        device = self._profile(scenario.hardware).device
        problems = problems_with(lambda: device.rate_flops(scenario.dtype))
        problems += problems_with(lambda: check_formats(scenario, device))
        if problems:
            raise InputError(problems)

    def _describe(self, scenario: Scenario, profile: HardwareProfile, communicates: bool) -> Described:
        """Where the numbers come from that a program's ops needed; of its products the layers' residual counts."""
        inputs = input_format(scenario)
        by_row = inputs is not None and inputs.by_row and RULES[scenario.runtime.kernels].torch_gemms
        layers, _ = profile.gemm_of(scenario.quantization, by_row=by_row)
        float8 = scenario.phase is Phase.DECODE and scenario.kv_cache_dtype is KVCacheDType.FLOAT8
        attends = "attention_float8" if float8 and profile.attention_float8 is not None else "attention"

        composed = RULES[scenario.runtime.kernels].composed

        def build() -> Described:
            unused = {"serving_attention"} | (set() if communicates else {"collectives", "contention"})
            unused |= {*QUANTISED_BLOCKS, "attention", "attention_float8"} - {layers, attends}
            others = (() if layers != "gemm" or float8 else QUANTISING) + (() if composed else COMPOSED)
            rows = {f"memory_bound.kernels.{kind}" for kind in others}
            return Described(profile, tuple(sorted(unused | rows)), {"gemm": layers, "attention": attends})

        key = (scenario.hardware, scenario.runtime.host, communicates, layers, attends, float8, composed)
        return self._described.get(key, build)

    def _profile(self, hardware: str) -> HardwareProfile:
        return self.profile or self._profiles.get(hardware, lambda: load_profile(hardware))

    def _placed(self, scenario: Scenario, num_devices: int) -> HardwareProfile:
        """The machine with its ranks where the scenario puts them."""
        profile = self._profile(scenario.hardware)
        if scenario.placement is None:
            return profile
        key = (scenario.hardware, scenario.placement, num_devices)
        return self._profiles.get(key, lambda: placed(profile, scenario.placement, num_devices))

    def _host(self, scenario: Scenario) -> HostTimes | None:
        """The host that the scenario names; its file is read once."""
        spec = scenario.runtime.host
        return None if spec is None else self._hosts.get(spec, lambda: measured.host_of(spec))

    def _hosted(self, scenario: Scenario, profile: HardwareProfile, host: HostTimes | None) -> HardwareProfile:
        """The machine with the launch costs of the scenario's host."""
        if host is None:
            return profile
        key = (scenario.hardware, scenario.placement, scenario.num_devices, scenario.runtime.host)
        return self._profiles.get(key, lambda: on_host(profile, host))

    def _shaped(self, scenario: Scenario) -> Shaped:
        """Shapes and parameters: they depend on the context in nothing but its limit."""
        devices = len(self._profile(scenario.hardware).topology.gpus)

        def build() -> Shaped:
            return shaped_as(resolve_model(scenario, devices))

        key = (scenario.model, scenario.architecture, scenario.num_devices, scenario.placement, devices)
        shaped = self._models.get(key, build)
        check_context(scenario, shaped.resolved)
        return shaped

    def _program(self, workload: Workload, shaped: Shaped, profile: HardwareProfile) -> tuple[Program, bool]:
        resolved = shaped.resolved
        held_bytes = profile.memory_bound.held_share * profile.device.l2_capacity_bytes
        many = is_many(workload.context_length) or is_many(resolved.layout.block.hidden_size)

        def build() -> tuple[Program, bool]:
            if problems := list(resolved.architecture.asks(resolved.layout, workload)):
                raise InputError(problems)
            program = resolved.architecture.program(resolved.layout, resolved.config, workload)
            program = with_cold_operands(program, held_bytes)
            if many:
                program = with_equal_ops_shared(program)
            ops = (kernel.op for segment in program.segments for kernel in segment.kernels)
            return program, any(isinstance(op, Collective) for op in ops)

        # A workload of many points cannot be looked up.
        return build() if many else shaped.programs.get((workload, held_bytes), build)

    def _pricing(self, scenario: Scenario, profile: HardwareProfile, num_devices: int) -> Pricing:
        """One pricing for each runtime and number of devices; those of a machine share what its kernels cost."""
        policy = scenario.runtime.collective.policy()
        kernels = self._kernels.get(scenario.hardware, lambda: Memo(MOST_PRICES))
        return self._pricings.get(
            (scenario.hardware, scenario.placement, policy, num_devices, scenario.runtime.host),
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
        prefix_length=0 if scenario.phase is Phase.DECODE else scenario.prefix_length,
        ragged=ragged_groups(scenario),
    )


def _hosts_of(profile: HardwareProfile, host: HostTimes | None, num_ranks: int) -> HostRange:
    """How far the hosts of a step may be from what is taken, and where the slowest of them is expected."""
    where = profile.provenance.get("launch.eager_kernel_s")
    if host is None and where is not None and where.kind is ProvenanceKind.ASSUMED:
        return replace(host_range(ASSUMED_HOST_SPREAD, PROFILE_PROCESSES, num_ranks), median=1.0)
    spread = profile.launch.eager_spread or HOST_SPREAD
    return host_range(spread, PROFILE_PROCESSES if host is None else host.processes, num_ranks)


def engine_machine(
    profile: HardwareProfile,
    pricing: Pricing,
    kernels: KernelSet = KernelSet.PYTORCH,
    load: CardLoad = CardLoad.SUSTAINED,
) -> Machine:
    """The profile as the engine sees it, launching the kernels of a set, rested or not."""
    launch = profile.launch.rested if load is CardLoad.RESTED else profile.launch
    if launch.eager_shares:
        launch = replace(launch, eager_shares=shares_in(launch.eager_shares, kernels))
    if pricing.num_devices > 1:
        launch = replace(launch, graph_node_gap_s=launch.graph_node_gap_s + launch.graph_node_wait_s)
    return Machine(
        num_sms=profile.device.num_sms,
        hbm_bandwidth_bytes_per_s=profile.device.hbm_bandwidth_bytes_per_s,
        launch=launch,
        contention=profile.contention,
        kernel_cost=pricing.kernel,
        collective_cost=pricing.collective,
        link_speeds=pricing.link_speeds,
    )
