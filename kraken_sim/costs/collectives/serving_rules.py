"""Which custom kernel serving engines run for an AllReduce, and where they leave it to NCCL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.custom import CUSTOM_ALGORITHMS, MULTIMEM, ONE_SHOT, TWO_SHOT
from kraken_sim.costs.collectives.policy import Library, Selection
from kraken_sim.errors import InputError
from kraken_sim.hardware.interconnect import InterconnectKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.costs.collectives.policy import CollectivePolicy
    from kraken_sim.hardware.device import Device
    from kraken_sim.hardware.interconnect import Interconnect

MIB = 1024 * 1024
"""Bytes of a MiB; a definition."""

LEGACY_MAX_BYTES_2, LEGACY_MAX_BYTES_MORE = 16_000_000, 8_000_000
"""Workspace of the custom kernels for 2 and for more GPUs: the largest message they take (TensorRT-LLM
cpp/tensorrt_llm/plugins/ncclPlugin/allreducePlugin.cpp, 2024, and customAllReduceUtils.h)."""

LEGACY_ONE_SHOT_BELOW_4, LEGACY_ONE_SHOT_BELOW_8 = 1_000_000, 500_000
"""Bytes below which up to 4 and up to 8 GPUs run the one-shot kernel (selectImplementation of the same
allreducePlugin.cpp)."""

VLLM_GROUP_SIZES = (2, 4, 6, 8)
"""Numbers of GPUs that vLLM's custom kernels are compiled for (csrc/custom_all_reduce.cuh)."""

VLLM_ALIGNMENT_BYTES = 16
"""A custom kernel takes whole 16-byte packs only (should_custom_ar of vLLM custom_all_reduce.py)."""

VLLM_CUSTOM_BELOW = 8 * MIB
"""Bytes below which the custom kernels run where symmetric memory is not there (max_size of vLLM
vllm/distributed/device_communicators/custom_all_reduce.py)."""

VLLM_ONE_SHOT_BELOW_4, VLLM_ONE_SHOT_BELOW_8 = MIB // 2, MIB // 4
"""Bytes below which up to 4 and up to 8 GPUs run the one-stage kernel (vLLM csrc/custom_all_reduce.cuh)."""

VLLM_HOPPER_CUSTOM_BELOW = {2: 64 * MIB, 4: 32 * MIB, 6: MIB // 2, 8: MIB // 4}
"""`VLLM_CUSTOM_BELOW` on compute capability 9.0 with symmetric memory, by GPUs: CUSTOM_ALL_REDUCE_MAX_SIZES of vLLM
vllm/distributed/device_communicators/all_reduce_utils.py."""

VLLM_HOPPER_MULTIMEM_MAX = {4: 32 * MIB, 6: 64 * MIB, 8: 64 * MIB}
"""Largest message of multimem there, by GPUs: SYMM_MEM_ALL_REDUCE_MAX_SIZES of the same all_reduce_utils.py."""


def custom_kernel(
    num_bytes: int,
    interconnect: Interconnect,
    device: Device,
    constants: CollectiveConstants,
    policy: CollectivePolicy,
) -> str | None:
    """The custom kernel's name, "" for NCCL, None to let the fastest win."""
    if policy.library is Library.NCCL:
        return ""
    if policy.algorithm is not None:
        return "" if policy.algorithm not in CUSTOM_ALGORITHMS else _forced(policy.algorithm, interconnect, constants)
    if policy.selection is Selection.TENSORRT_LLM_LEGACY:
        return _tensorrt_llm_legacy(num_bytes, interconnect, constants)
    if policy.selection is Selection.VLLM:
        return _vllm(num_bytes, interconnect, device, constants)
    return None if num_bytes <= constants.custom_max_bytes else ""


def usable_kernels(interconnect: Interconnect, constants: CollectiveConstants) -> list[str]:
    """Custom kernels that can run on this interconnect."""
    kind, n = interconnect.kind, interconnect.num_devices
    nvlink = kind in (InterconnectKind.NVSWITCH, InterconnectKind.NVLINK)
    if not nvlink and not (kind is InterconnectKind.PCIE and n == 2):
        return []
    multicast = kind is InterconnectKind.NVSWITCH and bool(constants.nvls_enabled) and n > 2
    return [name for name in constants.custom_base_s if multicast or not name.startswith(MULTIMEM)]


def _kernel(algorithm: str, family: str, usable: Sequence[str]) -> str:
    """The kernel of that family, else of another, else "" (NCCL)."""
    preferred = f"{algorithm}_{family}"
    if preferred in usable:
        return preferred
    return next((name for name in usable if name.startswith(algorithm)), "")


def _forced(algorithm: str, interconnect: Interconnect, constants: CollectiveConstants) -> str:
    name = _kernel(algorithm, "vllm", usable_kernels(interconnect, constants))
    if name:
        return name
    if algorithm == MULTIMEM:
        message = "multimem needs NVSwitch with multicast (nvls_enabled) and at least 3 GPUs"
    else:
        message = "custom kernels need peer access: NVLink, or two GPUs on PCIe"
    raise InputError.single("runtime.collective.algorithm", message, algorithm, "library: nccl")


def _tensorrt_llm_legacy(num_bytes: int, interconnect: Interconnect, constants: CollectiveConstants) -> str:
    """TensorRT-LLM's AUTO strategy of 2024: NCCL without NVLink or beyond the workspace."""
    n = interconnect.num_devices
    if interconnect.kind not in (InterconnectKind.NVSWITCH, InterconnectKind.NVLINK):
        return ""
    if num_bytes > (LEGACY_MAX_BYTES_2 if n <= 2 else LEGACY_MAX_BYTES_MORE):
        return ""
    below = LEGACY_ONE_SHOT_BELOW_4 if n <= 4 else LEGACY_ONE_SHOT_BELOW_8
    algorithm = ONE_SHOT if n <= 2 or num_bytes < below else TWO_SHOT
    return _kernel(algorithm, "tensorrt_llm", usable_kernels(interconnect, constants))


def _vllm(num_bytes: int, interconnect: Interconnect, device: Device, constants: CollectiveConstants) -> str:
    """What vLLM runs: custom kernels while small, multimem where the switch adds, else NCCL."""
    n = interconnect.num_devices
    usable = usable_kernels(interconnect, constants)
    multicast = [name for name in usable if name.startswith(MULTIMEM)]
    hopper = device.generation == "hopper" and bool(constants.nvls_enabled)
    limit = VLLM_HOPPER_CUSTOM_BELOW.get(n, 0) if hopper else VLLM_CUSTOM_BELOW
    if n in VLLM_GROUP_SIZES and num_bytes < limit and num_bytes % VLLM_ALIGNMENT_BYTES == 0:
        one_shot_below = VLLM_ONE_SHOT_BELOW_4 if n <= 4 else VLLM_ONE_SHOT_BELOW_8
        algorithm = ONE_SHOT if n == 2 or num_bytes < one_shot_below else TWO_SHOT
        return _kernel(algorithm, "vllm", usable)
    if hopper and multicast and num_bytes <= VLLM_HOPPER_MULTIMEM_MAX.get(n, 0):
        return multicast[0]
    return ""
