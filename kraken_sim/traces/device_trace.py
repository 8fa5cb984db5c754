"""What devices did, out of a Chrome trace: kernels, copies and fills with their times, and who launched them when."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from kraken_sim.traces.chrome import ChromeFile, number, whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

DEVICE_CATEGORIES: Final = ("kernel", "gpu_memcpy", "gpu_memset")
"""Categories of what runs on a device: pytorch/kineto libkineto/src/ActivityType.cpp."""
_LAUNCH_CATEGORIES: Final = ("cuda_runtime", "cuda_driver")
_STEP: Final = "ProfilerStep#"
"""What torch.profiler calls the range of a step: torch/profiler/profiler.py."""
_US: Final = 1e-6
"""A trace's unit of time is the microsecond; a definition."""
_SHOWN_CATEGORIES: Final = 6
"""Categories that a message lists; a choice of ours, for the reader."""


class StepRange(NamedTuple):
    """A range of the host that a profiler's step is."""

    number: int
    start_s: float
    end_s: float


class DeviceKernels(NamedTuple):
    """Everything that one device ran, in order of its start; arrays of one length.

    Times are seconds of the trace's clock; `name` counts the trace's `names`; `launched_s` is when the host's call that
    launched it had ended, of several launched by one call (a graph's) when it began; nan where the trace does not say.
    """

    name: NDArray[np.int32]
    start_s: NDArray[np.float64]
    duration_s: NDArray[np.float64]
    stream: NDArray[np.int32]
    launched_s: NDArray[np.float64]
    place: NDArray[np.int32]
    """The trace's `places`: where a predicted kernel stands in its program; 0 elsewhere."""


@dataclass(frozen=True, slots=True)
class DeviceTrace:
    """A trace of one process."""

    source: str
    names: tuple[str, ...]
    places: tuple[tuple[str, int, str], ...]
    """Segment, repetition and class of predicted kernels; the first stands for none."""
    devices: Mapping[int, DeviceKernels]
    device_names: Mapping[int, str]
    steps: tuple[StepRange, ...]
    num_events: int
    rank: int | None = None
    world_size: int | None = None
    cut: str | None = None
    """Why the file could not be read to its end."""
    is_beginning: bool = False
    """Whether only the beginning of a step was recorded."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What a predicted trace says of its question."""
    period_s: float | None = None
    """Of such steps without the profiler, where the file says it."""

    @property
    def num_kernels(self) -> int:
        """Of all devices."""
        return sum(len(kernels.name) for kernels in self.devices.values())


@dataclass(slots=True)
class _Collected:
    """Events while they are read, as columns."""

    names: dict[str, int] = field(default_factory=dict)
    places: dict[tuple[str, int, str], int] = field(default_factory=lambda: {("", 0, ""): 0})
    name: array[int] = field(default_factory=lambda: array("i"))
    start_s: array[float] = field(default_factory=lambda: array("d"))
    duration_s: array[float] = field(default_factory=lambda: array("d"))
    stream: array[int] = field(default_factory=lambda: array("i"))
    device: array[int] = field(default_factory=lambda: array("i"))
    place: array[int] = field(default_factory=lambda: array("i"))
    correlation: array[int] = field(default_factory=lambda: array("q"))
    launch: array[int] = field(default_factory=lambda: array("q"))
    launch_s: array[float] = field(default_factory=lambda: array("d"))
    launch_end_s: array[float] = field(default_factory=lambda: array("d"))
    steps: dict[int, StepRange] = field(default_factory=dict)
    categories: Counter[str] = field(default_factory=Counter)

    def add(self, event: Mapping[str, Any]) -> None:
        """One event; one without times is none of a device."""
        category = event.get("cat")
        if not isinstance(category, str):
            return
        category = category.lower()
        self.categories[category] += 1
        if category in DEVICE_CATEGORIES:
            self._add_kernel(event)
        elif category in _LAUNCH_CATEGORIES:
            self._add_launch(event)
        elif category == "user_annotation" and str(event.get("name", "")).startswith(_STEP):
            self._add_step(event)

    def _add_kernel(self, event: Mapping[str, Any]) -> None:
        start, duration = number(event.get("ts")), number(event.get("dur"))
        if start is None or duration is None or duration < 0.0:
            return
        args = event.get("args")
        args = args if isinstance(args, dict) else {}
        name = str(args.get("node", event.get("name", "")) if "segment" in args else event.get("name", ""))
        self.name.append(self.names.setdefault(name, len(self.names)))
        self.start_s.append(start * _US)
        self.duration_s.append(duration * _US)
        self.stream.append(_small(args.get("stream", event.get("tid"))))
        self.device.append(_small(args.get("device", event.get("pid"))))
        self.correlation.append(whole(args.get("correlation")))
        place = ("", 0, "")
        if "segment" in args:
            place = (str(args["segment"]), _small(args.get("iteration")), str(args.get("class", "")))
        self.place.append(self.places.setdefault(place, len(self.places)))

    def _add_launch(self, event: Mapping[str, Any]) -> None:
        args, start = event.get("args"), number(event.get("ts"))
        correlation = whole(args.get("correlation")) if isinstance(args, dict) else -1
        if start is not None and correlation >= 0:
            self.launch.append(correlation)
            self.launch_s.append(start * _US)
            self.launch_end_s.append((start + max(0.0, number(event.get("dur")) or 0.0)) * _US)

    def _add_step(self, event: Mapping[str, Any]) -> None:
        start, duration = number(event.get("ts")), number(event.get("dur"))
        step = whole(str(event["name"]).removeprefix(_STEP))
        if start is not None and duration is not None and step >= 0:
            self.steps[step] = StepRange(step, start * _US, (start + duration) * _US)

    def devices(self) -> dict[int, DeviceKernels]:
        """The kernels of each device."""
        launched_s = self._launched_s()
        start_s, device = np.array(self.start_s), np.array(self.device, dtype=np.int32)
        order = np.argsort(start_s, kind="stable")
        found = {}
        for number_of_device in np.unique(device).tolist():
            mine = order[device[order] == number_of_device]
            found[int(number_of_device)] = DeviceKernels(
                name=np.array(self.name, dtype=np.int32)[mine],
                start_s=start_s[mine],
                duration_s=np.array(self.duration_s)[mine],
                stream=np.array(self.stream, dtype=np.int32)[mine],
                launched_s=launched_s[mine],
                place=np.array(self.place, dtype=np.int32)[mine],
            )
        return found

    def _launched_s(self) -> NDArray[np.float64]:
        """By kernel, when the call with its number had been made."""
        wanted = np.array(self.correlation, dtype=np.int64)
        found = np.full(len(wanted), np.nan)
        if not self.launch:
            return found
        calls, begun_s, ended_s = np.array(self.launch), np.array(self.launch_s), np.array(self.launch_end_s)
        order = np.argsort(calls, kind="stable")
        calls = calls[order]
        place = np.minimum(np.searchsorted(calls, wanted), len(calls) - 1)
        known = (calls[place] == wanted) & (wanted >= 0)
        # Kernels of a graph run while the call that launched it still does.
        alone = np.bincount(place[known], minlength=len(calls)) == 1
        when_s = np.where(alone, ended_s[order], begun_s[order])
        found[known] = when_s[place][known]
        return found


def _small(value: object) -> int:
    """A number of a stream or a device; -1 where it is none that fits."""
    found = whole(value)
    return found if -1 <= found < 1 << 31 else -1


def read_trace(path: str | Path, argument: str = "THEIRS") -> DeviceTrace:
    """Reads a Chrome trace, plain or gzipped.

    Args:
        path: the file.
        argument: what errors call the place that names it.

    Raises:
        InputError: the file can't be read or is no trace, or no device ran anything in it.
    """
    file, collected = ChromeFile(path, argument), _Collected()
    for event in file.events():
        collected.add(event)
    if not collected.name:
        raise file.problem(_nothing_found(file, collected.categories))
    group = _group(file)
    extra = file.beside.get("validation")
    extra = extra if isinstance(extra, dict) else {}
    period_s = number(extra.get("period_s"))
    return DeviceTrace(
        source=str(path),
        names=tuple(collected.names),
        places=tuple(collected.places),
        devices=collected.devices(),
        device_names=dict(_device_names(file.beside.get("deviceProperties"))),
        steps=tuple(sorted(collected.steps.values(), key=lambda step: step.start_s)),
        num_events=file.num_events,
        rank=_known(whole(group.get("rank"))),
        world_size=_known(whole(group.get("world_size"))),
        cut=file.cut,
        about=about if isinstance(about := file.beside.get("kraken_sim"), dict) else {},
        is_beginning=extra.get("is_beginning") is True,
        period_s=period_s if period_s is not None and period_s > 0.0 else None,
    )


def rank_of_file(path: Path, argument: str = "THEIRS") -> int | None:
    """The rank that a trace says before its events; None where it says none there.

    Raises:
        InputError: the file can't be read or is no trace.
    """
    file = ChromeFile(path, argument)
    next(file.events(), None)
    return _known(whole(_group(file).get("rank")))


def _group(file: ChromeFile) -> Mapping[str, object]:
    """What a file says of its process among others."""
    group = file.beside.get("distributedInfo")
    return group if isinstance(group, dict) else {}


def _known(value: int) -> int | None:
    return value if value >= 0 else None


def _device_names(properties: object) -> Iterable[tuple[int, str]]:
    for one in properties if isinstance(properties, list) else []:
        if isinstance(one, dict) and isinstance(one.get("name"), str):
            yield _small(one.get("id")), one["name"]


def _nothing_found(file: ChromeFile, categories: Counter[str]) -> str:
    """Why there is nothing to compare, and what there is instead."""
    ends = f"; it {file.cut}" if file.cut else ""
    if not file.num_events:
        return f"holds no events{ends or ', so it is no trace'}"
    held = ", ".join(f"{count:,} of {name}" for name, count in categories.most_common(_SHOWN_CATEGORIES))
    message = f"holds {file.num_events:,} events, none of a GPU ({held or 'none with a category'}){ends}"
    return f"{message}; record with ProfilerActivity.CUDA, on a machine with a GPU"
