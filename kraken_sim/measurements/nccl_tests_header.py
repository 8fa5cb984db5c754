"""What nccl-tests and NCCL's log say of the run whose rows they print: ranks, machines, GPUs, versions, launches."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from kraken_sim.costs.collectives.kinds import collective_kind
from kraken_sim.errors import InputError

if TYPE_CHECKING:
    from kraken_sim.program.ops import CollectiveKind

_TAG: Final = re.compile(r"^\s*(\[(\S+@)?\d+,\d+\](<std(out|err)>)?:?|\d+:(?=\s))")
"""What mpirun --tag-output puts before a line, job and rank, and srun --label, the rank."""

_STARTS: Final = re.compile(r"nThread\s+(\d+)\s+nGpus\s+(\d+)\s+minBytes")
_GRAPHS: Final = re.compile(r"\bgraph:\s*(\d+)")
_RANK: Final = re.compile(
    r"Rank\s+(\d+)\s+(?:Group\s+\d+\s+)?Pid\s+(\d+)\s+on\s+(\S+)\s+device\s+\d+\s+\[[^\]]*\]\s+(\S.*)"
)
_NAME: Final = re.compile(r"Collective test starting:\s*(\w+)|\b(\w+)_perf\b")
_LIBRARY: Final = re.compile(r"nccl-library=2(\d\d)\d\d\b|NCCL version 2\.(\d+)")


@dataclass(frozen=True, slots=True)
class RunSaid:
    """What a run says of itself; None or empty where it says nothing.

    Attributes:
        kind: The collective.
        ranks: The ranks that are listed, each with its machine and its process.
        gpus: Names of the GPUs.
        nccl_minor_version: The x of NCCL 2.x.
        gpus_per_thread: GPUs that one thread of the host launches for.
        graph_launches: CUDA graphs that were replayed; 0 where the host launched.
    """

    kind: CollectiveKind | None = None
    ranks: frozenset[tuple[int, str]] = frozenset()
    gpus: frozenset[str] = field(default_factory=frozenset)
    nccl_minor_version: int | None = None
    gpus_per_thread: int | None = None
    graph_launches: int | None = None

    @property
    def num_ranks(self) -> int | None:
        """How many ranks are listed."""
        return len({rank for rank, _ in self.ranks}) or None

    @property
    def num_hosts(self) -> int | None:
        """How many machines they are on."""
        return len({host for _, host in self.ranks}) or None


def untagged(line: str) -> str:
    """A line without what mpirun or srun puts before it."""
    return _TAG.sub("", line)


def starts_run(line: str) -> bool:
    """Whether nccl-tests begins to describe another run."""
    return _STARTS.search(line) is not None


def with_line(said: RunSaid, line: str) -> RunSaid:
    """What a further line adds: a comment of nccl-tests, or a line of NCCL's log."""
    if found := _STARTS.search(line):
        graphs = _GRAPHS.search(line)
        said = replace(said, gpus_per_thread=int(found[2]), graph_launches=int(graphs[1]) if graphs else None)
    if found := _RANK.search(line):
        ranks = said.ranks | {(int(found[1]), found[3])}
        return replace(said, ranks=ranks, gpus=said.gpus | {found[4].strip()})
    if found := _LIBRARY.search(line):
        said = replace(said, nccl_minor_version=int(found[1] or found[2]))
    if found := _NAME.search(line):
        said = replace(said, kind=_kind(found[1] or found[2]) or said.kind)
    return said


def _kind(name: str) -> CollectiveKind | None:
    try:
        return collective_kind(name)
    except InputError:
        return None
