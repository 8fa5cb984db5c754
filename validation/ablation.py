"""What each mechanism of the engine is worth: predictions without it, held against the same measurements.

    python -m validation.ablation [--markdown FILE] [--only REGEX]

One mechanism after the other is switched off, and the constants of contention are fitted anew to the pairs of the
microbenchmarks, as calibration does, so that the rest of the model may make up for what is missing. Then the model is
held against the pairs whose shapes the fit has not seen, and against the whole passes in which compute and AllReduces
overlap (CUDA graphs on two H200); no fit ever sees a pass. The change beside an error is of the mean over the same
samples; its standard error is that of their paired differences. A mechanism pays if the error grows by more than
twice that without it. Ideal overlap is the model that adds nothing: the longer side of an overlap is all it takes.
"""

from __future__ import annotations

import argparse
import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

from kraken_sim.calibration import contention as fitting
from kraken_sim.calibration.overlap import pair_samples
from kraken_sim.engine import device, resident
from kraken_sim.engine.collective import LinkState
from kraken_sim.engine.device import DeviceState
from kraken_sim.engine.resident import ComputeKernel
from kraken_sim.measurements.records.passes import PassRecord
from kraken_sim.measurements.schema import read_measurements
from kraken_sim.predict import pipeline
from kraken_sim.predict.ideal_overlap import ideal_overlap
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.profiles.load import load_profile
from kraken_sim.scenario.spec import Launch
from kraken_sim.validate.passes import KRAKEN_NAME, scenario_of_pass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from kraken_sim.calibration.contention import PairSample
    from kraken_sim.costs.contention import ContentionConstants
    from kraken_sim.costs.types import CollectiveCost, KernelCost
    from kraken_sim.engine.clock import Action
    from kraken_sim.engine.collective import JointCollective
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.scenario.spec import Scenario

MEASUREMENTS = Path(__file__).parent / "measurements"
HARDWARE = "h200-sxm-x2"
PAIRS, PASSES = f"{HARDWARE}-microbench.jsonl", f"{HARDWARE}-passes.jsonl"


@dataclass(frozen=True, slots=True)
class Mechanism:
    """A mechanism and how to switch it off.

    Attributes:
        name: What it is.
        without: What is simulated in its place.
        patches: (object, name of its attribute, what replaces it).
        constants: Constants of contention that are fixed, and not fitted.
        launch: Launch costs that are replaced.
        clock: Sustained load lowers the clock.
    """

    name: str
    without: str = ""
    patches: Sequence[tuple[object, str, object]] = ()
    constants: Mapping[str, float] = field(default_factory=dict)
    launch: Mapping[str, float] = field(default_factory=dict)
    clock: bool = True

    def profile(self, full: HardwareProfile) -> HardwareProfile:
        """The machine without the mechanism."""
        fixed: dict[str, Any] = dict(self.constants)
        costs: dict[str, Any] = dict(self.launch)
        contention, launch = replace(full.contention, **fixed), replace(full.launch, **costs)
        return replace(full, contention=contention, launch=launch, power=full.power if self.clock else None)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Simulate without the mechanism."""
        fitted = {name: bounds for name, bounds in fitting.FITTED.items() if name not in self.constants}
        switches = [patch.object(*change) for change in (*self.patches, (fitting, "FITTED", fitted))]
        for switch in switches:
            switch.start()
        try:
            yield
        finally:
            for switch in reversed(switches):
                switch.stop()


def _no_sms(state: DeviceState, cost: CollectiveCost, joint: JointCollective) -> None:
    _LAUNCH_COLLECTIVE(state, replace(cost, channels=0), joint)


def _no_fixed_part(state: DeviceState, cost: KernelCost, finished: Action) -> None:
    _LAUNCH(state, replace(cost, fixed_s=0.0), finished)


def _always(value: object) -> property:
    """An attribute that is this, whatever is written to it."""
    return property(lambda _: value, lambda *_: None)


_LAUNCH, _LAUNCH_COLLECTIVE = DeviceState.launch, DeviceState.launch_collective

MECHANISMS = (
    Mechanism("full model"),
    Mechanism("SMs held by a collective", "its CTAs take no SM", [(DeviceState, "launch_collective", _no_sms)]),
    Mechanism("an empty SM for a collective's CTA", "any SM", [(ComputeKernel, "sms_touched", 0)]),
    Mechanism(
        "CTAs spread over SMs before they stack",
        "stacked first",
        [(ComputeKernel, "sms_touched", property(lambda kernel: kernel.sms_filled))],
    ),
    Mechanism("order of launch", "compute first", [(DeviceState, "_num_launched", _always(0))]),
    Mechanism("short CTA lives of persistent grids", "all as long", [(ComputeKernel, "short", _always(0))]),
    Mechanism("dispatch latency of a collective", "none", constants={"collective_dispatch_s": 0.0}),
    Mechanism("start of a kernel at its own pace", "slowed as well", [(DeviceState, "launch", _no_fixed_part)]),
    Mechanism("fewer CTAs share the bandwidth", "fixed speed", [(resident, "fill_speed", lambda *_: 1.0)]),
    Mechanism("saturation by fewer SMs", "by all of them", constants={"memory_saturation_fraction": 1.0}),
    Mechanism("HBM shared", "as much as asked for", [(device, "hbm_share", lambda _: 1.0)]),
    Mechanism("compute slowed by a collective", "not slowed", constants={"compute_slowdown": 0.0}),
    Mechanism("collective slowed by memory traffic", "not slowed", constants={"collective_memory_slowdown": 0.0}),
    Mechanism("LL buffers leave L2", "they stay", constants={"eviction_slowdown": 0.0, "evicted_memory_share": 1.0}),
    Mechanism("no end before that alone", "with its last CTA", [(ComputeKernel, "earliest_ps", _always(0))]),
    Mechanism("links shared", "each collective alone", [(LinkState, "_share", lambda _: None)]),
    Mechanism("gap between nodes", "none", launch={"graph_node_gap_s": 0.0}),
    Mechanism("wait of nodes on two GPUs", "none", launch={"graph_node_wait_s": 0.0}),
    Mechanism("operands out of L2", "all in L2", [(pipeline, "with_cold_operands", lambda program, _: program)]),
    Mechanism("edge between streams", "none", launch={"graph_edge_s": 0.0}),
    Mechanism("clock under sustained load", "boost clock", clock=False),
)


@dataclass(frozen=True, slots=True)
class Errors:
    """Predicted / measured - 1 of held-out pairs and of overlapped passes, each in one order for all mechanisms."""

    name: str
    without: str
    pairs: tuple[float, ...]
    passes: tuple[float, ...]
    constants: ContentionConstants | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What the model is held against."""

    profile: HardwareProfile
    pairs: Sequence[PairSample]
    passes: Sequence[tuple[Scenario, float]]

    @classmethod
    def read(cls) -> Measured:
        """The pairs and the overlapped passes of CUDA graphs on two H200."""
        file = read_measurements(MEASUREMENTS / PASSES)
        passes = []
        for record in file.select(PassRecord):
            condition = file.header.conditions.get(record.condition)
            overlaps = record.architecture["kind"] == KRAKEN_NAME and record.overlap
            if overlaps and record.launch is Launch.GRAPH and condition is not None:
                passes.append((scenario_of_pass(record, condition, HARDWARE), record.time_s.median))
        return cls(load_profile(HARDWARE), pair_samples(read_measurements(MEASUREMENTS / PAIRS)), passes)

    def without(self, mechanism: Mechanism) -> Errors:
        """The errors of a model without a mechanism, its constants fitted anew."""
        profile = mechanism.profile(self.profile)
        with mechanism.off():
            fit = fitting.fit_contention(self.pairs, profile)
            profile = replace(profile, contention=fit.constants)
            predictor = Predictor(profile)
            passes = self._passes(lambda scenario: predictor.predict(scenario).latency_s)
        pairs = tuple(error for _, error in fit.held_out)
        return Errors(mechanism.name, mechanism.without, pairs, passes, fit.constants)

    def ideal(self) -> Errors:
        """The errors if overlap were free."""
        held_out = [sample for sample, _ in fitting.fit_contention(self.pairs, self.profile).held_out]
        pairs = tuple(max(s.compute_alone_s, s.collective_alone_s) / s.together_s - 1.0 for s in held_out)
        predictor = Predictor(self.profile)
        passes = self._passes(lambda scenario: ideal_overlap(predictor.prepare(scenario)).duration_s)
        return Errors("everything", "ideal overlap", pairs, passes)

    def _passes(self, predicted_s: Callable[[Scenario], float]) -> tuple[float, ...]:
        return tuple(predicted_s(scenario) / measured_s - 1.0 for scenario, measured_s in self.passes)


def change(errors: Sequence[float], full: Sequence[float]) -> tuple[float, float]:
    """By how much the mean of |errors| differs from the full model's, and the standard error of that."""
    differences = [abs(error) - abs(before) for error, before in zip(errors, full, strict=True)]
    return fmean(differences), stdev(differences) / len(differences) ** 0.5


HEADERS = ("without", "instead", "held-out pairs", "change", "passes", "change", "worst", "bias")


def rows(results: Sequence[Errors]) -> list[tuple[str, ...]]:
    """Cells of the table, in per cent; the first result is the full model."""
    full, found = results[0], []
    for result in results:
        cells = [result.name, result.without]
        for errors, before in ((result.pairs, full.pairs), (result.passes, full.passes)):
            more, uncertain = change(errors, before)
            cells.append(f"{100 * fmean(map(abs, errors)):.2f}")
            cells.append("" if result is full else f"{100 * more:+.2f} ± {100 * uncertain:.2f}")
        cells.append(f"{100 * max(map(abs, result.passes)):.1f}")
        cells.append(f"{100 * fmean(result.passes):+.1f}")
        found.append(tuple(cells))
    return found


def markdown(results: Sequence[Errors]) -> str:
    """The table for a page."""
    lines = ["| " + " | ".join(HEADERS) + " |", "| --- | --- |" + " ---: |" * (len(HEADERS) - 2)]
    lines += ["| " + " | ".join(cells) + " |" for cells in rows(results)]
    return "\n".join(lines) + "\n"


def table(results: Sequence[Errors], title: str) -> Table:
    """The table for a terminal."""
    shown = Table(title=title)
    for index, header in enumerate(HEADERS):
        shown.add_column(header, justify="left" if index < 2 else "right")
    for cells in rows(results):
        shown.add_row(*cells)
    return shown


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, and write it with `--markdown`."""
    parser = argparse.ArgumentParser(prog="validation.ablation", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table as markdown")
    parser.add_argument("--only", default="", metavar="REGEX", help="only mechanisms whose name matches")
    arguments = parser.parse_args(argv)
    measured = Measured.read()
    full, *others = MECHANISMS
    results = [measured.without(full)]
    results += [measured.without(item) for item in others if re.search(arguments.only, item.name)]
    results.append(measured.ideal())
    if arguments.markdown is not None:
        arguments.markdown.write_text(markdown(results), encoding="utf-8")
    title = f"{len(results[0].pairs)} held-out pairs and {len(results[0].passes)} passes, mean |error| in %"
    Console(highlight=False, width=None if sys.stdout.isatty() else 160).print(table(results, title))
    return 0


if __name__ == "__main__":
    sys.exit(main())
