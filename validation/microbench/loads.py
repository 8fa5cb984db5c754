"""What a card draws and how fast it runs under load and after a rest: the loads of the suite `power`.

Shapes are round sizes and those of a 13B model's width, no layer of a model whose passes are measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from kraken_sim.measurements.records.loads import SustainedCase, WakeCase
from kraken_sim.measurements.records.together import AttentionOp, GemmOp, PairedMemoryBound
from kraken_sim.program.formats import Quantization
from kraken_sim.program.ops import DType
from kraken_sim.scenario.spec import Launch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kraken_sim.measurements.records.together import PairedOp

Chain = tuple["PairedOp", ...]
_REST_S: Final = 0.5
_RUN_S: Final = 1.1
_CHUNK_S: Final = 0.025
_FINE_CHUNK_S: Final = 0.004
_WIDTH: Final = 5120
_HALVES: Final = (DType.BFLOAT16, DType.FLOAT16)


def _gemm(m: int, n: int, k: int) -> GemmOp:
    return GemmOp(op="gemm", m=m, n=n, k=k)


def _attention(batch: int, q_len: int, heads: int, kv_heads: int, kv_len: int | None = None) -> AttentionOp:
    return AttentionOp(
        op="attention",
        batch=batch,
        q_len=q_len,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=128,
        kv_len=kv_len,
    )


def _stream(op: Literal["norm", "gelu", "add", "copy"], rows: int, width: int = _WIDTH) -> PairedMemoryBound:
    return PairedMemoryBound(op=op, num_tokens=rows, hidden_size=width)


_SQUARE: Final = (_gemm(4096, 4096, 4096),)
_GEMMS: Final[tuple[Chain, ...]] = (
    _SQUARE,
    (_gemm(8192, 8192, 8192),),
    (_gemm(2048, 2048, 2048),),
    (_gemm(1024, 1024, 1024),),
    (_gemm(512, 8192, 8192),),
    (_gemm(2048, 13_824, 5120),),
    (_gemm(8192, 1024, 4096),),
    (_gemm(256, 8192, 8192),),
)
_DECODES: Final[tuple[Chain, ...]] = tuple((_gemm(m, 8192, 8192),) for m in (1, 16, 64))
_ATTENTIONS: Final[tuple[Chain, ...]] = ((_attention(1, 2048, 40, 40),), (_attention(1, 8192, 16, 4),))
_CACHES: Final[tuple[Chain, ...]] = ((_attention(16, 1, 40, 40, 2049),), (_attention(32, 1, 32, 8, 4097),))
_STREAMS: Final[tuple[Chain, ...]] = (
    (_stream("norm", 8192), _stream("gelu", 8192), _stream("add", 8192), _stream("copy", 8192)),
    (_stream("gelu", 2048),),
)


def _mixed(rows: int) -> tuple[Chain, ...]:
    """Two or three kinds of kernels, never a whole layer."""
    norm, product = _stream("norm", rows), _gemm(rows, 3 * 2560, _WIDTH)
    return (norm, product, _attention(1, rows, 20, 20)), (product, _stream("gelu", rows, 3 * 2560))


def sustained_loads() -> Iterator[SustainedCase]:
    """Draw and clock by number format, then mixed loads, pauses, and the way down after rests of all lengths."""
    for chains in zip(*[iter(_GEMMS)] * 2, strict=True):
        for dtype in _HALVES:
            yield from (_load(chain, dtype) for chain in chains)
        yield from (_load(chain, DType.BFLOAT16, quantization=Quantization.FP8) for chain in chains)
    for chain in _DECODES:
        yield _load(chain, DType.BFLOAT16)
        yield _load(chain, DType.BFLOAT16, quantization=Quantization.FP8)
    yield _load(_DECODES[0], DType.FLOAT16)
    for dtype in _HALVES:
        yield from (_load(chain, dtype) for chain in (*_ATTENTIONS, _STREAMS[0], *_mixed(2048), *_mixed(512)))
    yield from (_load(chain, DType.BFLOAT16) for chain in (*_CACHES, _STREAMS[1], *_mixed(128)))
    yield from (
        _load(chain, DType.BFLOAT16, quantization=Quantization.FP8) for chain in (*_mixed(2048), _mixed(512)[0])
    )
    for ctas in (4, 24):
        for share in (0.3, 1.0, 3.0):
            yield _load(_mixed(2048)[0], DType.BFLOAT16, pause_ctas=ctas, pause_share=share)
    yield _load(_SQUARE, DType.BFLOAT16, run_s=3.0)
    yield _load(_mixed(2048)[0], DType.BFLOAT16, run_s=3.0)
    for rest_s in (0.01, 0.03, 0.1, 0.3, 1.0):
        for chain, dtype in ((_SQUARE, DType.BFLOAT16), (_SQUARE, DType.FLOAT16), (_mixed(2048)[0], DType.BFLOAT16)):
            yield _load(chain, dtype, rest_s=rest_s, run_s=0.25, load_before_s=0.6, chunk_s=_FINE_CHUNK_S)


def _load(
    chain: Chain,
    dtype: DType,
    *,
    quantization: Quantization | None = None,
    rest_s: float = _REST_S,
    run_s: float = _RUN_S,
    load_before_s: float = 0.0,
    chunk_s: float = _CHUNK_S,
    pause_ctas: int = 0,
    pause_share: float = 0.0,
) -> SustainedCase:
    return SustainedCase(
        compute=chain,
        idle_before_s=rest_s,
        duration_s=run_s,
        dtype=dtype,
        device_index=0,
        launch=Launch.GRAPH,
        quantization=quantization,
        load_before_s=load_before_s,
        chunk_s=chunk_s,
        pause_ctas=pause_ctas,
        pause_share=pause_share,
    )


_RESTS_S: Final = (0.0, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0)
_FEW_RESTS_S: Final = (0.0, 3e-3, 0.1, 0.3)
_ONE: Final[tuple[Chain, int]] = ((_stream("copy", 1, 4096),), 1)
_STEP: Final[tuple[Chain, int]] = ((_stream("norm", 1, 8192), _gemm(1, 8192, 8192)), 16)
_LONG_STEP: Final[tuple[Chain, int]] = (_STEP[0], 64)
_SMALL: Final[tuple[Chain, int]] = (tuple(_stream(op, 128) for op in ("norm", "add", "gelu")), 32)
_DECODE_STEP: Final[Chain] = (_gemm(1, 7680, 5120), _attention(1, 1, 40, 8, 2049), _stream("add", 1))
_TINY: Final[Chain] = tuple(_stream(op, 1) for op in ("norm", "add", "gelu", "copy"))
_HEAVY: Final[tuple[Chain, int]] = ((_gemm(2048, 8192, 8192),), 8)


def wakes() -> Iterator[WakeCase]:
    """The first graph after a rest: one kernel, steps that HBM limits, small kernels, GEMMs."""
    for rest_s in _RESTS_S:
        for chain, rounds in (_ONE, _STEP, _LONG_STEP, _SMALL, _HEAVY):
            yield _wake(chain, rounds, rest_s, "sleep")
    for rest_s in _FEW_RESTS_S[1:]:
        for chain, rounds in (_ONE, _STEP, _SMALL):
            yield _wake(chain, rounds, rest_s, "spin")
            yield _wake(chain, rounds, rest_s, "device")
    # Last: what is mapped anew stays so.
    for remapped in (False, True):
        for chain, rounds in ((_DECODE_STEP, 20), (_DECODE_STEP, 80), (_TINY, 60)):
            for rest_s in (0.0, 0.1):
                yield _wake(chain, rounds, rest_s, "sleep", remapped=remapped)


def _wake(
    chain: Chain,
    rounds: int,
    rest_s: float,
    wait: Literal["sleep", "spin", "device"],
    dtype: DType = DType.BFLOAT16,
    *,
    remapped: bool = False,
) -> WakeCase:
    return WakeCase(compute=chain, rounds=rounds, rest_s=rest_s, wait=wait, dtype=dtype, remapped=remapped)


def cpu_loads() -> Iterator[SustainedCase | WakeCase]:
    """Tiny ones, which show that all of it runs."""
    chain = (_gemm(64, 256, 256), _stream("norm", 64, 256))
    fields = {"compute": chain, "idle_before_s": 0.05, "duration_s": 0.1, "dtype": DType.FLOAT32, "device_index": 0}
    fields |= {"launch": Launch.GRAPH}
    yield SustainedCase.model_validate(fields)
    yield SustainedCase.model_validate(fields | {"load_before_s": 0.05, "chunk_s": _FINE_CHUNK_S})
    yield SustainedCase.model_validate(fields | {"pause_ctas": 4, "pause_share": 1.0})
    waits: tuple[Literal["sleep", "spin", "device"], ...] = ("sleep", "spin", "device")
    for wait in waits:
        yield _wake(chain, 4, 0.01, wait, DType.FLOAT32)
    yield _wake(chain, 4, 0.0, "sleep", DType.FLOAT32, remapped=True)
