"""Rows of wires that no record of a machine tells, made from those that are known. Kind: assumed.

A collective's kernel starts alike over any wire of a card, so no row starts or steps sooner than the card's own NVLink.
PCIe is otherwise as in the fit to the one box without NVLink, host memory as in the fit to two H200, the one machine
where both NVLink and host memory were measured: it adds to a start what it adds there. LL128 does not run over host
memory here; its row keeps what it has.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kraken_sim.profiles.write import BlockText
from validation.refit_blocks import said

if TYPE_CHECKING:
    from collections.abc import Mapping

    from validation.refit_blocks import Shipped

Row = dict[str, float]


def unmeasured_wires(shipped: Shipped, name: str, pcie: str, host: str) -> None:
    """The assumed rows of a profile's collectives, after those that were fitted.

    Args:
        shipped: the profiles.
        name: the profile.
        pcie: the profile whose PCIe was measured.
        host: the profile whose host memory was measured beside its NVLink.
    """
    own, box, pair = (shipped.profiles[profile].collectives for profile in (name, pcie, host))
    changes: dict[str, Any] = {}
    for field in ("base_s", "step_s", "channel_bytes_per_s", "link_efficiency"):
        table, start = getattr(own, field), field.endswith("_s") and not field.endswith("per_s")
        changes[field] = dict(table)
        if name == pcie:
            if field == "base_s":
                changes[field]["nvlink"] = dict(table["pcie"])
            continue
        nvlink, wires = table["nvlink"], getattr(box, field)["pcie"]
        changes[field]["pcie"] = _no_sooner(wires, nvlink) if start else dict(wires)
        if name != host:
            measured = getattr(pair, field)
            row = _added(nvlink, measured) if field == "base_s" else _pick(measured["host"])
            row = _no_sooner(row, nvlink) if start else row
            changes[field]["host"] = {**table["host"], **row}
    where = said(shipped.profiles[name], "collectives")
    overrides = {
        path.removeprefix("collectives."): record
        for path, record in shipped.profiles[name].provenance.items()
        if path.startswith("collectives.") and record != where
    }
    shipped.put(name, "collectives", BlockText(replace(own, **changes), where, overrides))


def _no_sooner(row: Mapping[str, float], nvlink: Mapping[str, float]) -> Row:
    return {protocol: max(value, nvlink.get(protocol, value)) for protocol, value in row.items()}


def _added(nvlink: Mapping[str, float], pair: Mapping[str, Mapping[str, float]]) -> Row:
    """A start over NVLink and what host memory adds to it on the machine where both were measured."""
    return {protocol: nvlink[protocol] + pair["host"][protocol] - pair["nvlink"][protocol] for protocol in _MEASURED}


def _pick(row: Mapping[str, float]) -> Row:
    return {protocol: row[protocol] for protocol in _MEASURED}


_MEASURED = ("ll", "simple")
"""Protocols that run over host memory; a definition of NCCL's (LL128 needs NVLink)."""
