"""The suites `quick` and `full`: kernels alone, collectives, pairs of both, loads; on CPUs a few of each."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Literal

from kraken_sim.measurements.records.kernels import AllReduceCase, AttentionCase, GemmCase, MemoryBoundCase
from kraken_sim.measurements.records.launched import LaunchCase
from kraken_sim.measurements.records.loads import SustainedCase
from kraken_sim.models.presets import PRESETS
from kraken_sim.program.ops import DType
from kraken_sim.scenario.spec import Launch
from validation.microbench import launch, shapes
from validation.microbench.blocks import BLOCK_SIZES, in_blocks, in_turn, kernel_blocks
from validation.microbench.pairs import pair_cases, sustained_chains

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kraken_sim.measurements.records.base import Case
    from validation.microbench.blocks import Block, Machine


def microbenchmarks(suite: str, machine: Machine, condition: str, *, first: bool) -> list[Block]:
    """The blocks of `quick` or `full` under one condition; what needs one device alone goes with the first."""
    cpu, quick = machine.device_type == "cpu", suite == "quick"
    together = machine.num_devices > 1 and machine.has_collectives
    cases: dict[str, list[Case]] = {name: [] for name in ("launch", "gemm", "all_reduce", "attention")}
    cases |= {name: [] for name in ("memory_bound", "pair", "sustained", "odd")}
    if first:
        single = _cpu_cases(quick) if cpu else _gpu_cases(quick, machine.num_devices)
        cases |= single
    if together:
        cases["launch"] = [*cases["launch"], *collective_launches(condition, cpu=cpu)]
        cases["all_reduce"] = list(_all_reduces(machine, condition, quick=quick, first=first))
        cases["pair"] = list(pair_cases(machine.num_devices, condition, quick=quick, cpu=cpu))
    blocks = [*in_blocks(condition, _by_collective(cases["launch"]), 8)]
    turns = [in_blocks(condition, [cases[name]], BLOCK_SIZES[name]) for name in ("gemm", "all_reduce", "attention")]
    turns += [in_blocks(condition, [cases[name]], BLOCK_SIZES[name]) for name in ("memory_bound", "pair")]
    blocks += in_turn(turns)
    blocks += in_blocks(condition, [cases["sustained"]], machine.num_devices)
    blocks += in_blocks(condition, [cases["odd"]], BLOCK_SIZES["gemm"])
    return blocks if cpu else blocks + kernel_blocks(condition, blocks)


def _by_collective(cases: Sequence[Case]) -> list[list[Case]]:
    local: list[Case] = [case for case in cases if isinstance(case, LaunchCase) and case.condition is None]
    return [local, [case for case in cases if case not in local]]


def collective_launches(condition: str, *, cpu: bool) -> list[Case]:
    """What launching a collective costs, under one condition."""
    names = launch.COLLECTIVE[:1] if cpu else launch.COLLECTIVE
    return [LaunchCase(quantity=name, detail=detail, condition=condition) for name, detail in names]


def _all_reduces(machine: Machine, condition: str, *, quick: bool, first: bool) -> Iterator[Case]:
    cpu = machine.device_type == "cpu"
    sizes = shapes.all_reduce_sizes()
    powers = [size for size in sizes if size & (size - 1) == 0]
    if cpu:
        sizes = [size for size in powers if size <= (1 << 22 if quick else 1 << 24)][:: 2 if quick else 1]
    elif quick:
        sizes = powers[::2]
    eager = sizes if cpu else powers[:: 1 if first and not quick else 4]

    def case(size: int, how: Launch) -> Case:
        return AllReduceCase(
            num_bytes=size,
            num_devices=machine.num_devices,
            dtype=DType.FLOAT32 if cpu else DType.FLOAT16,
            launch=how,
            condition=condition,
        )

    if not cpu:
        yield from (case(size, Launch.GRAPH) for size in sizes)
    yield from (case(size, Launch.EAGER) for size in eager)


def _gpu_cases(quick: bool, num_devices: int) -> dict[str, list[Case]]:
    return {
        "launch": [LaunchCase(quantity=name, detail=detail) for name, detail in launch.LOCAL + launch.LOCAL_CUDA],
        "gemm": list(_gemms(quick)),
        "attention": list(_attentions(quick)),
        "memory_bound": list(_memory_bounds(quick)),
        "sustained": list(_sustained(quick, num_devices)),
        "odd": [_gemm(shape, origin="odd") for shape in shapes.odd_gemms(40 if quick else 250)],
    }


def _gemm(
    shape: shapes.GemmShape,
    dtype: DType = DType.FLOAT16,
    how: Launch = Launch.GRAPH,
    origin: Literal["preset", "odd"] = "preset",
) -> Case:
    m, n, k, epilogue = shape
    return GemmCase.model_validate(
        {"m": m, "n": n, "k": k, "epilogue": epilogue, "dtype": dtype, "launch": how, "origin": origin}
    )


def _gemms(quick: bool) -> Iterator[Case]:
    found = shapes.preset_gemms()
    yield from (_gemm(shape) for shape in (found[:90] if quick else found))
    some = [shape for shape in found if shape.epilogue == "bias"][:: 100 if quick else 20]
    yield from (_gemm(shape._replace(epilogue="none")) for shape in some)
    yield from (_gemm(shape, dtype=DType.BFLOAT16) for shape in some)
    yield from (_gemm(shape, how=Launch.EAGER) for shape in found[:: 40 if quick else 12])


def _attention(shape: shapes.AttentionShape, dtype: DType = DType.FLOAT16, how: Launch = Launch.GRAPH) -> Case:
    prefill = shape.q_len == shape.kv_len
    return AttentionCase(**shape._asdict(), causal=prefill, dtype=dtype, launch=how)


def _attentions(quick: bool) -> Iterator[Case]:
    prefill, decode = shapes.prefill_attentions(), shapes.decode_attentions()
    step = 5 if quick else 1
    prefill, decode = prefill[::step], decode[::step]
    # Prefill and decode in turn, as many of each as there are.
    for pair in zip_longest(prefill, decode):
        yield from (_attention(shape) for shape in pair if shape is not None)
    yield from (_attention(shape, how=Launch.EAGER) for shape in prefill[::15])
    yield from (_attention(shape, dtype=DType.BFLOAT16) for shape in prefill[::20])


def _memory_bound(function: str, tokens: int, width: int, dtype: DType, how: Launch) -> MemoryBoundCase:
    fields = {"function": function, "num_tokens": tokens, "hidden_size": width, "dtype": dtype, "launch": how}
    return MemoryBoundCase.model_validate(fields)


def _memory_bounds(quick: bool) -> Iterator[Case]:
    found = list(shapes.memory_bound_shapes())[:: 6 if quick else 1]
    yield from (_memory_bound(*shape, DType.FLOAT16, Launch.GRAPH) for shape in found)
    yield from (_memory_bound(*shape, DType.FLOAT16, Launch.EAGER) for shape in found[::15])


def _sustained(quick: bool, num_devices: int) -> Iterator[Case]:
    _, wide, _ = PRESETS["6.7B"]
    layer = tuple((2048, n, k) for n, k in shapes.layer_matrices(wide, 2))
    chains = [((4096, 4096, 4096),), ((2048, 10752, 3584),), layer, ((8192, 8192, 8192),)]
    # (rest, load): from idle to settled, then the same again soon after a long and a short rest.
    schedule = [(0.5, 0.5)] if quick else [(1.0, 2.5), (0.1, 0.5), (0.01, 0.2)]
    for gemms in chains[: 2 if quick else None]:
        for idle_s, run_s in schedule:
            for device in range(num_devices):
                yield SustainedCase(
                    shapes=gemms, idle_before_s=idle_s, duration_s=run_s, dtype=DType.FLOAT16, device_index=device
                )
    for load in sustained_chains(wide)[: 1 if quick else None]:
        for device in range(num_devices):
            yield SustainedCase(
                compute=load, idle_before_s=0.5, duration_s=1.2, dtype=DType.FLOAT16, device_index=device
            )


def _cpu_cases(quick: bool) -> dict[str, list[Case]]:
    """Tiny shapes: they show that all of it runs, and give a rough profile of the CPU."""
    gemms = [(1, 768, 768), (16, 768, 768), (64, 2304, 768), (128, 768, 3072), (128, 1024, 1024), (37, 344, 520)]
    attentions = [(1, 64, 64, 4, 4, 64), (1, 128, 128, 4, 2, 64), (2, 64, 64, 2, 2, 64), (4, 1, 256, 4, 4, 64)]
    functions = ("norm", "gelu", "add", "copy", "kv_write", "embedding")
    widths = (256, 768) if quick else (256, 512, 768, 1024)
    kind, eager = DType.FLOAT32, Launch.EAGER
    return {
        "launch": [LaunchCase(quantity=name, detail=detail) for name, detail in launch.LOCAL],
        "gemm": [_gemm(shapes.GemmShape(*gemm), kind, eager) for gemm in gemms],
        "attention": [_attention(shapes.AttentionShape(*shape), kind, eager) for shape in attentions],
        "memory_bound": [_memory_bound(name, 64, width, kind, eager) for name in functions for width in widths],
        "sustained": [
            SustainedCase(shapes=((256, 512, 512),), idle_before_s=0.1, duration_s=0.3, dtype=kind, device_index=0)
        ],
        "odd": [_gemm(shape, kind, eager, "odd") for shape in shapes.odd_gemms(400) if _is_small(shape)][:6],
    }


def _is_small(shape: shapes.GemmShape) -> bool:
    return shape.m * shape.n * shape.k < 2**27
