"""Profiled passes of a measurement file as traces: the first kernels of one replay of a pass's graph.

`FILE.jsonl#TEXT` names the one whose key holds the text, `FILE.jsonl#3` the third.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from kraken_sim.errors import InputError
from kraken_sim.measurements.machine import matching_profile
from kraken_sim.measurements.records.launched import KernelsRecord
from kraken_sim.measurements.records.passes import PassRecord
from kraken_sim.measurements.schema import read_measurements
from kraken_sim.traces.device_trace import DeviceKernels, DeviceTrace
from kraken_sim.validate.passes import scenario_of_pass

if TYPE_CHECKING:
    from kraken_sim.measurements.schema import MeasurementFile
    from kraken_sim.scenario.spec import Scenario

_LISTED: Final = 8
"""Keys that a message shows; a limit of ours, for the reader."""


def is_measured(text: str) -> bool:
    """Whether a text names a pass of a measurement file."""
    return text.partition("#")[0].endswith(".jsonl")


def profiled_pass(text: str, argument: str) -> tuple[MeasurementFile, KernelsRecord]:
    """A file, and the record of the kernels of one of its passes.

    Args:
        text: FILE.jsonl#KEY, where KEY is a part of the pass's key that no other has, or its number from 1.
        argument: what errors call the place that names it.

    Raises:
        InputError: the file is none of measurements, or has no such pass, or several.
    """
    path, _, wanted = text.partition("#")
    measurements = read_measurements(Path(path))
    traced = [record for record in measurements.each(KernelsRecord) if record.of.startswith("pass/")]
    if not traced:
        raise InputError.single(
            argument, "holds no kernels of whole passes", path, "FILE.jsonl of --suite llama-passes"
        )
    keys = [record.of for record in traced]
    if wanted.isdecimal() and len(wanted) <= len(str(len(keys))) and 1 <= int(wanted) <= len(keys):
        return measurements, traced[int(wanted) - 1]
    found = [record for record in traced if wanted in record.key]
    exact = [record for record in traced if wanted in (record.key, record.of)]
    if len(exact or found) == 1:
        return measurements, (exact or found)[0]
    some = [record.of for record in found] or keys
    listed = "; ".join(f"{keys.index(key) + 1} {key}" for key in some[:_LISTED])
    count = f"{len(found)} of its profiled passes are" if found else "none of its profiled passes is"
    message = f"{count} called so; there are {listed}{'; ...' if len(some) > _LISTED else ''}"
    raise InputError.single(argument, message, wanted, f"{path}#1")


def measured_question(text: str, argument: str) -> Scenario:
    """The scenario that a profiled pass answers, on the shipped profile of its machine.

    Raises:
        InputError: as of `profiled_pass`, or no profile describes the machine.
    """
    measurements, record = profiled_pass(text, argument)
    asked = next((one for one in measurements.each(PassRecord) if one.key == record.of), None)
    if asked is None:
        raise InputError.single(argument, "the file has the kernels of this pass, and not the pass", record.of)
    return question_of(asked, measurements)


def question_of(asked: PassRecord, measurements: MeasurementFile) -> Scenario:
    """The same of a pass of a file.

    Raises:
        InputError: no scenario describes its condition, or no shipped profile the machine.
    """
    collective = measurements.header.conditions.get(asked.condition)
    if collective is None:
        raise InputError.single("condition", "no scenario describes this condition", asked.condition)
    scenario = scenario_of_pass(asked, collective, matching_profile(measurements))
    return scenario.model_copy(update={"name": _short_name(asked)})


def _short_name(asked: PassRecord) -> str:
    """What a report calls a pass, whose key is long."""
    model = asked.model
    size = (
        model.get("preset") or f"{model.get('model_type')}, {model.get('num_hidden_layers')} x {model['hidden_size']}"
    )
    work = f"{asked.phase} of {asked.batch_size} x {asked.context_length} tokens"
    formats = ", ".join(str(part) for part in (asked.dtype, asked.quantization) if part is not None)
    return f"{size}: {work}, {formats}, {asked.launch}, kernels {asked.kernels}"


def measured_trace(text: str, argument: str) -> DeviceTrace:
    """The recorded kernels of a profiled pass.

    Raises:
        InputError: as of `profiled_pass`.
    """
    measurements, record = profiled_pass(text, argument)
    return trace_of_record(record, measurements.source, measurements.header.device_name, measurements)


def trace_of_record(
    record: KernelsRecord, source: str, device_name: str, measurements: MeasurementFile | None = None
) -> DeviceTrace:
    """The same of a record alone: one device, one step, of which the file may hold the beginning only."""
    passes = measurements.select(PassRecord) if measurements is not None else []
    period_s = next((one.time_s.median for one in passes if one.key == record.of), None)
    names = {name: index for index, name in enumerate(dict.fromkeys(kernel.name for kernel in record.kernels))}
    count = len(record.kernels)
    kernels = DeviceKernels(
        name=np.array([names[kernel.name] for kernel in record.kernels], dtype=np.int32),
        start_s=np.array([kernel.start_s or 0.0 for kernel in record.kernels]),
        duration_s=np.array([kernel.busy_s for kernel in record.kernels]),
        stream=np.zeros(count, dtype=np.int32),
        launched_s=np.full(count, np.nan),
        place=np.zeros(count, dtype=np.int32),
    )
    return DeviceTrace(
        source=source,
        names=tuple(names),
        places=(("", 0, ""),),
        devices={0: kernels},
        device_names={0: device_name},
        steps=(),
        num_events=count,
        is_beginning=True,
        period_s=period_s,
    )
