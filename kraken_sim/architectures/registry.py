"""The architectures by name. A new one is a module beside this one and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.architectures.kraken import kraken_program
from kraken_sim.architectures.parallel import parallel_program
from kraken_sim.architectures.standard import standard_program

if TYPE_CHECKING:
    from kraken_sim.architectures.workload import Workload
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.models.kraken_width import KrakenShape
    from kraken_sim.program.program import Program


def build_program(kind: str, config: TransformerConfig, kraken: KrakenShape | None, work: Workload) -> Program:
    """The program of architecture `kind`; `kraken` gives the sub-layers' shape and is required for Kraken.

    Raises:
        ValueError: `kind` is unknown, or Kraken comes without its shape (scenarios are checked before).
    """
    if kind == "standard":
        return standard_program(config, work)
    if kind == "parallel":
        return parallel_program(config, work)
    if kind == "kraken" and kraken is not None:
        return kraken_program(config, kraken, work)
    raise ValueError(f"no architecture {kind!r} with shape {kraken!r}")
