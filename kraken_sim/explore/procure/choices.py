"""What a purchase chooses from: the candidates of a request, each with each of its architectures."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kraken_sim.explore.procure.specs import CandidateSpec, WorkloadSpec
    from kraken_sim.scenario.spec import ArchitectureSpec


def choices(
    candidates: tuple[CandidateSpec, ...], architectures: tuple[ArchitectureSpec, ...]
) -> tuple[CandidateSpec, ...]:
    """The candidates; where architectures are named, each with each of them, and its name says which."""
    if not architectures:
        return candidates
    kinds = Counter(spec.kind for spec in architectures)
    named = [(architecture_name(spec, alone=kinds[spec.kind] == 1), spec) for spec in architectures]
    return tuple(
        candidate.model_copy(update={"name": f"{candidate.name} with {name}", "architecture": spec})
        for candidate in candidates
        for name, spec in named
    )


def architecture_name(spec: ArchitectureSpec, *, alone: bool) -> str:
    """Its kind, of a described one its file; beside others of its kind also what it says of itself."""
    said = spec.model_dump(exclude_none=True, exclude={"kind"})
    if "path" in said:
        return Path(said["path"]).stem
    words = ", ".join(f"{key} {value}" for key, value in said.items())
    return spec.kind if alone or not words else f"{spec.kind} ({words})"


def on_candidate(workload: WorkloadSpec, candidate: CandidateSpec) -> WorkloadSpec:
    """A workload with the architecture that the candidate has it run."""
    if candidate.architecture is None:
        return workload
    return workload.model_copy(update={"architecture": candidate.architecture})
