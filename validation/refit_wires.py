"""Rows of wires that no record of a machine tells, made from those that are known. Kind: assumed.

A collective's kernel starts alike over any wire of a card, so no row starts or steps sooner than the card's own NVLink.
PCIe and host memory are otherwise as in the L40S profile, whose rows `host_links` makes: from the published table of a
box with L40S where that is as on other boxes, from two H200, the one machine where both NVLink and host memory were
measured, and from what NCCL itself counts. LL128 does not run over host memory here; its row keeps what it has.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.profiles.write import BlockText
from validation.refit_shipped import said

if TYPE_CHECKING:
    from collections.abc import Mapping

    from validation.refit_shipped import Shipped

Row = dict[str, float]

PCIE_SHARE: Final = 24.0 / 31.5
"""Of PCIe's line rate, with Simple and peer-to-peer access: 24 GB/s of 16 lanes of the fourth generation and twice that
of the fifth are what NCCL counts (kvDictPciGen of its src/graph/topo.cc)."""

PAIR_LOSS: Final = 0.163
"""What a ring of two loses over PCIe; fitted: 20.1 GB/s between two L40S from 16 to 512 MiB (ai-dynamo/aiconfigurator,
NCCL 2.27.3), of 24."""

SCATTER_PAIR_LOSS: Final = 1.41
"""Factor on it of a ReduceScatter; fitted: 18.8 GB/s in the same table."""

HOST_SHARE: Final = 0.55
"""Of PCIe's line rate, with Simple, where every GPU writes to host memory and reads from it at once; measured: 29.0
GB/s of 63 between two H200 (h200-sxm-x2-microbench.jsonl, p2p-off, 100 to 256 MiB), and what a ring of two loses."""

HOST_LL_BASE_S, HOST_LL_STEP_S = 2.95e-6, 1.33e-6
"""Start-up and step of LL through host memory; fitted to four and eight L40S at 512 B to 2 KiB (the same table), where
bytes count for nothing; 2 and 12 % short at 4 KiB, which the fit did not see."""

HOSTS_ERROR: Final = 0.3
"""Mean error of collectives on a PCIe box whose host nobody measured: eight RTX PRO 6000 have 25, 38, 40 and 46 GB/s on
four hosts (ai-dynamo/aiconfigurator; voipmonitor/rtx6kpro)."""

RULE: Final = (
    "PCIe and host memory by rule, for any host: 24 of 31.5 GB/s by NCCL's count (src/graph/topo.cc), 0.55 of the "
    "line through host memory, from two H200, a ring of two from two L40S; the rest fitted in l40s-x8-slow-host, whose "
    "small messages and pairs are those of other boxes; residual: one card has 25 to 46 GB/s on four hosts"
)


BY_RULE: Final = {
    "link_efficiency.pcie.simple": Provenance(
        ProvenanceKind.ASSUMED, "24 of 31.5 GB/s, what NCCL counts (kvDictPciGen of src/graph/topo.cc)"
    ),
    "link_efficiency.host.simple": Provenance(
        ProvenanceKind.MEASURED,
        "29.0 of 63 GB/s between two H200 (h200-sxm-x2-microbench.jsonl, p2p-off), and what a ring of two loses",
    ),
    "step_s.host.simple": Provenance(ProvenanceKind.ASSUMED, "as the pcie row"),
    "channel_bytes_per_s.host.simple": Provenance(ProvenanceKind.ASSUMED, "as over PCIe with peer-to-peer access"),
}
"""Where the rows that `host_links` makes are from."""

NO_LL128: Final = Provenance(ProvenanceKind.ASSUMED, "as the pcie row; LL128 does not run here")
"""Of a protocol that NCCL has over NVLink only."""


def host_links(shipped: Shipped, name: str, box: str, host: str) -> None:
    """The collectives of a card's profile for hosts as they usually are, from the fit to one box.

    Args:
        shipped: the profiles.
        name: the profile.
        box: the profile of the box with such cards that was measured, whose host is slow.
        host: the profile whose host memory was measured beside its NVLink.
    """
    fit, pair = shipped.profiles[box].collectives, shipped.profiles[host].collectives
    pcie = {field: dict(getattr(fit, field)["pcie"]) for field in _FIELDS}
    rows = {field: {**row, **_pick(getattr(pair, field)["host"])} for field, row in pcie.items()}
    added = pair.base_s["host"]["simple"] - pair.base_s["nvlink"]["simple"]
    rows["base_s"] = {**pcie["base_s"], "ll": HOST_LL_BASE_S, "simple": pcie["base_s"]["simple"] + added}
    rows["step_s"] = {**pcie["step_s"], "ll": HOST_LL_STEP_S}
    rows["channel_bytes_per_s"]["simple"] = pcie["channel_bytes_per_s"]["simple"]
    rows["link_efficiency"]["simple"], pcie["link_efficiency"]["simple"] = HOST_SHARE, PCIE_SHARE
    changes: dict[str, Any] = {
        field: {**getattr(fit, field), "pcie": pcie[field], "host": rows[field]} for field in _FIELDS
    }
    scatter = fit.kind_factors["reduce_scatter"]
    scatter = {**scatter, "simple": {**scatter["simple"], "pair_loss": SCATTER_PAIR_LOSS}}
    changes["kind_factors"] = {**fit.kind_factors, "reduce_scatter": scatter}
    changes["ring_pair_loss"] = {**fit.ring_pair_loss, "simple": PAIR_LOSS}
    changes["shared_fabric_links"] = {}
    where = Provenance(ProvenanceKind.FITTED, RULE, HOSTS_ERROR)
    overrides = {path: record for path, record in _overrides(shipped, box).items() if ".host." not in f".{path}."}
    overrides |= {f"{field}.host.ll128": NO_LL128 for field in _FIELDS} | BY_RULE
    shipped.put(name, "collectives", BlockText(replace(fit, **changes), where, overrides))


def unmeasured_wires(shipped: Shipped, name: str, pcie: str, host: str) -> None:
    """The assumed rows of a profile's collectives, after those that were fitted.

    Args:
        shipped: the profiles.
        name: the profile.
        pcie: the profile with the rows of PCIe and of host memory.
        host: the profile whose host memory was measured beside its NVLink.
    """
    own, box, pair = (shipped.profiles[profile].collectives for profile in (name, pcie, host))
    changes: dict[str, Any] = {"shared_fabric_links": {}}
    for field in _FIELDS:
        table, start = getattr(own, field), field in ("base_s", "step_s")
        nvlink, wires = table["nvlink"], getattr(box, field)["pcie"]
        changes[field] = {**table, "pcie": _no_sooner(wires, nvlink) if start else dict(wires)}
        if name != host:
            row = _added(nvlink, getattr(pair, field)) if field == "base_s" else _pick(getattr(pair, field)["host"])
            row = _no_sooner(row, nvlink) if start else _pick(getattr(box, field)["host"])
            changes[field]["host"] = {**table["host"], **row}
    where = said(shipped.profiles[name], "collectives")
    shipped.put(name, "collectives", BlockText(replace(own, **changes), where, _overrides(shipped, name)))


def wires_of_box(shipped: Shipped, name: str) -> None:
    """The row of NVLink of a box that has none, as its PCIe: a placeholder for what-ifs."""
    own = shipped.profiles[name].collectives
    changed = replace(own, base_s={**own.base_s, "nvlink": dict(own.base_s["pcie"])})
    where = said(shipped.profiles[name], "collectives")
    shipped.put(name, "collectives", BlockText(changed, where, _overrides(shipped, name)))


def _overrides(shipped: Shipped, name: str) -> dict[str, Provenance]:
    """What a profile's collectives say of single numbers."""
    where = said(shipped.profiles[name], "collectives")
    return {
        path.removeprefix("collectives."): record
        for path, record in shipped.profiles[name].provenance.items()
        if path.startswith("collectives.") and record != where
    }


def _no_sooner(row: Mapping[str, float], nvlink: Mapping[str, float]) -> Row:
    return {protocol: max(value, nvlink.get(protocol, value)) for protocol, value in row.items()}


def _added(nvlink: Mapping[str, float], pair: Mapping[str, Mapping[str, float]]) -> Row:
    """A start over NVLink and what host memory adds to it on the machine where both were measured."""
    return {protocol: nvlink[protocol] + pair["host"][protocol] - pair["nvlink"][protocol] for protocol in _MEASURED}


def _pick(row: Mapping[str, float]) -> Row:
    return {protocol: row[protocol] for protocol in _MEASURED}


_FIELDS: Final = ("base_s", "step_s", "channel_bytes_per_s", "link_efficiency")
"""The fields with a row for each kind of link; names of `CollectiveConstants`."""

_MEASURED: Final = ("ll", "simple")
"""Protocols that run over host memory; a definition of NCCL's (LL128 needs NVLink)."""
