"""What a kernel set can do on a machine: which AllReduces take in the norm behind them, and why none can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.costs.collectives.norm_fusion import norm_fusion, takes_norm
from kraken_sim.costs.collectives.policy import Transport
from kraken_sim.costs.links.sharing import interconnect_of
from kraken_sim.errors import InputError, Problem
from kraken_sim.program.kernel_sets import RULES, KernelSet
from kraken_sim.program.ops import CollectiveKind, DType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kraken_sim.hardware.interconnect import Interconnect
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.scenario.resolve import ResolvedModel
    from kraken_sim.scenario.spec import Scenario

KERNELS_PATH = "runtime.kernels"


def all_reduce_norm_bytes(
    scenario: Scenario, resolved: ResolvedModel, profile: HardwareProfile
) -> tuple[tuple[int, int], ...]:
    """By the number of devices that sum a block's output, the largest AllReduce that takes in the norm behind it.

    Args:
        scenario: the question.
        resolved: its shapes.
        profile: its machine, placed.

    Returns:
        Nothing where the kernel set has no such kernel, one device sums alone, or an engine has none for so many.

    Raises:
        InputError: the set has it, and the card, its links, the model or the number format cannot run it.
    """
    layout = resolved.layout
    groups = {size for size in (layout.num_devices, layout.group) if size > 1}
    if not groups or not RULES[scenario.runtime.kernels].all_reduce_norm:
        return ()
    p2p = scenario.runtime.collective.transport is not Transport.SHM
    topology = profile.topology
    over = {size: interconnect_of(topology, topology.group(size), CollectiveKind.ALL_REDUCE, p2p) for size in groups}
    if problems := list(_problems(scenario, resolved, profile, over)):
        raise InputError(problems)
    fusion = norm_fusion(scenario.runtime.collective.selection, profile.device)
    limits = {} if fusion is None else fusion.most_bytes
    runs = [size for size in sorted(groups) if size in limits and takes_norm(over[size], profile.collectives)]
    return tuple((size, limits[size]) for size in runs)


def _problems(
    scenario: Scenario, resolved: ResolvedModel, profile: HardwareProfile, over: dict[int, Interconnect]
) -> Iterator[Problem]:
    device, kernels = profile.device, scenario.runtime.kernels
    nearest = f"kernels: {KernelSet.SERVING.value}"

    def problem(why: str) -> Problem:
        message = f"{why}; {KernelSet.SERVING.value} has the same kernels with the AllReduce and the norm apart"
        return Problem(KERNELS_PATH, message, kernels.value, nearest)

    if norm_fusion(scenario.runtime.collective.selection, device) is None:
        yield problem(
            f"engines have an AllReduce that takes in a norm from Hopper on, and {device.name} is {device.generation}"
        )
    elif not any(takes_norm(interconnect, profile.collectives) for interconnect in over.values()):
        kinds = ", ".join(sorted({interconnect.kind.value for interconnect in over.values()}))
        why = f"needs NVLink and a custom AllReduce (collectives.custom_base_s); these devices have {kinds}"
        yield problem(f"an AllReduce that takes in a norm {why}")
    if resolved.config.norm_function != "rms_norm":
        yield problem("engines have an AllReduce that takes in an RMSNorm only, and this model has LayerNorms")
    if scenario.dtype is DType.FLOAT32:
        yield problem("an AllReduce that takes in a norm has 16 bits, not 32")
