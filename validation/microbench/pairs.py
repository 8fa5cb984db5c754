"""Which compute runs beside which AllReduce: the pairs of a suite, most telling first."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Final, Literal

from kraken_sim.measurements.records.together import AttentionOp, GemmOp, PairCase, PairedMemoryBound
from kraken_sim.measurements.schema import DEFAULT_CONDITION
from kraken_sim.program.ops import DType
from kraken_sim.scenario.spec import Launch
from validation.microbench.shapes import spread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kraken_sim.measurements.records.together import PairedOp

Family = Literal["gemm", "attention", "memory_bound", "mixed"]
Chain = tuple["PairedOp", ...]
_KIB: Final = 1 << 10
_MIB: Final = 1 << 20
_WIDTHS: Final = ((1792, 14), (3584, 28), (4480, 35), (7168, 56))
_ROWS: Final = (512, 128, 2048, 1024, 256, 4096)
SIZES: Final = (64 * _KIB, 256 * _KIB, 1 * _MIB, 4 * _MIB, 8 * _MIB, 16 * _MIB, 32 * _MIB, 64 * _MIB)


def mixed_chain(num_tokens: int, width: int, num_heads: int) -> Chain:
    """What a Kraken layer has beside its AllReduce: norm, QKV, attention, W_out."""
    return (
        PairedMemoryBound(op="norm", num_tokens=num_tokens, hidden_size=width),
        GemmOp(op="gemm", m=num_tokens, n=3 * width, k=width),
        AttentionOp(
            op="attention",
            batch=1,
            q_len=num_tokens,
            num_heads=num_heads,
            num_kv_heads=num_heads,
            head_dim=width // num_heads,
        ),
        GemmOp(op="gemm", m=num_tokens, n=width, k=width),
    )


def sustained_chains(width: int) -> list[Chain]:
    """Loads of different power: attention, memory-bound kernels, and a layer's kernels, few to many tokens."""
    heads, half = width // 128, width // 2

    def attention(rows: int, num_heads: int) -> AttentionOp:
        return AttentionOp(
            op="attention", batch=1, q_len=rows, num_heads=num_heads, num_kv_heads=num_heads, head_dim=128
        )

    def layer(rows: int) -> Chain:
        gemms = [GemmOp(op="gemm", m=rows, n=n, k=k) for n, k in ((3 * half, width), (width, half))]
        gemms += [GemmOp(op="gemm", m=rows, n=n, k=k) for n, k in ((4 * half, width), (width, 4 * half))]
        norm = PairedMemoryBound(op="norm", num_tokens=rows, hidden_size=width)
        gelu = PairedMemoryBound(op="gelu", num_tokens=rows, hidden_size=4 * half)
        add = PairedMemoryBound(op="add", num_tokens=rows, hidden_size=width)
        return (norm, gemms[0], attention(rows, heads // 2), gemms[1], add, norm, gemms[2], gelu, gemms[3], add)

    memory = [PairedMemoryBound(op=op, num_tokens=8192, hidden_size=width) for op in ("norm", "gelu", "add", "copy")]
    return [layer(2048), (attention(2048, heads),), tuple(memory), layer(512), layer(128)]


def _mixed() -> Iterator[tuple[Family, Chain, int]]:
    for rows in _ROWS[:4]:
        for width, heads in _WIDTHS:
            natural = rows * width * 2
            for size in (natural, natural // 4, natural * 4):
                yield "mixed", mixed_chain(rows, width, heads), size


def _gemms() -> Iterator[tuple[Family, Chain, int]]:
    for rows in _ROWS:
        for width, _ in _WIDTHS:
            shapes = ((3 * width, width), (width, width), (2 * width, width), (width, 2 * width))
            for index, (n, k) in enumerate(shapes):
                natural = rows * width * 2
                length = 1 + (index + rows // 128) % 4
                for size in (natural, SIZES[(index + rows // 128 + width // 512) % len(SIZES)]):
                    yield "gemm", (GemmOp(op="gemm", m=rows, n=n, k=k),) * length, size


def _attentions() -> Iterator[tuple[Family, Chain, int]]:
    for rows in (512, 2048, 128, 1024, 4096):
        for heads in (14, 28, 4, 56, 8):
            op = AttentionOp(op="attention", batch=1, q_len=rows, num_heads=heads, num_kv_heads=heads, head_dim=128)
            natural = rows * heads * 128 * 2
            for length, size in ((1, natural), (2, 2 * natural), (3, SIZES[(heads + rows // 128) % len(SIZES)])):
                yield "attention", (op,) * length, size


def _memory_bounds() -> Iterator[tuple[Family, Chain, int]]:
    for rows in (2048, 512, 8192, 128):
        for width in (3584, 1792, 7168):
            natural = rows * width * 2
            for length, name in ((4, "norm"), (4, "add"), (3, "gelu"), (4, "copy")):
                op = PairedMemoryBound.model_validate({"op": name, "num_tokens": rows, "hidden_size": width})
                yield "memory_bound", (op,) * length, natural


def _keep(found: Sequence[tuple[Family, Chain, int]], count: int) -> list[tuple[Family, Chain, int]]:
    """A fixed pseudo-random choice, so that all rows, widths and sizes stay in it."""
    distinct = list(dict.fromkeys(item for item in found if 64 * _KIB <= item[2] <= 64 * _MIB))
    chosen = set(sorted(distinct, key=lambda item: spread((*map(str, item[1]), item[2])))[:count])
    return [item for item in distinct if item in chosen]


def pair_cases(num_devices: int, condition: str, *, quick: bool, cpu: bool) -> Iterator[PairCase]:
    """The pairs of one condition: about 210 in the default one, fewer in others, families in turn."""
    if cpu:
        yield from _cpu_pairs(num_devices, condition)
        return
    counts = {"mixed": 44, "gemm": 70, "attention": 26, "memory_bound": 20}
    if condition == "p2p-off":
        counts = {name: count // 3 for name, count in counts.items()}
    elif condition != DEFAULT_CONDITION:
        counts = {name: count * 5 // 8 for name, count in counts.items()}
    if quick:
        counts = {name: max(2, count // 8) for name, count in counts.items()}
    families = [
        _keep(list(make()), counts[name])
        for name, make in (
            ("mixed", _mixed),
            ("gemm", _gemms),
            ("attention", _attentions),
            ("memory_bound", _memory_bounds),
        )
    ]
    ordered = [item for turn in zip_longest(*families) for item in turn if item is not None]
    for index, (family, chain, size) in enumerate(ordered):
        base = {"family": family, "compute": chain, "num_bytes": size, "num_devices": num_devices}
        base |= {"dtype": DType.FLOAT16, "condition": condition}
        yield PairCase.model_validate({**base, "order": "collective_first", "launch": Launch.GRAPH})
        if index % 4 == 0:
            yield PairCase.model_validate({**base, "order": "compute_first", "launch": Launch.GRAPH})
        if index % 8 == 0:
            for order in ("collective_first", "compute_first"):
                yield PairCase.model_validate({**base, "order": order, "launch": Launch.EAGER})


def _cpu_pairs(num_devices: int, condition: str) -> Iterator[PairCase]:
    chains: list[tuple[Family, Chain]] = [
        ("gemm", (GemmOp(op="gemm", m=64, n=768, k=256),)),
        ("attention", (AttentionOp(op="attention", batch=1, q_len=64, num_heads=4, num_kv_heads=4, head_dim=64),)),
        ("memory_bound", (PairedMemoryBound(op="norm", num_tokens=64, hidden_size=256),)),
        ("mixed", mixed_chain(64, 256, 4)),
    ]
    for family, chain in chains:
        for size in (64 * _KIB, 1 * _MIB):
            yield PairCase(
                family=family,
                compute=chain,
                num_bytes=size,
                num_devices=num_devices,
                order="collective_first",
                dtype=DType.FLOAT32,
                launch=Launch.EAGER,
                condition=condition,
            )
