"""NCCL's view of a group of GPUs: how many channels it builds and at what speed each.

Source: NVIDIA/nccl src/graph/search.cc, connect.cc, topo.h. Bandwidths are GB/s = 1e9 bytes/s, as there.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from kraken_sim.hardware.interconnect import InterconnectKind
from kraken_sim.hardware.topology.graph import HostCpu

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.hardware.device import Device
    from kraken_sim.hardware.interconnect import Interconnect

SPEEDS_BEFORE_HOPPER = (40.0, 30.0, 20.0, 18.0, 15.0, 12.0, 10.0, 9.0, 7.0, 6.0, 5.0, 4.0, 3.0)
"""Speeds of a channel that the search tries, descending, GB/s: speedArrayIntra of NCCL's src/graph/search.cc."""

SPEEDS_HOPPER = (60.0, 50.0, 40.0, 30.0, 24.0, 20.0, 15.0, 12.0, 11.0, 6.0, 3.0)
"""The same from compute capability 9.0 on: sm90SpeedArrayIntra of NCCL's src/graph/search.cc."""

SPEEDS_BLACKWELL = (90.0, 80.0, 70.0, 60.0, 50.0, 45.0, 40.0, 30.0, 24.0, 20.0, 19.0, 18.0)
"""The same from compute capability 10.0 on: sm100SpeedArrayIntra of NCCL's src/graph/search.cc, 2.29; 45 is new
there."""

NVLINK_SHARE: Mapping[str, float] = {
    "volta": 20.0 / 25.0,
    "ampere": 20.0 / 25.0,
    "ada": 20.0 / 25.0,
    "hopper": 20.6 / 25.0,
    "blackwell": 40.1 / 50.0,
}
"""What SM-driven 128-byte payloads reach over an NVLink's line rate: the bandwidth of NCCL's src/graph/topo.h over that
of the datasheet, GB/s. Ada has no NVLink; its value is assumed."""

NVLINK_SHARE_HOPPER_BEFORE_2_20 = 20.0 / 25.0
"""The same of Hopper up to NCCL 2.19 (src/graph/topo.h)."""

NVLINK_SHARE_OTHER = 0.8
"""The same of a generation that the table lacks; assumed, as of Volta and Ampere."""

PCIE_X16_GBPS: Mapping[int, float] = {3: 12.0, 4: 24.0, 5: 48.0, 6: 96.0}
"""What NCCL counts for 16 lanes, by PCIe generation: 16 x speed / 80 of its src/graph/topo.cc (kvDictPciGen), GB/s."""

PCIE_X16_LINE_GBPS: Mapping[int, float] = {3: 15.75, 4: 31.5, 5: 63.0, 6: 126.0}
"""Line rate of 16 lanes in one direction after 128b/130b coding, GB/s (PCI Express Base Specification); generation 6
taken as twice the fifth."""

PCIE_SHARE_OTHER = 0.76
"""NCCL's count over the line rate where the generation is unknown; assumed, as of generations 3 to 5."""

SOCKET_GBPS: Mapping[HostCpu, float] = {
    HostCpu.AMD: 16.0,
    HostCpu.BROADWELL: 6.0,
    HostCpu.SKYLAKE: 10.0,
    HostCpu.SAPPHIRE_RAPIDS: 22.0,
    HostCpu.EMERALD_RAPIDS: 40.0,
    HostCpu.ARM: 6.0,
}
"""What NCCL counts between sockets, whatever the real links carry, GB/s: AMD_BW, BDW_QPI_BW, SKL_QPI_BW, SRP_QPI_BW,
ERP_QPI_BW and ARM_BW of its src/graph/topo.h."""

INTEL_BRIDGE_SHARE = 5.0 / 6.0
"""What NCCL counts of PCIe from GPU to GPU of one socket on Intel's CPUs: 1 / INTEL_P2P_OVERHEAD of its
src/graph/topo.h, used in followPath of src/graph/search.cc, through host memory too."""

FALLBACK_GBPS = 0.1
"""What NCCL counts where its search finds no ring, as between sockets on AMD hosts, whose 16 GB/s are less than the
lowest speed that it tries on Blackwell: bwIntra of the simple order in ncclTopoCompute (src/graph/search.cc)."""

FULL_WIDTH = 0.95
"""Share of 16 lanes from which a link counts as that wide; assumed, so that a line rate rounded in a file changes
nothing."""

MAX_CHANNELS, MAX_CHANNELS_2_24 = 64, 32
"""Most channels of a communicator, and of a graph half of them: MAXCHANNELS of src/include/device.h from NCCL 2.25 on,
and before (used in ncclTopoPostset of src/graph/connect.cc and in src/init.cc)."""

LOWER_SPEED_LIMIT = 0.49
"""The search goes on to a lower speed while it is above this share of the one found (ncclTopoCompute of NCCL's
src/graph/search.cc)."""

DUPLICATE_FROM_GBPS = 25.0
"""Speed from which every channel is made two of half the speed (ncclTopoDupChannels of NCCL's src/graph/search.cc)."""

SPARED_ABOVE_CAPABILITY, SPARED_ABOVE_CHANNELS, SPARED_BELOW_GBPS = 80, 4, 50.0
"""Graphs that are not doubled after all: those of later GPUs with more channels and less speed than these, GB/s
(ncclTopoDupChannels of NCCL's src/graph/search.cc)."""

HOPPER_COMPUTE_CAPABILITY = 90
"""Compute capability times ten, as NCCL writes it (CUDA C++ Programming Guide)."""

COMPUTE_CAPABILITY: Mapping[str, int] = {"volta": 70, "ampere": 80, "ada": 89, "hopper": 90, "blackwell": 100}
"""Compute capability times ten by generation (CUDA C++ Programming Guide); Blackwell's is that of data-centre cards."""

OTHER_CAPABILITY = 80
"""Of a generation that the table lacks; assumed, as Ampere's."""

MAX_NVLS_CHANNELS: Mapping[int, int] = {90: 16, 100: 24}
"""CTAs of an NVLS kernel by compute capability: NVLS_NCHANNELS_SM90 and NVLS_NCHANNELS_SM100_NVL of NCCL's
src/transport/nvls.cc (2.27; 32 on Blackwell before)."""

MAX_NVLS_CHANNELS_SEVERAL_NODES: Mapping[int, int] = {90: 16, 100: 32}
"""The same over several nodes: NVLS_NCHANNELS_SM90 and NVLS_NCHANNELS_SM100 there."""

OTHER_NVLS_CHANNELS = 16
"""Of capabilities that the table lacks, as Hopper's: NCCL's src/transport/nvls.cc, which knows no others."""

ROUNDING = 1e-9
"""Relative rounding error of counts and speeds; a limit of ours."""


@dataclass(frozen=True, slots=True)
class NcclGraph:
    """The rings that NCCL finds: `channels` of `bandwidth_gbps` each, run by `ctas` CTAs."""

    channels: int
    bandwidth_gbps: float
    ctas: int
    nvlink: bool
    compute_capability: int

    @property
    def bus_gbps(self) -> float:
        """All channels together."""
        return self.channels * self.bandwidth_gbps


def nccl_link_gbps(interconnect: Interconnect, device: Device, nccl_minor_version: int) -> float:
    """The bandwidth that NCCL's topology assigns to a GPU, from the line rate of the group's slowest hop."""
    line = interconnect.bandwidth_bytes_per_s * 1e-9
    if interconnect.kind in (InterconnectKind.NVSWITCH, InterconnectKind.NVLINK):
        share = NVLINK_SHARE.get(device.generation, NVLINK_SHARE_OTHER)
        if device.generation == "hopper" and nccl_minor_version < 20:
            share = NVLINK_SHARE_HOPPER_BEFORE_2_20
        return line * share
    if interconnect.pcie_gen in PCIE_X16_GBPS:
        width = line / PCIE_X16_LINE_GBPS[interconnect.pcie_gen]
        counted = PCIE_X16_GBPS[interconnect.pcie_gen] * (1.0 if width >= FULL_WIDTH else width)
    else:
        counted = line * PCIE_SHARE_OTHER
    cpu = interconnect.cpu
    if cpu is None:
        return counted
    if interconnect.crosses_sockets:
        return min(counted, SOCKET_GBPS[cpu])
    intel = cpu not in (HostCpu.AMD, HostCpu.ARM)
    return counted * INTEL_BRIDGE_SHARE if intel and interconnect.kind is InterconnectKind.HOST else counted


def _speeds(compute_capability: int) -> tuple[float, ...]:
    if compute_capability >= 100:
        return SPEEDS_BLACKWELL
    return SPEEDS_HOPPER if compute_capability >= HOPPER_COMPUTE_CAPABILITY else SPEEDS_BEFORE_HOPPER


def max_channels(nccl_minor_version: int) -> int:
    """Channels that no communicator exceeds, however fast its links."""
    return MAX_CHANNELS if nccl_minor_version >= 25 else MAX_CHANNELS_2_24


def _best_channels(total: float, speeds: tuple[float, ...], most: int) -> tuple[int, float]:
    """The first speed with the most bandwidth, looking no lower than half the first speed that fits."""
    best, best_speed = 0, 0.0
    for speed in speeds:
        count = min(int(total / speed + ROUNDING), most)
        if count == 0:
            continue
        if best and speed < LOWER_SPEED_LIMIT * best_speed:
            break
        if count * speed > best * best_speed + ROUNDING:
            best, best_speed = count, speed
    return (best, best_speed) if best else (1, FALLBACK_GBPS)


def search_rings(interconnect: Interconnect, device: Device, nccl_minor_version: int) -> NcclGraph:
    """Ring search, channel duplication, and a second search for more speed (ncclTopoCompute of src/graph/search.cc).

    Reproduces A100 NVSwitch 12 x 20, H100 12 x 30, each run by 24 CTAs (logs of NCCL on these machines). The second
    search finds something only where the most channels are reached, on links faster than any today.
    """
    capability = COMPUTE_CAPABILITY.get(device.generation, OTHER_CAPABILITY)
    total, speeds = nccl_link_gbps(interconnect, device, nccl_minor_version), _speeds(capability)
    most = max_channels(nccl_minor_version) // 2
    channels, speed = _best_channels(total, speeds, most)
    later = capability > SPARED_ABOVE_CAPABILITY
    spared = later and speed < SPARED_BELOW_GBPS and channels > SPARED_ABOVE_CHANNELS
    if speed >= DUPLICATE_FROM_GBPS and not spared:
        doubled = min(2 * channels, most)
        channels, speed = doubled, speed / ceil(doubled / channels)
    speed = max(speed, next((faster for faster in speeds if channels * faster <= total + ROUNDING), speed))
    nvlink = interconnect.kind in (InterconnectKind.NVSWITCH, InterconnectKind.NVLINK)
    return NcclGraph(channels, speed, min(2 * channels, 2 * most), nvlink, capability)


def nvls_channel_gbps(interconnect: Interconnect, device: Device, nccl_minor_version: int) -> float:
    """Speed of one NVLS channel; a group of n GPUs has n of them and each GPU moves (n+1)/n of the bytes.

    60, 50 and 40 GB/s for 4, 6 and 8 H100 (logs).
    """
    total = nccl_link_gbps(interconnect, device, nccl_minor_version)
    limit = total / (interconnect.num_devices + 1)
    capability = COMPUTE_CAPABILITY.get(device.generation, OTHER_CAPABILITY)
    return next((speed for speed in _speeds(capability) if speed <= limit + ROUNDING), limit)


def nvls_switch_gbps(device: Device) -> float:
    """Most that NCCL's search lets one NVLS channel have, whatever the number of GPUs."""
    return _speeds(COMPUTE_CAPABILITY.get(device.generation, OTHER_CAPABILITY))[0]


def nvls_ctas(device: Device, *, several_nodes: bool = False) -> int:
    """CTAs of an NVLS kernel within one node, or of NVLSTree's over several."""
    capability = COMPUTE_CAPABILITY.get(device.generation, OTHER_CAPABILITY)
    counts = MAX_NVLS_CHANNELS_SEVERAL_NODES if several_nodes else MAX_NVLS_CHANNELS
    return counts.get(capability, OTHER_NVLS_CHANNELS)
