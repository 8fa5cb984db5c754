"""AllReduce kernels over peer pointers, as serving engines ship them.

Each kernel is start-up and barriers plus peer traffic over what CTAs and links carry. Kernel names carry the
implementation the constants were fitted to: `one_shot_vllm` is the one-stage kernel of vLLM and SGLang,
`one_shot_tensorrt_llm` that of TensorRT-LLM.
"""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.constants import interpolate_knots
from kraken_sim.costs.collectives.nccl import extra_flight_s, line_rate_bytes_per_s, soft_min
from kraken_sim.costs.types import CollectiveCost
from kraken_sim.hardware.interconnect import InterconnectKind

if TYPE_CHECKING:
    from kraken_sim.costs.collectives.call import CollectiveCall
    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.hardware.interconnect import Interconnect

ONE_SHOT, TWO_SHOT, MULTIMEM = "one_shot", "two_shot", "multimem"
BYTES_PER_CTA = 16 * 512
"""Each of 512 threads moves 16 bytes at a time (vLLM csrc/custom_all_reduce.cuh; TensorRT-LLM
customAllReduceKernels.cu)."""


def one_shot_all_reduce(
    num_bytes: int, kernel: str, interconnect: Interconnect, constants: CollectiveConstants
) -> CollectiveCost:
    """Every GPU reads all peers' buffers: (n-1) messages over its links, one barrier."""
    n = interconnect.num_devices
    return _cost(num_bytes, ONE_SHOT, kernel, (n - 1.0) * num_bytes, float(n) * num_bytes, interconnect, constants)


def two_shot_all_reduce(
    num_bytes: int, kernel: str, interconnect: Interconnect, constants: CollectiveConstants
) -> CollectiveCost:
    """Reduce-scatter by reading, then all-gather: 2(n-1)/n of the bytes, two barriers.

    HBM traffic ~ the buffer read and written, the gathered parts and the own share once more.
    """
    n = interconnect.num_devices
    sent = 2.0 * (n - 1) / n * num_bytes
    return _cost(num_bytes, TWO_SHOT, kernel, sent, 3.0 * num_bytes, interconnect, constants)


def multimem_all_reduce(
    num_bytes: int, kernel: str, interconnect: Interconnect, constants: CollectiveConstants
) -> CollectiveCost:
    """multimem.ld_reduce, multimem.st: the switch adds and multicasts, (n+1)/n of the bytes leave a GPU."""
    n = interconnect.num_devices
    sent = (n + 1.0) / n * num_bytes
    return _cost(num_bytes, MULTIMEM, kernel, sent, 2.0 * num_bytes, interconnect, constants)


def custom_all_reduce(
    num_bytes: int, kernel: str, interconnect: Interconnect, constants: CollectiveConstants
) -> CollectiveCost:
    """The kernel of that name, such as `two_shot_vllm`; it must be in the constants."""
    if kernel.startswith(ONE_SHOT):
        return one_shot_all_reduce(num_bytes, kernel, interconnect, constants)
    if kernel.startswith(TWO_SHOT):
        return two_shot_all_reduce(num_bytes, kernel, interconnect, constants)
    return multimem_all_reduce(num_bytes, kernel, interconnect, constants)


def usable_kernels(interconnect: Interconnect, constants: CollectiveConstants) -> list[str]:
    """Custom kernels that can run on this interconnect."""
    kind, n = interconnect.kind, interconnect.num_devices
    nvlink = kind in (InterconnectKind.NVSWITCH, InterconnectKind.NVLINK)
    if not nvlink and not (kind is InterconnectKind.PCIE and n == 2):
        return []
    multicast = kind is InterconnectKind.NVSWITCH and bool(constants.nvls_enabled) and n > 2
    return [name for name in constants.custom_base_s if multicast or not name.startswith(MULTIMEM)]


def kernels_of(algorithm: str, call: CollectiveCall) -> list[str]:
    """The implementations to choose from: the call's family's, or any other where it has none; all without a family."""
    usable = [name for name in usable_kernels(call.interconnect, call.constants) if name.startswith(algorithm)]
    if not call.family:
        return usable
    preferred = f"{algorithm}_{call.family}"
    return [preferred] if preferred in usable else usable[:1]


def one_shot_cost(call: CollectiveCall) -> CollectiveCost:
    """The fastest of its implementations, or the family's; see `one_shot_all_reduce`."""
    return _fastest(ONE_SHOT, call)


def two_shot_cost(call: CollectiveCall) -> CollectiveCost:
    """The fastest of its implementations, or the family's; see `two_shot_all_reduce`."""
    return _fastest(TWO_SHOT, call)


def multimem_cost(call: CollectiveCall) -> CollectiveCost:
    """The fastest of its implementations, or the family's; see `multimem_all_reduce`."""
    return _fastest(MULTIMEM, call)


def _fastest(algorithm: str, call: CollectiveCall) -> CollectiveCost:
    costs = [
        custom_all_reduce(call.num_bytes, kernel, call.interconnect, call.constants)
        for kernel in kernels_of(algorithm, call)
    ]
    return min(costs, key=lambda cost: cost.busy_s)


def one_shot_problem(call: CollectiveCall) -> str | None:
    """The kernel reads its peers' memory."""
    return _peer_problem(ONE_SHOT, call)


def two_shot_problem(call: CollectiveCall) -> str | None:
    """The kernel reads and writes its peers' memory."""
    return _peer_problem(TWO_SHOT, call)


def _peer_problem(algorithm: str, call: CollectiveCall) -> str | None:
    if not usable_kernels(call.interconnect, call.constants):
        return "custom kernels need peer access: NVLink, or two GPUs on PCIe"
    return None if kernels_of(algorithm, call) else "the profile has no such kernel (collectives.custom_base_s)"


def multimem_problem(call: CollectiveCall) -> str | None:
    """The switch adds."""
    found = kernels_of(MULTIMEM, call)
    return None if found else "multimem needs NVSwitch with multicast (nvls_enabled) and at least 3 GPUs"


def _cost(
    num_bytes: int,
    algorithm: str,
    kernel: str,
    sent_bytes: float,
    hbm_bytes: float,
    interconnect: Interconnect,
    constants: CollectiveConstants,
) -> CollectiveCost:
    most = int(constants.custom_ctas[kernel])
    ctas = min(most, -(-num_bytes // BYTES_PER_CTA))
    n = interconnect.num_devices
    # With one stage every CTA reads; with two each GPU owns 1/n of the message, and so do its CTAs.
    owned = num_bytes if algorithm == ONE_SHOT else num_bytes / n
    flowing = max(1.0, min(float(most), owned / BYTES_PER_CTA))
    line = line_rate_bytes_per_s(interconnect, constants)
    link = line * constants.custom_link_efficiency[kernel]
    knots = constants.custom_link_correction.get(kernel)
    if knots:
        link /= interpolate_knots(knots, log2(num_bytes))
    rate = soft_min(flowing * constants.custom_cta_bytes_per_s[kernel], link)
    flight = extra_flight_s(interconnect, constants) * (1 if algorithm == ONE_SHOT else 2)
    latency_s = constants.custom_base_s[kernel] + (n - 2) * constants.custom_peer_s[kernel] + flight
    transfer_s = sent_bytes / rate
    return CollectiveCost(
        busy_s=latency_s + transfer_s,
        latency_s=latency_s,
        transfer_s=transfer_s,
        algorithm=algorithm,
        protocol="direct",
        channels=ctas,
        hbm_bytes=hbm_bytes,
        link_bytes=sent_bytes,
        detail=f"{kernel}, {ctas} CTAs",
        line_bytes_per_s=line * rate / link,
        kernel=kernel,
    )
