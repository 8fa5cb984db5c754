"""The measurement file, where the measuring side looks for it."""

from __future__ import annotations

from kraken_sim.measurements.schema import (
    CONDITIONS,
    CPU_CONDITION,
    DEFAULT_CONDITION,
    IDENTITY,
    SCHEMA_VERSION,
    Clocks,
    Condition,
    Header,
    Host,
    MachineTopology,
    MeasurementFile,
    MeasurementWarning,
    RecordType,
    read_measurements,
    to_line,
    to_text,
)

__all__ = [
    "CONDITIONS",
    "CPU_CONDITION",
    "DEFAULT_CONDITION",
    "IDENTITY",
    "SCHEMA_VERSION",
    "Clocks",
    "Condition",
    "Header",
    "Host",
    "MachineTopology",
    "MeasurementFile",
    "MeasurementWarning",
    "RecordType",
    "read_measurements",
    "to_line",
    "to_text",
]
