"""Collectives of shipped profiles from published tables."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.calibration.collective_kinds import fit_kind
from kraken_sim.calibration.collectives import fit_all_reduce
from kraken_sim.calibration.progress import held_out_text
from kraken_sim.costs.collectives.choice import nccl_choice
from kraken_sim.costs.collectives.policy import CollectivePolicy
from kraken_sim.costs.collectives.tuning import NVLS
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.profiles.write import BlockText
from validation.public_tables import MAX_BYTES, MAX_NVLS_BYTES, collective_samples, custom_samples, nccl_samples
from validation.refit_published import PUBLISHER
from validation.refit_shipped import Shipped, provenance_of_fit, shapes_text, sources_of
from validation.refit_starts import LINKS, collectives_start

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kraken_sim.calibration.collectives import AllReduceSample
    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.hardware.interconnect import Interconnect
    from kraken_sim.profiles.profile import HardwareProfile
    from validation.public_tables import Card

CUSTOM_OF: Final = "h200-sxm-x8"
"""The profile whose custom kernels stand for those of cards without rows of them."""


def published_collectives(shipped: Shipped, card: Card, folder: Path) -> None:
    """Collectives from the tables: AllReduces of NCCL and of engines, then what other collectives differ by."""
    profile = shipped.profiles[card.machine]
    generation, gap_s = profile.device.generation, profile.launch.graph_node_gap_s
    start = collectives_start(_with_pcie_rows(shipped, profile), generation)
    start = replace(start, nccl_minor_version=int(card.nccl_versions[-1].split(".")[1]))
    samples = nccl_samples(folder, card, gap_s) + custom_samples(folder, card, gap_s)
    counts = sorted({sample.num_devices for sample in samples})
    interconnects = {(count, "p2p"): profile.topology.interconnect(count) for count in counts}
    samples += [sample for sample in _largest(folder, card, gap_s) if _runs_nvls(sample, interconnects, profile, start)]
    fit = fit_all_reduce(samples, interconnects, profile.device, start)
    kinds, constants = [], fit.constants
    others = collective_samples(folder, card)
    for kind in sorted({sample.kind for sample in others}):
        own = fit_kind([s for s in others if s.kind is kind], replace(profile, collectives=constants))
        constants = own.constants
        kinds.append(f"{100 * (own.residual or 0.0):.1f} % {kind}")
    graphs = f" and custom kernels in CUDA graphs ({', '.join(card.custom)})" if card.custom else ""
    source = (
        f"fit to {PUBLISHER} {card.name}, NCCL {' and '.join(card.nccl_versions)} AllReduce (nccl-tests){graphs}, "
        f"{_list(counts)} GPUs, 1 KiB to 256 MiB{', NVLS to 512 MiB' * bool(start.nvls_enabled)}, {shapes_text(fit)}"
        f"{held_out_text(fit)}; rates of one channel are not told apart by these rows and stay near NCCL's tuning "
        f"constants (tuning.cc); kind_factors and kind_link_correction: fit to the same publisher's AllGather, "
        f"ReduceScatter and AllToAll rows, NCCL {card.nccl_versions[-1]}, mean error on held-out shapes "
        f"{', '.join(kinds)}"
    )
    if generation == "ada":
        pcie = {name: {**getattr(constants, name), "host": getattr(constants, name)["pcie"]} for name in LINKS["ada"]}
        constants = replace(constants, **pcie)  # type: ignore[arg-type]
    rows = _own_rows(profile, ("pcie", "host"), but=generation == "ada")
    if not card.custom:
        carried = Provenance(ProvenanceKind.ASSUMED, f"custom kernels carried over from {CUSTOM_OF} (H200)")
        rows |= {name: carried for name in constants.__slots__ if name.startswith("custom_")}
    text = BlockText(constants, provenance_of_fit(source, fit), rows)
    shipped.put(card.machine, "collectives", text)


def _largest(folder: Path, card: Card, gap_s: float) -> list[AllReduceSample]:
    return nccl_samples(folder, card, gap_s, MAX_BYTES + 1, MAX_NVLS_BYTES)


def _runs_nvls(
    sample: AllReduceSample,
    interconnects: Mapping[tuple[int, str], Interconnect],
    profile: HardwareProfile,
    constants: CollectiveConstants,
) -> bool:
    """Whether NCCL picks NVLS for a measured AllReduce."""
    if sample.nccl_minor_version is not None:
        constants = replace(constants, nccl_minor_version=sample.nccl_minor_version)
    link = interconnects[sample.num_devices, sample.transport]
    return nccl_choice(sample.num_bytes, link, profile.device, constants, CollectivePolicy()).algorithm == NVLS


def _list(counts: Sequence[int]) -> str:
    return f"{', '.join(map(str, counts[:-1]))} and {counts[-1]}"


def _with_pcie_rows(shipped: Shipped, profile: HardwareProfile) -> CollectiveConstants:
    """The profile's constants with the L40S's fitted rows of PCIe, which no table of NVSwitch machines tells."""
    own, pcie = profile.collectives, shipped.profiles["l40s-x8-slow-host"].collectives
    if profile.device.generation == "ada":
        return own
    changes: dict[str, Any] = {}
    for name in LINKS["ada"]:
        row = getattr(pcie, name)["pcie"]
        host = getattr(own, name)["host"] if name == "link_efficiency" else row
        changes[name] = {**getattr(own, name), "pcie": row, "host": host}
    return replace(own, **changes)


def _own_rows(profile: HardwareProfile, links: Sequence[str], *, but: bool = False) -> dict[str, Provenance]:
    """What the profile says of rows of links that are another machine's; of `but` PCIe is its own."""
    rows = [f"{name}.{link}" for name in LINKS["ada"] for link in links if not (but and link == "pcie")]
    return {
        path: where
        for path, where in sources_of(profile, "collectives").items()
        if any(path.startswith(f"{row}.") for row in rows)
    }
