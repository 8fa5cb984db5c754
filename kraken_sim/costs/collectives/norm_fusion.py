"""The AllReduce that adds the residual and norms the sum in its own kernel: whose, where, up to which size, how long.

Engines take it where it pays for them: up to a size that depends on the card's generation and the number of GPUs, with
the one-shot kernel while small. Above it the AllReduce and the norm run apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from kraken_sim.costs.collectives.call import CollectiveCall
from kraken_sim.costs.collectives.custom import ONE_SHOT, TWO_SHOT, custom_all_reduce, kernels_of, usable_kernels
from kraken_sim.costs.collectives.policy import Selection
from kraken_sim.costs.collectives.serving_rules import MIB
from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.costs.collectives.policy import CollectivePolicy
    from kraken_sim.costs.types import CollectiveCost, KernelCost
    from kraken_sim.hardware.device import Device
    from kraken_sim.hardware.interconnect import Interconnect

FAMILY: Final = "tensorrt_llm"
"""Whose kernels these are: TensorRT-LLM's, which FlashInfer ships and vLLM and SGLang run (vLLM
vllm/distributed/device_communicators/flashinfer_all_reduce.py)."""


@dataclass(frozen=True, slots=True)
class NormFusion:
    """Bytes of an AllReduce up to which an engine's kernel takes in the norm, by the number of GPUs.

    Up to `one_shot_bytes` it is the one-shot kernel, above the two-shot one.
    """

    engine: str
    version: str
    one_shot_bytes: Mapping[int, int]
    most_bytes: Mapping[int, int]


def _mib(sizes: Mapping[int, float]) -> Mapping[int, int]:
    return MappingProxyType({num_devices: int(size * MIB) for num_devices, size in sizes.items()})


VLLM_VERSION: Final = "vLLM main at 0052812d, passes/fusion/allreduce_rms_fusion.py"
"""Where FI_ALLREDUCE_FUSION_MAX_SIZE_MB and _FI_ALLREDUCE_ONE_SHOT_MAX_SIZES_MB were read (vllm-project/vllm)."""

TENSORRT_LLM_VERSION: Final = "TensorRT-LLM main at 005b299b, common/customAllReduceUtils.h"
"""Where AllReduceBestStrategyTable was read (NVIDIA/TensorRT-LLM). Its rows of RESIDUAL_RMS_NORM for widths of 2048 to
8192 give up, and change to two shots, at the same bytes of a [tokens, width] message of 16 bits."""

VLLM: Final[Mapping[str, NormFusion]] = MappingProxyType(
    {
        "hopper": NormFusion("vLLM", VLLM_VERSION, _mib({2: 32, 4: 2, 8: 0.5}), _mib({2: 64, 4: 2, 8: 0.5})),
        "blackwell": NormFusion("vLLM", VLLM_VERSION, _mib({2: 32, 4: 4, 8: 1}), _mib({2: 64, 4: 32, 8: 1})),
    }
)
"""vLLM's limits by generation, those of compute capability 9.0 and 10.0 in its allreduce_rms_fusion.py."""

TENSORRT_LLM: Final[Mapping[str, NormFusion]] = MappingProxyType(
    {
        "hopper": NormFusion(
            "TensorRT-LLM", TENSORRT_LLM_VERSION, _mib({2: 8, 4: 2, 8: 0.5}), _mib({2: 8, 4: 4, 8: 0.5})
        ),
        "blackwell": NormFusion(
            "TensorRT-LLM", TENSORRT_LLM_VERSION, _mib({2: 8, 4: 2, 8: 2}), _mib({2: 8, 4: 4, 8: 4})
        ),
    }
)
"""TensorRT-LLM's limits by generation, those of its customAllReduceUtils.h."""


def norm_fusion(selection: Selection, device: Device) -> NormFusion | None:
    """The rule of the engine whose selection a policy names, vLLM's where it names none; None where there is no kernel.

    Args:
        selection: whose rule picks among custom kernels.
        device: the GPU; the kernels exist from Hopper on.
    """
    rules = TENSORRT_LLM if selection is Selection.TENSORRT_LLM_LEGACY else VLLM
    return rules.get(device.generation)


def takes_norm(interconnect: Interconnect, constants: CollectiveConstants) -> bool:
    """Whether the kernels run over it: they read and write peers' memory over NVLink, and the constants have them."""
    if interconnect.kind not in (InterconnectKind.NVSWITCH, InterconnectKind.NVLINK):
        return False
    return any(name.startswith((ONE_SHOT, TWO_SHOT)) for name in usable_kernels(interconnect, constants))


def norm_all_reduce_cost(
    num_bytes: int,
    norm_row: KernelCost,
    interconnect: Interconnect,
    device: Device,
    constants: CollectiveConstants,
    policy: CollectivePolicy,
) -> CollectiveCost:
    """An AllReduce that adds the residual to its sum and writes both that and its norm.

    The kernel of the AllReduce, and behind it what a norm's rows need without a launch of their own: the residual read
    and one tensor more written, which together move what a norm alone does.

    Args:
        num_bytes: of the [T, d] message.
        norm_row: a norm alone of the same shape.
        interconnect: what the group communicates over.
        device: the GPU.
        constants: those of its collectives.
        policy: the runtime's; its selection says whose sizes change from one shot to two.

    Raises:
        ValueError: no kernel runs here, which `norm_fusion` and `takes_norm` say before.
    """
    fusion = norm_fusion(policy.selection, device)
    call = CollectiveCall(CollectiveKind.ALL_REDUCE, num_bytes, interconnect, device, constants, policy, FAMILY)
    one_shot = fusion is not None and num_bytes <= fusion.one_shot_bytes.get(interconnect.num_devices, 0)
    order = (ONE_SHOT, TWO_SHOT) if one_shot else (TWO_SHOT, ONE_SHOT)
    kernel = next((name for algorithm in order for name in kernels_of(algorithm, call)), None)
    if kernel is None:
        message = f"no AllReduce kernel with a norm for {interconnect.num_devices} GPUs over {interconnect.kind}"
        raise ValueError(message)
    cost = custom_all_reduce(num_bytes, kernel, interconnect, constants)
    behind_s = norm_row.busy_s - norm_row.fixed_s
    return replace(
        cost,
        busy_s=cost.busy_s + behind_s,
        latency_s=cost.latency_s + behind_s,
        hbm_bytes=cost.hbm_bytes + norm_row.hbm_bytes,
        detail=f"{cost.detail}, with the add and the norm",
    )
