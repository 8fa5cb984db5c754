"""Whether a measurement file and a hardware profile are of the same machine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kraken_sim.errors import InputError
from kraken_sim.measurements.rehearsal import is_rehearsal, rehearsal_warning
from kraken_sim.profiles.calibrated import calibrated_profiles
from kraken_sim.profiles.load import list_profiles, load_profile

if TYPE_CHECKING:
    from kraken_sim.measurements.schema import MeasurementFile
    from kraken_sim.profiles.profile import HardwareProfile


def matching_profile(measurements: MeasurementFile) -> str:
    """The shipped profile of the measured devices that has just enough of them, a calibrated one if there is.

    Raises:
        InputError: no shipped profile describes such a machine.
    """
    header = measurements.header
    fitting, calibrated = [], calibrated_profiles()
    for name in list_profiles():
        profile = load_profile(name)
        size = len(profile.topology.gpus)
        same = same_device(header.device_name, profile.device.name)
        if same and not _memory_differs(header.memory_bytes, profile) and size >= header.num_devices:
            fitting.append((name not in calibrated, size, name))
    if not fitting:
        message = "no shipped profile describes the measured machine; name one with --hardware"
        raise InputError.single("--hardware", message, header.device_name, "h200-sxm-x2")
    return min(fitting)[-1]


def machine_warnings(measurements: MeasurementFile, profile: HardwareProfile, *, rehearse: bool = False) -> list[str]:
    """What makes the profile another machine than the measured one.

    Args:
        measurements: the file.
        profile: the machine that it is taken to be of.
        rehearse: whether a file of CPUs will do, for a dry run.

    Raises:
        InputError: the measured devices are not the profile's at all.
    """
    header = measurements.header
    if rehearse and is_rehearsal(measurements):
        return [rehearsal_warning(measurements, profile)]
    if header.device_type != "cuda":
        message = "was measured on CPUs; no profile predicts those"
        raise InputError.single("header.device_type", message, header.device_type, source=measurements.source)
    if not same_device(header.device_name, profile.device.name):
        message = f"the profile {profile.name} describes {profile.device.name}"
        raise InputError.single("header.device_name", message, header.device_name, source=measurements.source)
    warnings = []
    if header.num_sms is not None and header.num_sms != profile.device.num_sms:
        warnings.append(f"the devices have {header.num_sms} SMs, the profile {profile.device.num_sms}")
    if _memory_differs(header.memory_bytes, profile):
        warnings.append("the devices have another amount of memory than the profile")
    if header.num_devices > len(profile.topology.gpus):
        warnings.append(f"{header.num_devices} devices were measured, the profile has {len(profile.topology.gpus)}")
    return warnings


def same_device(measured: str, described: str) -> bool:
    """Whether the two names share the chip's designation, such as H200 or 4090, and both or neither are PCIe cards."""

    def chips(name: str) -> set[str]:
        words = name.upper().replace("-", " ").split()
        lettered = {word for word in words if any(c.isdigit() for c in word) and word[0].isalpha() and len(word) <= 6}
        return lettered | {word for word in words if word.isdigit() and len(word) == 4}

    if ("PCIE" in measured.upper()) != ("PCIE" in described.upper()):
        return False

    ignored = {"SXM4", "SXM5", "SXM2", "HBM3", "HBM2E", "HBM3E"}
    return bool((chips(measured) - ignored) & (chips(described) - ignored))


def _memory_differs(memory_bytes: int | None, profile: HardwareProfile) -> bool:
    if memory_bytes is None:
        return False
    return not math.isclose(memory_bytes, profile.device.hbm_capacity_bytes, rel_tol=0.15)
