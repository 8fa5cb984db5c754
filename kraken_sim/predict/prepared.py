"""A question with everything that its answer needs: the machine placed, the program built, its ops priced."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from kraken_sim.engine.simulation import run
from kraken_sim.engine.windows import SimulatedWindows
from kraken_sim.predict.uncertainty import block_residuals
from kraken_sim.predict.what_if import with_host_times
from kraken_sim.scenario.spec import Launch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kraken_sim.engine.simulation import Machine
    from kraken_sim.engine.timeline import Timeline
    from kraken_sim.models.memory import DeviceMemory
    from kraken_sim.predict.pricing import Pricing
    from kraken_sim.predict.uncertainty import HostRange
    from kraken_sim.profiles.profile import HardwareProfile, Provenance
    from kraken_sim.program.program import Program
    from kraken_sim.scenario.resolve import ResolvedModel
    from kraken_sim.scenario.spec import Scenario


@dataclass(frozen=True, eq=False)
class Described:
    """Where the numbers of an answer come from, and the residuals of their blocks.

    Both are made when they are asked for: going through all numbers of a profile takes as long as a step.

    Attributes:
        unused: blocks that no op of the program needed, and paths of kinds of kernel in one.
        sources: blocks of ops whose residuals are those of another block.
    """

    profile: HardwareProfile
    unused: tuple[str, ...]
    sources: Mapping[str, str]

    @cached_property
    def provenance(self) -> Mapping[str, Provenance]:
        """Of every number that was needed, by its path in the profile."""
        unused = tuple(f"{part}." for part in self.unused)
        return {path: record for path, record in self.profile.provenance.items() if not path.startswith(unused)}

    @cached_property
    def residuals(self) -> Mapping[str, float]:
        """By block, and by kind of kernel in one; see `block_residuals`."""
        found = block_residuals(self.provenance)
        return found | {block: found[source] for block, source in self.sources.items() if source in found}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `Predictor.prepare` made of a scenario; every answer and every what-if about it starts here.

    `profile` is the machine with its ranks where the scenario puts them, `pricing` holds the prices of the program's
    ops at the clock that the question is about, `machine` is both as the engine takes them. `again` prepares another
    question for the same machine. `hosts` is how far the hosts of its ranks may be from what the profile, or
    the question, says; the machine's is the slowest of them as it is expected. `windows` were simulated, on whatever
    host.
    """

    scenario: Scenario
    profile: HardwareProfile
    resolved: ResolvedModel
    program: Program
    pricing: Pricing
    machine: Machine
    memory: DeviceMemory
    num_parameters: int
    described: Described
    again: Callable[[Scenario], Prepared]
    hosts: HostRange
    windows: SimulatedWindows = field(init=False, default_factory=SimulatedWindows, compare=False, repr=False)

    @property
    def eager(self) -> bool:
        """Whether the host launches kernel by kernel."""
        return self.scenario.runtime.launch is Launch.EAGER

    def run(self, machine: Machine | None = None, *, exact: bool = False) -> Timeline:
        """Simulate the step, on another `machine` where that is the what-if.

        Args:
            machine: instead of the prepared one, which it usually changes in one respect.
            exact: simulate every rank and every layer instead of folding what repeats; the answer is the same.
        """
        if machine is not None:
            return run(self.program, machine, eager=self.eager, exact=exact)
        return run(self.program, self.machine, eager=self.eager, exact=exact, windows=self.windows)

    def run_on_host(self, factor: float) -> Timeline:
        """The step on a host that takes `factor` times as long for every call of an eager launch."""
        return run(self.program, with_host_times(self.machine, factor), eager=self.eager, windows=self.windows)
