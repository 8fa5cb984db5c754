"""A machine with everything the simulator knows about it, and where each number is from."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from kraken_sim.costs.attention_shape import is_decode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kraken_sim.costs.attention import AttentionConstants
    from kraken_sim.costs.collectives.constants import CollectiveConstants
    from kraken_sim.costs.contention import ContentionConstants
    from kraken_sim.costs.gemm import GemmConstants
    from kraken_sim.costs.memory_bound import MemoryBoundConstants
    from kraken_sim.costs.power import PowerConstants
    from kraken_sim.hardware.device import Device, LaunchCosts
    from kraken_sim.hardware.topology.topology import Topology
    from kraken_sim.program.formats import Quantization
    from kraken_sim.program.ops import Attention


class ProvenanceKind(StrEnum):
    """How a number came to be known."""

    DATASHEET = "datasheet"
    MEASURED = "measured"
    FITTED = "fitted"
    ASSUMED = "assumed"
    """Taken to be as elsewhere, or set by judgement: nobody measured it on this machine."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a number is from.

    `residual` is a fit's mean relative error on records it never saw; of an assumed block, the error that it is
    taken to have.
    """

    kind: ProvenanceKind
    source: str
    residual: float | None = None


@dataclass(frozen=True, slots=True)
class HardwareProfile:
    """One machine.

    `provenance` has an entry for every number of the profile's file, under its dotted path there without the
    `values` of a block, for example `device.num_sms`, `topology.links.0.bandwidth` or `collectives.base_s.nvlink.ll`.
    `gemm_fp8` and the others are for products of these formats, where they are known apart (`gemm_of`); `gemm_fp8_rows`
    is for torch's with a scale a row.
    `serving_attention` is for the attention of serving engines, where it is known apart from the bare kernel;
    `attention_float8` is for decode steps over a cache in fp8 (`attention_of`);
    without `power` the clock stays where the kernels were measured.
    `time_factors` is for what-ifs: by block (gemm, attention, memory_bound, collectives), how much longer than by
    its constants every kernel of the block takes alone.
    """

    name: str
    description: str
    device: Device
    launch: LaunchCosts
    topology: Topology
    gemm: GemmConstants
    attention: AttentionConstants
    memory_bound: MemoryBoundConstants
    collectives: CollectiveConstants
    contention: ContentionConstants
    provenance: Mapping[str, Provenance]
    gemm_fp8: GemmConstants | None = None
    gemm_fp8_rows: GemmConstants | None = None
    gemm_fp8_block: GemmConstants | None = None
    gemm_nvfp4: GemmConstants | None = None
    serving_attention: AttentionConstants | None = None
    attention_float8: AttentionConstants | None = None
    power: PowerConstants | None = None
    time_factors: Mapping[str, float] = field(default_factory=dict)

    def attention_of(self, op: Attention, *, serving: bool = False) -> tuple[str, AttentionConstants]:
        """The constants of an attention, and the block that they are from; `serving`: of an engine's whole op."""
        if op.kv_dtype is not None and is_decode(op) and self.attention_float8 is not None:
            return "attention_float8", self.attention_float8
        if serving and self.serving_attention is not None:
            return "serving_attention", self.serving_attention
        return "attention", self.attention

    def gemm_of(self, quantization: Quantization | None, *, by_row: bool = False) -> tuple[str, GemmConstants]:
        """The constants of products of a format, and the block that they are from.

        Where the format has none of its own they are those of the nearest one that has, whose shares of the peak rate
        and of the bandwidth are then taken for this format's too.
        """
        for block in gemm_blocks(quantization, by_row=by_row):
            constants = getattr(self, block)
            if constants is not None:
                return block, constants
        return "gemm", self.gemm


QUANTISED_BLOCKS: Final = ("gemm_fp8", "gemm_fp8_rows", "gemm_fp8_block", "gemm_nvfp4")
"""Blocks of products of quantised operands."""


def gemm_blocks(quantization: Quantization | None, *, by_row: bool = False) -> tuple[str, ...]:
    """The blocks that may price products of a format, its own first; `by_row`: torch's with a scale a row."""
    if quantization is None:
        return ("gemm",)
    own = "gemm_fp8_rows" if by_row else f"gemm_{quantization}"
    return tuple(dict.fromkeys((own, "gemm_fp8", "gemm")))


def provenance_of(part: str, profile: HardwareProfile) -> dict[str, Provenance]:
    """Where the numbers of a profile's device, topology or block are from, by their dotted paths."""
    return {path: where for path, where in profile.provenance.items() if path.startswith(f"{part}.")}
