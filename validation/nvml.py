"""Clocks, power and temperature through NVML; absent where the driver or the package is."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_INSTANT_POWER_FIELD = 186  # NVML_FI_DEV_POWER_INSTANT; nvmlDeviceGetPowerUsage averages over a second on Hopper


def load() -> Any:
    """The initialised pynvml module, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # whatever a missing driver raises: there are no sensors then
        return None
    return nvml


def attempt(function: Any, *arguments: Any) -> Any:
    """The function's value, or None where this card or driver does not answer."""
    try:
        return function(*arguments)
    except Exception:  # NVML has a class for every refusal
        return None


def handle_of(nvml: Any, device: torch.device) -> Any:
    """NVML's handle of a torch device, by its UUID: NVML does not know CUDA_VISIBLE_DEVICES."""
    import torch

    index = device.index or 0
    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", None)
    found = attempt(nvml.nvmlDeviceGetHandleByUUID, f"GPU-{uuid}") if uuid else None
    return found if found is not None else attempt(nvml.nvmlDeviceGetHandleByIndex, index)


@dataclass(frozen=True, slots=True)
class Sensors:
    """The sensors of one card."""

    nvml: Any
    handle: Any

    def read(self) -> tuple[float, float, float] | None:
        """SM clock in Hz, power in W, temperature in °C; None where the card does not answer."""
        clock = attempt(self.nvml.nvmlDeviceGetClockInfo, self.handle, self.nvml.NVML_CLOCK_SM)
        temperature = attempt(self.nvml.nvmlDeviceGetTemperature, self.handle, self.nvml.NVML_TEMPERATURE_GPU)
        if clock is None:
            return None
        return clock * 1e6, self._power_w(), float(temperature if temperature is not None else 0.0)

    def energy_j(self) -> float | None:
        """What the card has used since its driver was loaded; None where it does not count."""
        millijoules = attempt(self.nvml.nvmlDeviceGetTotalEnergyConsumption, self.handle)
        return float(millijoules) * 1e-3 if millijoules is not None else None

    def memory_clock_hz(self) -> float | None:
        """Clock of the memory; None where the card does not answer."""
        clock = attempt(self.nvml.nvmlDeviceGetClockInfo, self.handle, self.nvml.NVML_CLOCK_MEM)
        return float(clock) * 1e6 if clock is not None else None

    def _power_w(self) -> float:
        values = attempt(self.nvml.nvmlDeviceGetFieldValues, self.handle, [_INSTANT_POWER_FIELD])
        if values and values[0].nvmlReturn == 0:
            return float(values[0].value.uiVal) * 1e-3
        power = attempt(self.nvml.nvmlDeviceGetPowerUsage, self.handle)
        return float(power) * 1e-3 if power is not None else 0.0


def open_sensors(device: torch.device) -> Sensors | None:
    """The sensors of a CUDA device, or None."""
    if device.type != "cuda":
        return None
    nvml = load()
    if nvml is None:
        return None
    handle = handle_of(nvml, device)
    return Sensors(nvml, handle) if handle is not None else None
