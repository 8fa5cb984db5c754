"""Which custom kernel serving engines run for an AllReduce, and where they leave it to NCCL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.custom import MULTIMEM, ONE_SHOT, TWO_SHOT, kernels_of
from kraken_sim.costs.collectives.policy import Selection
from kraken_sim.hardware.interconnect import InterconnectKind

if TYPE_CHECKING:
    from kraken_sim.costs.collectives.call import CollectiveCall
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


@dataclass(frozen=True, slots=True)
class Ruled:
    """A custom algorithm and whose implementation of it."""

    algorithm: str
    family: str


def ruled(call: CollectiveCall) -> Ruled | None:
    """What the engine of the policy's selection runs for an AllReduce; None where it leaves it to NCCL."""
    rule = _tensorrt_llm_legacy if call.policy.selection is Selection.TENSORRT_LLM_LEGACY else _vllm
    found = rule(call)
    return found if found is not None and kernels_of(found.algorithm, call) else None


def _tensorrt_llm_legacy(call: CollectiveCall) -> Ruled | None:
    """TensorRT-LLM's AUTO strategy of 2024: NCCL without NVLink or beyond the workspace."""
    num_bytes, n = call.num_bytes, call.interconnect.num_devices
    if call.interconnect.kind not in (InterconnectKind.NVSWITCH, InterconnectKind.NVLINK):
        return None
    if num_bytes > (LEGACY_MAX_BYTES_2 if n <= 2 else LEGACY_MAX_BYTES_MORE):
        return None
    below = LEGACY_ONE_SHOT_BELOW_4 if n <= 4 else LEGACY_ONE_SHOT_BELOW_8
    algorithm = ONE_SHOT if n <= 2 or num_bytes < below else TWO_SHOT
    return Ruled(algorithm, "tensorrt_llm")


def _vllm(call: CollectiveCall) -> Ruled | None:
    """What vLLM runs: custom kernels while small, multimem where the switch adds, else NCCL."""
    num_bytes, n = call.num_bytes, call.interconnect.num_devices
    hopper = call.device.generation == "hopper" and bool(call.constants.nvls_enabled)
    limit = VLLM_HOPPER_CUSTOM_BELOW.get(n, 0) if hopper else VLLM_CUSTOM_BELOW
    if n in VLLM_GROUP_SIZES and num_bytes < limit and num_bytes % VLLM_ALIGNMENT_BYTES == 0:
        one_shot_below = VLLM_ONE_SHOT_BELOW_4 if n <= 4 else VLLM_ONE_SHOT_BELOW_8
        algorithm = ONE_SHOT if n == 2 or num_bytes < one_shot_below else TWO_SHOT
        return Ruled(algorithm, "vllm")
    if hopper and num_bytes <= VLLM_HOPPER_MULTIMEM_MAX.get(n, 0):
        return Ruled(MULTIMEM, "vllm")
    return None
