"""Whether measured collectives answer the question that is asked: as many ranks and machines, the same collective."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kraken_sim.errors import InputError
from kraken_sim.hardware.topology.islands import nodes_of
from kraken_sim.standalone.sizes import ELEMENT_BYTES, PER_RANK, REDUCING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kraken_sim.measurements.nccl_tests import MeasuredCollective, MeasuredRun
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.standalone.one_op import CollectiveOpSpec

_MODEL: Final = re.compile(r"[A-Za-z]*\d+[A-Za-z]*")
_MEMORY: Final = re.compile(r"\d+(GB|MB)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Comparable:
    """The rows that answer the question, and what to know about them."""

    rows: tuple[MeasuredCollective, ...]
    warnings: tuple[str, ...]


def comparable(
    runs: Sequence[MeasuredRun], spec: CollectiveOpSpec, profile: HardwareProfile, dtype: str | None = None
) -> Comparable:
    """The rows of the runs that are of the same question.

    Args:
        runs: what was read.
        spec: the question, whose bytes are ignored.
        profile: the machine that is asked about.
        dtype: the type of elements that is asked for, by nccl-tests' name; None: any.

    Raises:
        InputError: None of the runs is: says for each why, and what to ask instead.
    """
    others = [(run, other) for run in runs if (other := _other_question(run, spec, profile)) is not None]
    left = {id(run) for run, _ in others}
    answering = [run for run in runs if id(run) not in left]
    left_out = [f"{run.source}: left out, {other.reason}" for run, other in others]
    if not answering:
        run, other = others[0]
        message = f"is no measurement of {spec.op} on {spec.num_devices} GPUs of {profile.name}: {other.reason}"
        raise InputError.single("--against", message, run.source, other.example)
    rows = tuple(row for run in answering for row in run.rows)
    found = [text for run in answering for text in _differences(run, spec, profile)]
    return Comparable(rows, tuple(dict.fromkeys([*left_out, *found, *_types(rows, dtype)])))


@dataclass(frozen=True, slots=True)
class _Other:
    """Why a run answers another question, and what would be its own."""

    reason: str
    example: str | None = None


def _other_question(run: MeasuredRun, spec: CollectiveOpSpec, profile: HardwareProfile) -> _Other | None:
    """Why a run answers another question; None where it may answer this one."""
    said, n = run.said, spec.num_devices
    if said.kind is not None and said.kind is not spec.op:
        return _Other(f"it measured {said.kind}", f"collective {said.kind}")
    if said.num_ranks is not None and said.num_ranks != n:
        return _Other(f"it ran on {said.num_ranks} ranks", f"--num-devices {said.num_ranks}")
    nodes = len(nodes_of(profile.topology, profile.topology.group(n)))
    if said.num_hosts is not None and said.num_hosts != nodes:
        reason = f"it ran on {said.num_hosts} machines, and these {n} GPUs are on {nodes}"
        return _Other(reason, "--hardware h100-sxm-2x8, or a file of as many nodes")
    return _other_rows(run, spec)


def _other_rows(run: MeasuredRun, spec: CollectiveOpSpec) -> _Other | None:
    """The same by the columns of the rows."""
    n = spec.num_devices
    for row in run.rows:
        reduces = None if row.redop is None else row.redop != "none"
        if reduces is not None and reduces != (spec.op in REDUCING):
            return _Other(f"its rows reduce ({row.redop})" if reduces else "its rows do not reduce (redop none)")
        shares = _shares(row)
        if shares is not None and shares != (n if spec.op in PER_RANK else 1):
            return _Other(f"{shares} of its counts make a size" + (f", as on {shares} ranks" if shares > 1 else ""))
    return None


def _shares(row: MeasuredCollective) -> int | None:
    """How many times its elements make the size of a row: as many as ranks where the count is one rank's share."""
    if not row.count or row.type not in ELEMENT_BYTES:
        return None
    elements, rest = divmod(row.size_bytes, row.count * ELEMENT_BYTES[row.type])
    return elements if rest == 0 and elements > 0 else None


def _differences(run: MeasuredRun, spec: CollectiveOpSpec, profile: HardwareProfile) -> Iterator[str]:
    """What differs without making it another question."""
    said = run.said
    for name in sorted(said.gpus):
        if _model(name) != _model(profile.device.name):
            yield f"measured on {name}, predicted for {profile.device.name}"
    minor = spec.policy().nccl_minor_version
    minor = profile.collectives.nccl_minor_version if minor is None else minor
    if said.nccl_minor_version not in (None, minor):
        measured = f"2.{said.nccl_minor_version}"
        yield f"measured with NCCL {measured}, predicted with the choices of 2.{minor} (--nccl-version {measured})"
    if said.gpus_per_thread is not None and said.gpus_per_thread > 1 and not said.graph_launches:
        yield f"one thread launched for {said.gpus_per_thread} GPUs: what small messages wait for it is not predicted"
    operations = sorted({row.redop for row in run.rows if row.redop not in (None, "none", "sum")})
    if operations:
        yield f"measured {', '.join(map(str, operations))}, predicted as sum"


def _types(rows: Sequence[MeasuredCollective], dtype: str | None) -> Iterator[str]:
    found = sorted({row.type for row in rows if row.type is not None})
    if dtype is not None and found and found != [dtype]:
        yield f"measured {', '.join(found)}, asked for {dtype}: times do not depend on the type here"


def _model(name: str) -> str:
    """The part of a GPU's name that says which it is: H100 of "NVIDIA H100 80GB HBM3", 4090 of "GeForce RTX 4090"."""
    words = (word for word in re.split(r"[^A-Za-z0-9]+", name) if not _MEMORY.fullmatch(word))
    return next((word.upper() for word in words if _MODEL.fullmatch(word)), name)
