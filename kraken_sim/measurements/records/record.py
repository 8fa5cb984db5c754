"""`Record`: whatever a line of a measurement file may hold after its header, told apart by `kind`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kraken_sim.files.model import FileModel
from kraken_sim.measurements.records.kernels import AllReduceRecord, AttentionRecord, GemmRecord, MemoryBoundRecord
from kraken_sim.measurements.records.launched import KernelsRecord, LaunchRecord
from kraken_sim.measurements.records.loads import SustainedRecord, WakeRecord
from kraken_sim.measurements.records.passes import PassRecord
from kraken_sim.measurements.records.together import ChainRecord, PairRecord


class NoteRecord(FileModel):
    """Why a case has no record: skipped (it cannot run here) or failed (it should have; tried again on resume)."""

    kind: Literal["note"] = "note"
    of: str
    """Key of the case."""
    status: Literal["skipped", "failed"]
    message: str
    rank: int = 0

    @property
    def key(self) -> str:
        """The key of the case it speaks of."""
        return self.of


Record = Annotated[
    GemmRecord
    | AttentionRecord
    | MemoryBoundRecord
    | AllReduceRecord
    | PairRecord
    | ChainRecord
    | SustainedRecord
    | WakeRecord
    | LaunchRecord
    | KernelsRecord
    | PassRecord
    | NoteRecord,
    Field(discriminator="kind"),
]
"""One line of a measurement file after its header."""
