"""What machine this is: the header of a measurement file, from torch, NVML, nvidia-smi and /proc."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.distributed as dist

from kraken_sim.measurements.schema import Clocks, Header, Host, MachineTopology, condition_named
from validation import nvml as sensors

if TYPE_CHECKING:
    from collections.abc import Sequence

_ENVIRONMENT: Final = ("NCCL_", "TORCH_NCCL_", "TORCH_SYMM_MEM_", "NVSHMEM_", "CUDA_DEVICE_MAX_CONNECTIONS", "CUBLAS_")
_GENERATIONS: Final = {
    (7, 0): "volta",
    (8, 0): "ampere",
    (8, 6): "ampere",
    (8, 9): "ada",
    (9, 0): "hopper",
    (10, 0): "blackwell",
}
# Best first, as `nvidia-smi topo -m` explains them; NV# come before all.
_LINKS: Final = ("PIX", "PXB", "PHB", "NODE", "SYS")
_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Runtime:
    """What this process could measure with."""

    device_type: str
    num_gpus: int
    has_collectives: bool


def find_runtime() -> Runtime:
    """GPUs if there are any, with or without NCCL; CPUs with gloo otherwise."""
    if torch.cuda.is_available() and torch.version.cuda is not None:
        return Runtime("cuda", torch.cuda.device_count(), dist.is_available() and dist.is_nccl_available())
    return Runtime("cpu", 0, dist.is_available() and dist.is_gloo_available())


def describe(device_type: str, num_devices: int, suite: str, conditions: Sequence[str]) -> Header:
    """The header of a measurement on this machine.

    Args:
        device_type: cuda or cpu.
        num_devices: how many devices (or CPU processes) take part.
        suite: name of the suite.
        conditions: names of the conditions that will be run.
    """
    common: dict[str, Any] = {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "suite": suite,
        "device_type": device_type,
        "num_devices": num_devices,
        "torch": torch.__version__,
        "host": _host(),
        "environment": {name: value for name, value in os.environ.items() if name.startswith(_ENVIRONMENT)},
        "conditions": {name: _collective(name) for name in conditions},
    }
    if device_type == "cpu":
        return Header(**common, device_name=common["host"].cpu_model or platform.machine())
    return Header(**common, **_cuda(num_devices))


def _collective(condition: str) -> dict[str, Any] | None:
    found = condition_named(condition).collective
    return dict(found) if found is not None else None


def _cuda(num_devices: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    nvml = sensors.load()
    handle = sensors.handle_of(nvml, torch.device("cuda", 0)) if nvml is not None else None
    topology = _topology(num_devices)
    clocks = _clocks(nvml, handle) if handle is not None else Clocks()
    cudnn = torch.backends.cudnn.version()
    facts: dict[str, Any] = {
        "device_name": properties.name,
        "device_ids": tuple(_device_id(index) for index in range(num_devices)),
        "compute_capability": f"{properties.major}.{properties.minor}",
        "num_sms": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": getattr(properties, "L2_cache_size", None),
        "driver": _driver(nvml),
        "cuda": torch.version.cuda,
        "nccl": _nccl_version(),
        "cudnn": str(cudnn) if cudnn is not None else None,
        "clocks": clocks,
        "topology": topology,
    }
    facts["profile_stub"] = _profile_stub(facts, num_devices, (properties.major, properties.minor))
    return facts


def _device_id(index: int) -> str:
    """A hash of the card's UUID, so that files tell cards apart without naming them."""
    uuid = str(getattr(torch.cuda.get_device_properties(index), "uuid", ""))
    return hashlib.blake2b(uuid.encode(), digest_size=6).hexdigest()


def _profile_stub(facts: dict[str, Any], num_devices: int, capability: tuple[int, int]) -> dict[str, Any]:
    """The part of a hardware profile that the machine itself tells; bandwidths and peaks it does not."""
    clocks: Clocks = facts["clocks"]
    words = re.sub(r"[^a-z0-9]+", "-", facts["device_name"].lower()).strip("-").removeprefix("nvidia-")
    device: dict[str, Any] = {
        "name": facts["device_name"],
        "generation": _GENERATIONS.get(capability, f"sm_{capability[0]}{capability[1]}"),
        "num_sms": facts["num_sms"],
        "hbm_capacity_bytes": f"{facts['memory_bytes'] / 1e9:.4g} GB",
    }
    if facts["l2_bytes"]:
        device["l2_capacity_bytes"] = f"{facts['l2_bytes'] / 2**20:.4g} MiB"
    if clocks.sm_max_hz:
        device["boost_clock_hz"] = f"{clocks.sm_max_hz / 1e9:.4g} GHz"
    if clocks.power_limit_w:
        device["tdp_w"] = f"{clocks.power_limit_w:.4g} W"
    stub = {"name": f"{words}-x{num_devices}", "num_devices": num_devices, "device": device}
    return stub | ({"link": facts["topology"].link} if facts["topology"].link else {})


def _clocks(nvml: Any, handle: Any) -> Clocks:
    def hertz(function: Any, clock: Any) -> float | None:
        value = sensors.attempt(function, handle, clock)
        return value * 1e6 if value is not None else None

    limit = sensors.attempt(nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    power = sensors.attempt(nvml.nvmlDeviceGetPowerUsage, handle)
    temperature = sensors.attempt(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
    return Clocks(
        sm_hz=hertz(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_SM),
        sm_max_hz=hertz(nvml.nvmlDeviceGetMaxClockInfo, nvml.NVML_CLOCK_SM),
        memory_hz=hertz(nvml.nvmlDeviceGetClockInfo, nvml.NVML_CLOCK_MEM),
        memory_max_hz=hertz(nvml.nvmlDeviceGetMaxClockInfo, nvml.NVML_CLOCK_MEM),
        power_limit_w=limit * 1e-3 if limit is not None else None,
        power_w=power * 1e-3 if power is not None else None,
        temperature_c=float(temperature) if temperature is not None else None,
    )


def _driver(nvml: Any) -> str | None:
    version = sensors.attempt(nvml.nvmlSystemGetDriverVersion) if nvml is not None else None
    if version is None:
        lines = _output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
        return lines.split("\n")[0].strip() if lines else None
    return version.decode() if isinstance(version, bytes) else str(version)


def _nccl_version() -> str | None:
    if not (dist.is_available() and dist.is_nccl_available()):
        return None
    try:
        return ".".join(str(part) for part in torch.cuda.nccl.version())
    except (RuntimeError, AttributeError):
        return None


def _topology(num_devices: int) -> MachineTopology:
    text = _output(["nvidia-smi", "topo", "-m"])
    plain = _ANSI.sub("", text).strip() if text else None
    access = tuple(
        tuple(a == b or torch.cuda.can_device_access_peer(a, b) for b in range(num_devices)) for a in range(num_devices)
    )
    return MachineTopology(text=plain, link=worst_link(plain, num_devices) if plain else None, peer_access=access)


def worst_link(text: str, num_devices: int) -> str | None:
    """The label of the slowest connection among the first GPUs in the text of `nvidia-smi topo -m`."""
    rows = {cells[0]: cells[1:] for line in text.splitlines() if (cells := line.split()) and cells[0].startswith("GPU")}
    labels = {
        rows[f"GPU{a}"][b]
        for a in range(num_devices)
        for b in range(num_devices)
        if a != b and b < len(rows.get(f"GPU{a}", []))
    }
    known = [label for label in labels if label.startswith("NV") or label in _LINKS]

    def badness(label: str) -> tuple[int, int]:
        if label.startswith("NV"):
            return 0, -int(label[2:] or 0)
        return 1, _LINKS.index(label)

    return max(known, key=badness, default=None)


def _host() -> Host:
    return Host(
        cpu_model=_cpu_model(),
        num_cpus=os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=sys.version.split()[0],
    )


def _cpu_model() -> str | None:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or None
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or None


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _output(command: list[str]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
