"""The host that a scenario names: its file read, whatever kind of file it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from kraken_sim.errors import InputError
from kraken_sim.files.problems import problems_of
from kraken_sim.files.strict_yaml import read_yaml
from kraken_sim.hardware.device import LaunchCosts
from kraken_sim.hardware.host import HOST_COSTS, HostTimes
from kraken_sim.measurements.launch import launch_costs
from kraken_sim.measurements.records.launched import LaunchRecord
from kraken_sim.measurements.rehearsal import is_rehearsal
from kraken_sim.measurements.schema import read_measurements
from kraken_sim.scenario.host import HostSpec

_YAML: Final = (".yaml", ".yml")
_NOTHING: Final = LaunchCosts(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""What nothing was measured of, by definition."""

_AT: Final = "runtime.host"


def host_of(spec: HostSpec) -> HostTimes:
    """The host of a scenario; costs that it gives by name count before those of its file.

    Raises:
        InputError: the file cannot be read, or tells nothing of a host.
    """
    given, said = spec.costs(), "runtime.host of the scenario"
    if spec.file is None:
        return HostTimes(said, given, spread=spec.spread)
    path = Path(spec.file)
    found = _of_yaml(path) if path.suffix in _YAML else _of_measurements(path)
    source = f"{found.source}, and {said}" if given else found.source
    spread = found.spread if spec.spread is None else spec.spread
    return replace(found, source=source, costs={**found.costs, **given}, spread=spread)


def _of_yaml(path: Path) -> HostTimes:
    document = read_yaml(path)
    try:
        spec = HostSpec.model_validate(document.data)
    except ValidationError as error:
        raise document.error(problems_of(error, HostSpec)) from None
    if spec.file is not None:
        raise document.error(InputError.single("file", "a file of a host names no other", spec.file).problems)
    return HostTimes(path.name, spec.costs(), spread=spec.spread)


def _of_measurements(path: Path) -> HostTimes:
    measurements = read_measurements(path)
    fit = launch_costs(measurements, _NOTHING, "")
    costs = {name: getattr(fit.constants, name) for name in HOST_COSTS if name in fit.sources}
    if not costs:
        message = "tells nothing of a host; measure one with validation.measure --suite host"
        raise InputError.single(_AT, message, str(path), "host.jsonl")
    processes = len({record.process for record in measurements.each(LaunchRecord)})
    header = measurements.header
    where = (
        f"{header.host.cpu_model or 'a host'} with {header.device_name}, {processes} process{'es' * (processes > 1)}"
    )
    if is_rehearsal(measurements):
        where = f"dry run on CPUs, where calls compute: {where}"
    spread = fit.constants.eager_spread if "eager_spread" in fit.sources else None
    return HostTimes(f"{path.name}: {where}", costs, fit.constants.eager_shares, processes, spread)
