"""What is wrong with a wiring: waits for nothing, cycles, outputs that nobody adds; each with the place of its step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kraken_sim.architectures import wiring as wired
from kraken_sim.errors import Problem, closest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kraken_sim.architectures.wiring import Steps, Wiring, WiringStep

Placed = tuple[str, "WiringStep"]
"""A step and its path."""


def wiring_problems(wiring: Wiring) -> Iterator[Problem]:
    """Every step that cannot run, with paths such as `layers.0.period.1.3` (the fourth step of a second layer)."""
    layers = {
        f"layers.{run}.period.{index}": steps
        for run, part in enumerate(wiring.layers)
        for index, steps in enumerate(part.period)
    }
    counts = {path: _counts(steps) for path, steps in layers.items()}
    first = next(iter(counts.values()))
    for path, (norms, attentions, ffns) in counts.items():
        if (attentions, ffns) != (1, 1):
            found = f"{attentions} of the one and {ffns} of the other"
            yield Problem(path, f"a layer has one attention and one FFN, as parameters are counted, not {found}")
        if norms != first[0]:
            yield Problem(path, f"has {norms} norms where the first layer has {first[0]}")
    for number, part in enumerate(wiring.layers[:-1]):
        if part.number is None:
            yield Problem(f"layers.{number}", "goes on to the last layer, so that nothing behind it is reached")
    later = [name for steps in (*layers.values(), wiring.end) for name in _taken_of_the_layer_before(steps, wiring.end)]
    for path, steps in layers.items():
        yield from _layer_problems(path, steps, later)
    sent = [step.by.name for steps in layers.values() for step in _plain(steps) if isinstance(step, wired.Begin)]
    for place, step in _places("end", wiring.end):
        if isinstance(step, wired.Take) and step.of not in sent:
            yield _waits_for_nothing(place, step.of, sent)
        elif not isinstance(step, wired.Take | wired.SendStream | wired.Concat):
            yield Problem(place, "stands behind the last layer, where only what was sent may be taken or gathered")


def has_sub_layers(wiring: Wiring) -> bool:
    """Whether a layer has blocks of which a device may have several."""
    return any(isinstance(step, wired.EachBlock) for part in wiring.layers for steps in part.period for step in steps)


def sub_layer_problems_of(wiring: Wiring) -> Iterator[Problem]:
    """What is wrong with the steps of sub-layers: those of one block stand in `each_block`."""
    for run, part in enumerate(wiring.layers):
        for index, steps in enumerate(part.period):
            for number, step in enumerate(steps):
                if isinstance(step, wired.BlockStep | wired.OfPart):
                    message = "a device may have several sub-layers: what is done for one of them stands in each_block"
                    yield Problem(f"layers.{run}.period.{index}.{number}", message, example="each_block: [...]")


def num_norms(wiring: Wiring) -> int:
    """Norms of a layer, which all layers of a right wiring have alike."""
    return _counts(wiring.layers[0].period[0])[0]


def _layer_problems(path: str, steps: Steps, later: Iterable[str]) -> Iterator[Problem]:
    begun = [step.by.name for step in _plain(steps) if isinstance(step, wired.Begin)]
    for part in dict.fromkeys(_parts(steps)):
        walk = _Walk(begun)
        for place, step in _places(path, steps, part):
            yield from walk.step(place, step)
        yield from walk.end(later)


@dataclass(slots=True)
class _Walk:
    """Through a layer, or a part's steps of it, in the order of launch."""

    begun: list[str]
    """All names that the layer begins, wherever."""
    under_way: dict[str, str] = field(default_factory=dict)
    """Where those were begun that nobody has taken."""
    taken: set[str] = field(default_factory=set)
    streams: dict[str, str] = field(default_factory=dict)
    """Where collectives of the streams were begun that nobody has received."""
    normed: bool = False
    made: str | None = None
    """Where the output was made that nothing was done with."""
    attended: bool = False

    def step(self, place: str, step: WiringStep) -> Iterator[Problem]:
        match step:
            case wired.Normalise():
                self.normed = True
            case wired.Attend() | wired.FeedForward():
                yield from self._block(place, step)
            case wired.Residual() | wired.Add():
                yield from self._used(place)
            case wired.Begin(by):
                yield from self._used(place)
                if by.channels is not None:
                    yield Problem(
                        place, "a share of the channels is put together again behind it, so it cannot run beside"
                    )
                if by.name in self.under_way:
                    yield Problem(place, f"{by.name} is under way already", by.name)
                self.under_way[by.name] = place
            case wired.Take():
                yield from self._take(place, step)
            case wired.BeginStream(by):
                self.streams[by.name] = place
            case wired.Receive(of):
                if of not in self.streams:
                    yield _waits_for_nothing(place, of, list(self.streams))
                self.streams.pop(of, None)
                self.made = place

    def _block(self, place: str, step: wired.Attend | wired.FeedForward) -> Iterator[Problem]:
        if not self.normed:
            yield Problem(
                place, "reads a norm, and none stands before it in this layer", example="norm: norm_attention"
            )
        if isinstance(step, wired.FeedForward) and step.onto:
            if not self.attended:
                yield Problem(place, "is accumulated onto the attention's output, and none stands before it")
        elif self.made is not None:
            yield Problem(self.made, "its output is never added to the residual")
        self.made, self.attended = place, True

    def _used(self, place: str) -> Iterator[Problem]:
        if self.made is None:
            yield Problem(place, "there is no output of a block here that it could send or add")
        self.made = None

    def _take(self, place: str, step: wired.Take) -> Iterator[Problem]:
        if step.of not in self.begun:
            yield _waits_for_nothing(place, step.of, self.begun)
        elif step.layers_back and step.of in self.under_way:
            message = f"waits for the {step.of} of the layer before, behind that of its own: two would be under way"
            yield Problem(place, message, step.layers_back, "layers_back: 0")
        elif not step.layers_back and step.of not in self.under_way:
            cycle = f"waits for {step.of}, which is begun only behind it: a cycle"
            what = f"{step.of} was taken already" if step.of in self.taken else cycle
            yield Problem(place, what, step.layers_back, "layers_back: 1, for that of the layer before")
        else:
            self.under_way.pop(step.of, None)
            self.taken.add(step.of)

    def end(self, later: Iterable[str]) -> Iterator[Problem]:
        """What the layer leaves behind."""
        if self.made is not None:
            yield Problem(self.made, "its output is never added to the residual")
        for name, place in self.streams.items():
            yield Problem(place, f"nobody receives {name} in this layer", example=f"receive: {name}")
        for name, place in self.under_way.items():
            if name not in later:
                yield Problem(place, f"nobody waits for {name}", example=f"take: {{of: {name}, layers_back: 1}}")


def _waits_for_nothing(place: str, name: str, begun: list[str]) -> Problem:
    return Problem(place, "waits for what nothing begins", name, suggestion=closest(name, begun))


def _taken_of_the_layer_before(steps: Steps, end: Steps) -> list[str]:
    takes = [step for step in _plain(steps) if isinstance(step, wired.Take)]
    return [step.of for step in takes if step.layers_back or steps is end]


def _counts(steps: Steps) -> tuple[int, int, int]:
    """Norms, attentions, FFNs of a layer, or of the first part where it has several."""
    first = next(iter(_parts(steps)), None)
    plain = [step for _, step in _places("", steps, first)]
    kinds = (wired.Normalise, wired.Attend, wired.FeedForward)
    norms, attentions, ffns = (sum(isinstance(step, kind) for step in plain) for kind in kinds)
    return norms, attentions, ffns


def _parts(steps: Steps) -> list[int | None]:
    return [step.part if isinstance(step, wired.OfPart) else None for step in steps]


def _plain(steps: Steps) -> list[WiringStep]:
    return [step for part in dict.fromkeys(_parts(steps)) for _, step in _places("", steps, part)]


def _places(path: str, steps: Steps, part: int | None = None) -> Iterator[Placed]:
    """The steps with their paths; of a part only its own."""
    for index, step in enumerate(steps):
        place = f"{path}.{index}"
        if isinstance(step, wired.OfPart):
            if step.part == part:
                yield from ((f"{place}.part_{part}.{number}", inner) for number, inner in enumerate(step.steps))
        elif isinstance(step, wired.EachBlock):
            yield from ((f"{place}.each_block.{number}", inner) for number, inner in enumerate(step.steps))
        elif part is None:
            yield place, step
