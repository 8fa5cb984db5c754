"""What launching a kernel one by one costs the host, by what kind of call it is."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from kraken_sim.program.kernel_sets import KernelSet
from kraken_sim.program.ops import Attention, Copy, Elementwise, Gemm, Norm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.program.ops import ComputeOp

GEMM, ATTENTION, NORM, POINTWISE, COPY, GENERATED = "gemm", "attention", "norm", "pointwise", "copy", "generated"
_KINDS: Final[Mapping[type, str]] = MappingProxyType({Gemm: GEMM, Attention: ATTENTION, Copy: COPY})
_FUSED: Final = frozenset({"rope", "rope_kv_write", "silu_mul", "quantize"})
"""Pointwise kernels that are no operator of torch: torch.compile has generated them, or an engine has them."""


def host_kind(op: ComputeOp) -> str:
    """The kind of call that launches a kernel; of one that is no operator of torch, its function."""
    kind = _KINDS.get(type(op))
    if kind is not None:
        return kind
    if isinstance(op, Norm):
        return GENERATED if op.fused else NORM
    if isinstance(op, Elementwise) and op.function in _FUSED:
        return op.function
    return POINTWISE


def host_share(op: ComputeOp, shares: Mapping[str, float]) -> float:
    """How many times as long as the mean of a layer's kernels a kernel takes the host; 1 where no share tells."""
    return shares.get(host_kind(op), 1.0)


def shares_in(shares: Mapping[str, float], kernels: KernelSet) -> dict[str, float]:
    """A profile's shares with those of a kernel set's own kernels.

    torch.compile's are called one function at a time, as validation/models has them, and the function that turns keys
    and queries is one call of two kernels. An engine's are operators of its own, which torch's dispatcher calls as it
    calls its pointwise ones.
    """
    if not shares:
        return {}
    engine = kernels in (KernelSet.SERVING, KernelSet.SERVING_FUSED)
    own = shares.get(POINTWISE if engine else GENERATED, 1.0)
    found = {**shares, **dict.fromkeys((GENERATED, *_FUSED), own)}
    if kernels is KernelSet.COMPILED:
        found["rope"] = shares.get(POINTWISE, 1.0)
    return found
