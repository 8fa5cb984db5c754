"""What launching costs around kernels, and the kernels that a case consists of, as the profiler saw them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kraken_sim.files.model import FileModel
from kraken_sim.measurements.records.base import Case, Seconds, Timed


class LaunchCase(Case):
    """A cost around kernels; the module `validation.microbench.launch` says what each quantity is."""

    kind: Literal["launch"] = "launch"
    quantity: str
    detail: str = ""
    condition: str | None = None
    """Set where a collective is involved."""
    process: int = Field(default=1, ge=1)
    """Which of several processes, one after the other, where the same is measured in each: hosts differ from process to
    process."""

    @property
    def key(self) -> str:
        """Names this case."""
        process = f"process-{self.process}" if self.process > 1 else ""
        return "/".join(filter(None, ("launch", self.condition, process, self.quantity, self.detail)))


class LaunchRecord(LaunchCase, Timed):
    """`time_s` is the cost of one call (or one kernel, node, edge); a slope can come out negative by noise."""

    time_s: tuple[float, float, float]


class ProfiledKernel(FileModel):
    """One kernel as the profiler saw it: its CTAs, their size, how long it was busy."""

    name: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    registers: int | None = None
    shared_memory_bytes: int | None = None
    busy_s: Seconds
    start_s: Seconds | None = None
    """From the start of the first of these kernels, where they ran as one graph."""


class KernelsCase(Case):
    """The kernels that another case consists of, under the profiler (whose times are a little longer)."""

    kind: Literal["kernels"] = "kernels"
    of: str
    """Key of the other case."""

    @property
    def key(self) -> str:
        """Names this case."""
        return f"kernels/{self.of}"


class KernelsRecord(KernelsCase):
    """The kernels in launch order."""

    kernels: tuple[ProfiledKernel, ...]
