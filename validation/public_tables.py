"""Published tables of kernels and collectives as the samples of fits: ai-dynamo/aiconfigurator (Apache-2.0).

The repository https://github.com/ai-dynamo/aiconfigurator has them as parquet under `systems/data/<system>/`. As CSV,
with a first line that says where they are from, they are

- `gemm_bf16_<card>.csv`: m, n, k, latency_ms (means of CUDA-graph replays), and so fp8, fp8block, nvfp4 for bf16;
- `ctx_attn_bf16_<card>.csv`, `gen_attn_bf16_<card>.csv`: batch_size, isl or kv_len, num_heads, num_key_value_heads,
  head_dim, latency_ms, of the whole attention of a serving engine;
- `ctx_attn_bf16_<card>_vllm.csv`: the same of FlashAttention in vLLM, with the write of the cache, no rotary embedding;
- `nccl_all_reduce.csv`, `nccl_other_collectives.csv`: system, nccl_version, op, num_gpus, message_bytes, latency_ms, of
  nccl-tests;
- `custom_all_reduce.csv`: system, framework_version, num_gpus, message_bytes, latency_ms, of engines' own AllReduces.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from kraken_sim.calibration.attention import AttentionSample
from kraken_sim.calibration.collective_kinds import CollectiveSample
from kraken_sim.calibration.collectives import AllReduceSample
from kraken_sim.calibration.gemm import GemmSample
from kraken_sim.costs.collectives.kinds import collective_kind
from kraken_sim.costs.collectives.serving_rules import (
    VLLM_CUSTOM_BELOW,
    VLLM_HOPPER_CUSTOM_BELOW,
    VLLM_HOPPER_MULTIMEM_MAX,
    VLLM_ONE_SHOT_BELOW_4,
    VLLM_ONE_SHOT_BELOW_8,
)
from kraken_sim.program.formats import DType, Quantization
from validation.public_data import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from validation.public_data import Row

FORMAT_OF_TABLE: Final = {
    None: "bf16",
    Quantization.FP8: "fp8",
    Quantization.FP8_BLOCK: "fp8block",
    Quantization.NVFP4: "nvfp4",
}
"""Number formats in the names of tables of products."""

KIB, MIB = 1 << 10, 1 << 20
MAX_FLASH_DIM: Final = 256
"""The widest heads of FlashAttention-2 and 3 (flash_api.cpp of both); a definition of theirs."""
MIN_SIDE: Final = 256
"""Smaller products are all launch."""
MIN_BYTES, MAX_BYTES = KIB, 256 * MIB
"""The AllReduces that are fitted; smaller ones are all start-up, larger ones no model exchanges."""
MAX_NVLS_BYTES = 512 * MIB
"""The same of NVLS, which still gains speed there: from the last octave follows that of larger ones."""


@dataclass(frozen=True, slots=True)
class Card:
    """A card in the tables.

    Attributes:
        profile: the shipped profile that is fitted to it.
        name: how its sources call it.
        tables: its part of the names of GEMM and attention tables.
        framework: what ran these.
        system: its name in the tables of collectives.
        nccl_versions: of the AllReduces, oldest first; other collectives are fitted to the last one's.
        custom: of engines' AllReduces by version, the rule by which it picks kernels.
        box: the shipped profile of the machine whose collectives the tables have, where that is not `profile`.
        flash: what ran FlashAttention, where there is a table of it.
        flash_tables: its part of that table's name.
    """

    profile: str
    name: str
    tables: str
    framework: str
    system: str
    nccl_versions: tuple[str, ...]
    custom: Mapping[str, Callable[[int, int], str]]
    box: str = ""
    flash: str = ""
    flash_tables: str = ""

    @property
    def machine(self) -> str:
        """The shipped profile whose collectives are fitted to the tables."""
        return self.box or self.profile


def _one_or_two_shot(num_devices: int, num_bytes: int) -> str:
    """One stage or two, by the thresholds of vLLM's csrc/custom_all_reduce.cuh, which SGLang shares."""
    below = VLLM_ONE_SHOT_BELOW_4 if num_devices <= 4 else VLLM_ONE_SHOT_BELOW_8
    return "one_shot_vllm" if num_devices == 2 or num_bytes < below else "two_shot_vllm"


def sglang(num_devices: int, num_bytes: int) -> str:
    """SGLang 0.5.10: vLLM's kernels up to 8 MiB. Later versions have kernels of their own, which no profile has."""
    return _one_or_two_shot(num_devices, num_bytes) if num_bytes <= 8 * MIB else ""


def vllm(num_devices: int, num_bytes: int) -> str:
    """VLLM before Hopper: its own kernels below 8 MiB."""
    return _one_or_two_shot(num_devices, num_bytes) if num_bytes < VLLM_CUSTOM_BELOW else ""


def vllm_hopper(num_devices: int, num_bytes: int) -> str:
    """VLLM on Hopper: its own kernels below limits by number of GPUs, then multimem up to further ones."""
    if num_bytes < VLLM_HOPPER_CUSTOM_BELOW[num_devices]:
        return _one_or_two_shot(num_devices, num_bytes)
    return "multimem" if num_bytes <= VLLM_HOPPER_MULTIMEM_MAX.get(num_devices, 0) else ""


def vllm_pair(num_devices: int, num_bytes: int) -> str:
    """On PCIe: vLLM's kernels for two GPUs only."""
    return vllm(num_devices, num_bytes) if num_devices == 2 else ""


def trtllm_ampere(num_devices: int, num_bytes: int) -> str:
    """TensorRT-LLM 1.0 on A100: one stage; beyond these sizes its rows are NCCL's."""
    return "one_shot_tensorrt_llm" if num_bytes <= {2: MIB, 4: 512 * KIB, 8: 256 * KIB}[num_devices] else ""


def trtllm_one_shot(num_devices: int, num_bytes: int) -> str:
    """TensorRT-LLM 1.3 on Hopper: one stage; beyond these sizes its rows are NCCL's."""
    return "one_shot_tensorrt_llm" if num_bytes <= {2: 4 * MIB, 4: MIB, 8: 512 * KIB}[num_devices] else ""


def trtllm_two_shot(num_devices: int, num_bytes: int) -> str:
    """TensorRT-LLM 1.2 on Hopper: two stages on four and eight GPUs for these sizes."""
    return "two_shot_tensorrt_llm" if num_devices > 2 and 512 * KIB <= num_bytes <= 4 * MIB else ""


HOPPER: Final = {
    "SGLang 0.5.10": sglang,
    "vLLM 0.24.0": vllm_hopper,
    "TRTLLM 1.3.0rc20": trtllm_one_shot,
    "TRTLLM 1.2.0rc5": trtllm_two_shot,
}
TRTLLM: Final = "TensorRT-LLM 1.3.0rc20"
CARDS: Final = (
    Card("l40s-x8", "L40S (PCIe gen4)", "l40s_pcie_trtllm", TRTLLM, "l40s", ("2.27.3",),
         {"SGLang 0.5.10": vllm_pair, "vLLM 0.14.0": vllm_pair}, "l40s-x8-slow-host"),
    Card("a100-sxm4-80gb-x8", "A100-SXM4-80GB", "a100sxm80_trtllm", "TensorRT-LLM 1.0.0", "a100_sxm", ("2.27.3",),
         {"SGLang 0.5.10": sglang, "vLLM 0.14.0": vllm, "TRTLLM 1.0.0": trtllm_ampere},
         flash="FlashAttention-2 of vLLM 0.14.0", flash_tables="a100sxm80_vllm"),
    Card("h200-sxm-x8", "H200-SXM", "h200sxm_trtllm", TRTLLM, "h200_sxm", ("2.26.2", "2.29.2"), HOPPER),
    Card("h100-sxm-x8", "H100-SXM", "h100sxm_trtllm", TRTLLM, "h100_sxm", ("2.27.3", "2.29.2"), HOPPER,
         flash="FlashAttention-3 of vLLM 0.24.0", flash_tables="h100sxm_vllm"),
)  # fmt: skip
"""Cards with tables, in the order in which their profiles are fitted."""

OVER_A_BASE: Final = (Card("b200-sxm-x8", "B200-SXM", "b200sxm_trtllm", TRTLLM, "b200_sxm", ("2.27.3", "2.29.2"), {}),)
"""Cards of which products, attention and NCCL's collectives are fitted, the rest carried over from a base."""

NCCL_TABLES: Final = ("nccl_all_reduce.csv", "nccl_other_collectives.csv", "nccl_b200.csv")
"""The published tables of NCCL; a name of the publisher's."""


def gemm_samples(folder: Path, card: Card, quantization: Quantization | None = None) -> list[GemmSample]:
    """Products with n and k of at least 256; replayed, so the weights are warm.

    Rows of quantised products have the quantisation of x in them: the smallest of fp8 take 9 us longer than in bf16.
    """
    name = FORMAT_OF_TABLE[quantization]
    rows = [row for row in rows_of(folder / f"gemm_{name}_{card.tables}.csv") if _side(row) >= MIN_SIDE]
    return [
        GemmSample(
            int(row["m"]),
            int(row["n"]),
            int(row["k"]),
            DType.BFLOAT16,
            _seconds(row),
            weights_warm=True,
            quantization=quantization,
            composite=quantization is not None,
        )
        for row in rows
    ]


def _side(row: Row) -> int:
    return min(int(row["n"]), int(row["k"]))


def attention_samples(folder: Path, card: Card) -> list[AttentionSample]:
    """Prefills and decode steps, with all that a serving engine runs around the kernel."""
    tables = {name: rows_of(folder / f"{name}_attn_bf16_{card.tables}.csv") for name in ("ctx", "gen")}
    return [_attention(row) for rows in tables.values() for row in rows]


def flash_samples(folder: Path, card: Card) -> list[AttentionSample]:
    """FlashAttention's prefills with the write of the cache; no samples where the card has no such table.

    Left out are prompts of one token, which its decode kernel takes, and heads wider than 256, which are another
    version's (`vllm_flash_attn_fa4` on H100).
    """
    if not card.flash_tables:
        return []
    rows = rows_of(folder / f"ctx_attn_bf16_{card.flash_tables}.csv")
    samples = [replace(_attention(row), rotary=False) for row in rows]
    return [sample for sample in samples if sample.q_len > 1 and sample.head_dim <= MAX_FLASH_DIM]


def float8_cache_samples(folder: Path, card: Card) -> list[AttentionSample]:
    """The same decode steps over a cache in fp8, of more than one token."""
    rows = rows_of(folder / f"gen_attn_bf16_kv8_{card.tables}.csv")
    return [_attention(row, DType.FLOAT8_E4M3) for row in rows if int(row["kv_len"]) > 1]


def _attention(row: Row, kv_dtype: DType | None = None) -> AttentionSample:
    return AttentionSample(
        batch=int(row["batch_size"]),
        q_len=int(row.get("isl") or 1),
        kv_len=int(row.get("isl") or row["kv_len"]),
        num_heads=int(row["num_heads"]),
        num_kv_heads=int(row["num_key_value_heads"]),
        head_dim=int(row["head_dim"]),
        causal=True,
        dtype=DType.BFLOAT16,
        period_s=_seconds(row),
        composite=True,
        kv_dtype=kv_dtype,
    )


def nccl_samples(
    folder: Path, card: Card, gap_s: float, least: int = MIN_BYTES, most: int = MAX_BYTES
) -> list[AllReduceSample]:
    """NCCL's AllReduces of 1 KiB to 256 MiB, or of other sizes, each with its version's choices."""
    return [
        AllReduceSample(
            int(row["message_bytes"]), int(row["num_gpus"]), "nccl", "", None, "p2p", "eager", _seconds(row), gap_s,
            nccl_minor_version=int(row["nccl_version"].split(".")[1]),
        )
        for row in _nccl_rows(folder, card)
        if row.get("op", "all_reduce") == "all_reduce" and row["nccl_version"] in card.nccl_versions
        and least <= int(row["message_bytes"]) <= most
    ]  # fmt: skip


def custom_samples(folder: Path, card: Card, gap_s: float) -> list[AllReduceSample]:
    """Engines' own AllReduces in CUDA graphs, by the kernel that the engine's rule picks."""
    samples = []
    for row in rows_of(folder / "custom_all_reduce.csv"):
        rule = card.custom.get(row["framework_version"])
        if row["system"] != card.system or rule is None or row["launch"] != "graph" or not _in_range(row):
            continue
        num_bytes, num_devices = int(row["message_bytes"]), int(row["num_gpus"])
        if kernel := rule(num_devices, num_bytes):
            samples.append(
                AllReduceSample(num_bytes, num_devices, "custom", kernel, None, "p2p", "graph", _seconds(row), gap_s)
            )
    return samples


def collective_samples(folder: Path, card: Card) -> list[CollectiveSample]:
    """Collectives other than AllReduce, of the newest NCCL."""
    return [
        CollectiveSample(collective_kind(row["op"]), int(row["message_bytes"]), int(row["num_gpus"]), _seconds(row))
        for row in _nccl_rows(folder, card)
        if row.get("op", "all_reduce") != "all_reduce" and row["nccl_version"] == card.nccl_versions[-1]
    ]


def _nccl_rows(folder: Path, card: Card) -> list[Row]:
    """NCCL's rows of a card, of all tables that are at hand."""
    tables = [folder / name for name in NCCL_TABLES if (folder / name).is_file()]
    return [row for table in tables for row in rows_of(table) if row["system"] == card.system]


def _in_range(row: Row) -> bool:
    return MIN_BYTES <= int(row["message_bytes"]) <= MAX_BYTES


def _seconds(row: Row) -> float:
    return float(row["latency_ms"]) * 1e-3
