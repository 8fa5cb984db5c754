"""A file measured on CPUs: it rehearses what a machine with GPUs will go through, and its numbers describe none.

`validation.measure` runs everywhere, with gloo and tiny shapes where there is no GPU. So that measuring, calibrating
and validating can be tried from end to end before a GPU is paid for, such a file is read as if its calls had run on the
device of a profile: launched one by one in float32 stands for a graph in float16, gloo for NCCL as it is.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.measurements.lines import StoredRecords
from kraken_sim.measurements.records.kernels import AllReduceRecord, AttentionRecord, GemmRecord, MemoryBoundRecord
from kraken_sim.measurements.records.together import PairRecord
from kraken_sim.measurements.schema import CONDITIONS, DEFAULT_CONDITION, MOST_HELD
from kraken_sim.program.ops import DType
from kraken_sim.scenario.spec import Launch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kraken_sim.measurements.records.record import Record
    from kraken_sim.measurements.schema import MeasurementFile
    from kraken_sim.profiles.profile import HardwareProfile

_FITTED: Final = (GemmRecord, AttentionRecord, MemoryBoundRecord, AllReduceRecord, PairRecord)


def is_rehearsal(measurements: MeasurementFile) -> bool:
    """Whether the file was measured on CPUs."""
    return measurements.header.device_type != "cuda"


def rehearsal_warning(measurements: MeasurementFile, profile: HardwareProfile) -> str:
    """What a reader has to know first."""
    header = measurements.header
    return (
        f"dry run: measured on CPUs ({header.num_devices} x {header.device_name}), not on {profile.device.name}; it "
        "shows that all of it runs, and its numbers say nothing of the profile"
    )


def as_on_device(measurements: MeasurementFile) -> MeasurementFile:
    """A file of CPUs as the fits and predictions read one of GPUs; any other as it is."""
    if not is_rehearsal(measurements):
        return measurements
    nccl: dict[str, Any] = dict(CONDITIONS[DEFAULT_CONDITION].collective or {})
    conditions = {name: found or nccl for name, found in measurements.header.conditions.items()}
    header = measurements.header.model_copy(update={"conditions": conditions})
    records: Iterable[Record] = measurements.records
    if isinstance(measurements.records, StoredRecords):  # a dry run tells nothing that a draw would not
        stored = measurements.records
        records = chain.from_iterable(stored.of_kind(kind, MOST_HELD) for kind in stored.counts())
    return replace(measurements, header=header, records=tuple(map(_on_device, records)))


def _on_device(record: Record) -> Record:
    if not isinstance(record, _FITTED) or record.launch is not Launch.EAGER:
        return record
    changes: dict[str, Any] = {"launch": Launch.GRAPH}
    return record.model_copy(update=changes | ({"dtype": DType.FLOAT16} if hasattr(record, "dtype") else {}))
