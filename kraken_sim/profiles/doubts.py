"""What is doubtful about a machine that can be simulated: rates and links that its maker does not sell."""

from __future__ import annotations

from collections import defaultdict
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from kraken_sim.errors import Problem
from kraken_sim.hardware.device import OTHER_MAKERS
from kraken_sim.hardware.topology.graph import LinkKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kraken_sim.hardware.device import Device
    from kraken_sim.hardware.topology.topology import Topology

MOST_NVLINK_BYTES_PER_S: Final[Mapping[str, float]] = MappingProxyType(
    {"volta": 150e9, "turing": 0.0, "ampere": 300e9, "ada": 0.0, "hopper": 450e9, "blackwell": 900e9}
)
"""NVLink of a GPU in one direction, the most that a data-centre chip of a generation has (datasheet: V100 6 links of 25
GB/s, A100 12, H100 18, B200 18 of 50)."""

MOST_NVLINK_OF_GRAPHICS: Final[Mapping[str, float]] = MappingProxyType({"turing": 50e9, "ampere": 56.25e9})
"""The same of graphics chips, a bridge to one other card (datasheet: Quadro RTX 8000, RTX A6000); others have none."""

_ROUNDING: Final = 1.01
"""By how much a sum may exceed that; a limit of ours: datasheets round."""


def unsold_links(device: Device, topology: Topology) -> Iterator[Problem]:
    """NVLink that no card of the device's generation has, each entry of the file once."""
    if device.generation in OTHER_MAKERS:
        return
    graphics = device.is_graphics_chip
    table = MOST_NVLINK_OF_GRAPHICS if graphics else MOST_NVLINK_BYTES_PER_S
    most = table.get(device.generation, 0.0)
    totals: dict[str, float] = defaultdict(float)
    entries: dict[str, str] = {}
    for link in topology.links:
        if link.kind is LinkKind.NVLINK:
            for end in (link.a, link.b):
                totals[end] += link.total_bytes_per_s
                entries.setdefault(end, link.entry)
    above = {entries[gpu]: totals[gpu] for gpu in topology.gpus if totals[gpu] > _ROUNDING * most}
    chips = f"{'graphics chips' if graphics else 'GPUs'} of {device.generation}"
    for entry, total in above.items():
        if most == 0.0:
            message = f"{chips} have no NVLink; such cards are joined by PCIe"
            example = "{from: gpu*, to: host*, match: blocks, kind: pcie, gen: 5}"
        else:
            message = (
                f"{chips} have at most {most / 1e9:g} GB/s of NVLink in one direction, all of a GPU's links together"
            )
            example = "count: 18, bandwidth: 25 GB/s, of which bandwidth is one link's in one direction"
        yield Problem(entry or "topology.links", message, f"{total / 1e9:g} GB/s", example)
