"""How far off constants are that are carried over to a GPU that they were not fitted to."""

from __future__ import annotations

from math import hypot
from typing import TYPE_CHECKING, Final

from kraken_sim.hardware.device import OTHER_MAKERS
from kraken_sim.profiles.held_rate import near, share_doubt
from kraken_sim.profiles.profile import provenance_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.hardware.device import Device
    from kraken_sim.profiles.profile import HardwareProfile

LEFT_OUT_ERRORS: Final[Mapping[str, float]] = {
    "gemm": 0.13,
    "gemm_fp8": 0.13,
    "gemm_fp8_rows": 0.13,
    "gemm_fp8_block": 0.35,
    "gemm_nvfp4": 0.32,
    "attention": 0.17,
    "serving_attention": 0.28,
    "attention_float8": 0.5,
    "memory_bound": 0.25,
    "collectives": 0.3,
}
"""Mean relative error of a block on a GPU of another generation than the one it was fitted to. Measured, each of A100,
H100, H200, L40S and B200 left out in turn (docs/accuracy-tables.md): GEMM 10 to 13 % in bf16 and fp8; attention of
serving engines 10 to 15 % in prefill and 21 to 41 % in decode, of which the mean is stated; of bare attention 9 to 16 %
(FlashAttention on A100 and H100, each from the other and from cuDNN on H200), a little more is stated; fp8_block: H200,
H100, L40S and B200 (19 to 28 %, unevenly: what is stated is that whose 90 % intervals hold 86 to 93 % of the shapes);
nvfp4: the fp8 of H200 on B200 (32 %); attention_float8: that of H200 on B200 and L40S (40 and 51 %); collectives: the
fits of A100, H100 and L40S carried over to each other. Memory-bound kernels: assumed. Of near relatives the errors are
less (`NEAR_WIDENING`)."""

CARRIED_FROM: Final = "carried over from"
"""What the source of a block begins with that is another machine's; a wording of ours."""

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


NEAR_WIDENING: Final = 2.0
"""The same of products and attention between near relatives (`held_rate.near`): one chip with other memory, links or a
higher limit; assumed, as those of H100 are stated that are H200's. Left out for each other, these two are 3.5 to 5 %
off, their own fits 2.7 to 4."""

NEAR_ERROR: Final = 0.1
"""The least of these errors; assumed."""

COMMON_WEIGHT: Final = 1.5
"""What an error counts that all products of a step have in common, the clock that the card holds, beside one that each
has of its own: an interval takes errors for a tenth common, which leaves two thirds of them over the four products of a
layer; assumed of all steps."""

_KINDS: Final = "memory_bound.kernels."

_OF_TENSOR_CORES: Final = ("gemm", "attention", "serving_attention")


def carried_error(block: str, source: HardwareProfile, target: Device) -> float | None:
    """The error of a block that is another machine's: that of a GPU left out, or its own widened.

    A block is as uncertain as the least certain of its numbers, the kinds of small kernels apart, of which the worst is
    what a compiler makes anew in every process. What `source` has carried over itself is no less
    certain on a near relative of it, and where the error of carrying over was measured, no less on any other card: the
    rules go by datasheets, of which those in between drop out. What the target's watts buy (`held_rate`) is added in
    quadrature for products.
    """
    error = _without_watts(block, source, target)
    if error is None or not block.startswith("gemm") or target.generation in OTHER_MAKERS:
        return error
    gemm = source.gemm
    doubt = share_doubt(gemm.mma_efficiency * (1.0 - gemm.throttle_depth), source.device, target)
    return hypot(error, COMMON_WEIGHT * doubt)


def _without_watts(block: str, source: HardwareProfile, target: Device) -> float | None:
    if target.generation in OTHER_MAKERS:
        return OTHER_MAKER_ERROR
    numbers = provenance_of(block, source)
    common = {path: where for path, where in numbers.items() if not path.startswith(_KINDS)}
    stated = [where for where in (common or numbers).values() if where.residual is not None]
    if not stated:
        return LEFT_OUT_ERRORS.get(block)
    own = max(stated, key=lambda where: where.residual or 0.0)
    known, carried = own.residual or 0.0, own.source.startswith(CARRIED_FROM)
    if carried and block in LEFT_OUT_ERRORS:
        return max(LEFT_OUT_ERRORS[block], known)
    if near(source.device, target):
        if carried:
            return known
        if block.startswith(_OF_TENSOR_CORES):
            return min(max(NEAR_WIDENING * known, NEAR_ERROR), 1.0)
    return max(LEFT_OUT_ERRORS.get(block, 0.0), min(WIDENING * known, 1.0))
