"""How far off constants are that are carried over to a GPU that they were not fitted to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kraken_sim.hardware.device import OTHER_MAKERS
from kraken_sim.profiles.profile import provenance_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.hardware.device import Device
    from kraken_sim.profiles.profile import HardwareProfile

LEFT_OUT_ERRORS: Final[Mapping[str, float]] = {
    "gemm": 0.148,
    "gemm_fp8": 0.148,
    "gemm_fp8_rows": 0.148,
    "gemm_fp8_block": 0.25,
    "gemm_nvfp4": 0.32,
    "attention": 0.17,
    "serving_attention": 0.15,
    "attention_float8": 0.5,
    "memory_bound": 0.25,
    "collectives": 0.3,
}
"""Mean relative error of a block on a GPU of another generation than the one it was fitted to. GEMM: measured, the
worst of A100, H100, H200 and L40S, each left out in turn (docs/accuracy-tables.md, 14.9 % with the fits that ship);
fp8: measured, H200 and L40S left out (9 to 13 %); fp8_block: these (22 to 24 %) and B200 (25 %); nvfp4: the fp8 of H200
on B200 (32 %); attention_float8: that of H200 on B200 and L40S (40 and 51 %); attention and collectives: measured, the
fits of A100, H100 and L40S carried over to each other (attention: 17 % from A100 to H100); memory-bound kernels:
assumed. Inside a generation the errors are a third of that or less."""

MEASURED_ERRORS: Final = frozenset(
    {
        "gemm",
        "gemm_fp8",
        "gemm_fp8_block",
        "gemm_nvfp4",
        "attention",
        "attention_float8",
        "serving_attention",
        "collectives",
    }
)
"""Blocks that stay fitted when they are carried over: their error was measured on GPUs left out. Of others the error
is an assumption, and so is what is carried over."""

NETWORK_ERROR: Final = 0.5
"""Of collectives between nodes, assumed: published two-node H100 runs range from half to all of the line rate."""

HOSTS_ERROR: Final = 0.3
"""Of collectives between GPUs on PCIe: hosts differ. Eight RTX PRO 6000 have 25, 38, 40 and 46 GB/s on four hosts
(ai-dynamo/aiconfigurator; voipmonitor/rtx6kpro), a mean of 22 % from the middle; assumed to be a little more."""

OTHER_MAKER_ERROR: Final = 0.6
"""Of every block of a card of another maker than NVIDIA, none of which was measured; assumed."""

WIDENING: Final = 3.0
"""By how much the error of a block grows that is carried over and not in `LEFT_OUT_ERRORS`; assumed, more than a
GEMM's, which doubles: 4 to 8 % on its own card, 8 to 15 % on one of another generation (docs/accuracy-tables.md)."""


def carried_error(block: str, source: HardwareProfile, target: Device) -> float | None:
    """The error of a block that is another machine's: that of a GPU left out, or its own widened."""
    if target.generation in OTHER_MAKERS:
        return OTHER_MAKER_ERROR
    own = next(iter(provenance_of(block, source).values()), None)
    known = own.residual if own is not None else None
    widened = None if known is None else min(WIDENING * known, 1.0)
    return max(LEFT_OUT_ERRORS.get(block, 0.0), widened or 0.0) or None
