"""Which number formats a card and a kernel set can run, and what works instead where they cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kraken_sim.errors import InputError, Problem
from kraken_sim.hardware.device import QUANTISED_FORMATS
from kraken_sim.program.formats import DType, InputFormat, KVCacheDType, Quantization
from kraken_sim.program.kernel_sets import RULES, KernelSet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kraken_sim.hardware.device import Device
    from kraken_sim.scenario.spec import Scenario


FORMAT_PATHS: Final = ("quantization", "kv_cache_dtype")
"""Fields of a scenario that a card may not have kernels for."""


def check_formats(scenario: Scenario, device: Device) -> None:
    """Nothing, if the device and the kernel set have kernels for the scenario's number formats.

    Raises:
        InputError: they have not; names what the card can, and the nearest that works.
    """
    if problems := [*_quantization_problems(scenario, device), *_cache_problems(scenario, device)]:
        raise InputError(problems)


def input_format(scenario: Scenario) -> InputFormat | None:
    """What the inputs of the layers' GEMMs are quantised to."""
    if scenario.quantization is None:
        return None
    return InputFormat(scenario.quantization, scenario.activation_scheme)


def format_problem(path: str, quantization: Quantization, device: Device) -> Problem | None:
    """Why a device cannot multiply quantised numbers; None where it can."""
    if quantization.dtype in device.peak_flops:
        return None
    works = [str(other) for other in Quantization if other.dtype in device.peak_flops]
    if quantization.dtype in QUANTISED_FORMATS[device.generation]:
        message = (
            f"the profile of {device.name} has no device.peak_flops.{quantization.dtype}; add the datasheet's rate"
        )
        return Problem(path, message, str(quantization), f"peak_flops: {{{quantization.dtype}: 1979 TFLOP/s}}")
    computes = ", ".join(str(dtype) for dtype in device.peak_flops)
    message = f"{device.name} ({device.generation}) has no tensor cores for it; it computes in {computes}"
    return Problem(path, message, str(quantization), f"{path}: {works[0] if works else 'null'}")


def _quantization_problems(scenario: Scenario, device: Device) -> Iterator[Problem]:
    if scenario.quantization is None:
        return
    problem = format_problem("quantization", scenario.quantization, device)
    if problem is not None:
        yield problem
    if scenario.dtype is DType.FLOAT32:
        message = "quantised products give 16 bits, not 32"
        yield Problem("dtype", message, str(scenario.dtype), "dtype: bfloat16")


def _cache_problems(scenario: Scenario, device: Device) -> Iterator[Problem]:
    if scenario.kv_cache_dtype is KVCacheDType.AUTO:
        return
    kernels, value = scenario.runtime.kernels, str(scenario.kv_cache_dtype)
    if DType.FLOAT8_E4M3 not in QUANTISED_FORMATS[device.generation]:
        message = (
            f"{device.name} ({device.generation}) has no fp8, and no attention known here reads such a cache on it"
        )
        yield Problem("kv_cache_dtype", message, value, "kv_cache_dtype: auto")
    elif not RULES[kernels].float8_cache:
        works = ", ".join(str(other) for other in KernelSet if RULES[other].float8_cache)
        message = f"torch's attention, which the kernel set {kernels} has, reads no float8 cache; {works} do"
        yield Problem("kv_cache_dtype", message, value, f"runtime: {{kernels: {KernelSet.SERVING}}}")
