"""What a suite measures, in which order: blocks of cases, the most telling first.

A block is the unit of progress: its cases run, its records are written, the deadline is looked at. Blocks of
different kinds take turns, so that a run that is cut short has some of everything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Final, Literal

from kraken_sim.errors import InputError
from kraken_sim.measurements.records.kernels import AllReduceCase, AttentionCase, GemmCase, MemoryBoundCase
from kraken_sim.measurements.records.launched import KernelsCase, LaunchCase
from kraken_sim.measurements.records.loads import SustainedCase, WakeCase
from kraken_sim.measurements.schema import AGAIN, CPU_CONDITION, DEFAULT_CONDITION
from kraken_sim.models.presets import PRESETS
from kraken_sim.program.ops import DType
from kraken_sim.scenario.spec import Launch
from validation import fp8_grid, model_grid
from validation.microbench import chains, launch, loads, shapes
from validation.microbench.pairs import pair_cases, sustained_chains
from validation.rival_grid import rival_passes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from kraken_sim.measurements.records.base import Case

SUITES: Final = (
    *("quick", "full", "passes", "llama-passes", "llama-microbench", "chains", "host", "power"),
    *("fp8-passes", "fp8-microbench", "rivals"),
)
ONE_DEVICE: Final = ("llama-passes", "fp8-passes")
QUICK_CONDITIONS: Final = (DEFAULT_CONDITION, "channels-4")

SECONDS: Final = {
    "launch": 0.25,
    "gemm": 0.02,
    "attention": 0.03,
    "memory_bound": 0.02,
    "all_reduce": 0.07,
    "pair": 0.15,
    "chain": 0.03,
    "sustained": 0.3,
    "wake": 0.15,
    "kernels": 0.01,
    "pass": 1.2,
}
"""A first guess at the time of a case on one rank (of a sustained one: beyond its load); a run corrects it."""

START_S: Final = 15.0
"""A guess at what a condition costs before its first case: importing torch, making contexts and communicators."""

_BLOCK: Final = {
    "gemm": 48,
    "attention": 24,
    "memory_bound": 48,
    "all_reduce": 10,
    "pair": 8,
    "chain": 48,
    "kernels": 160,
}
_REST_BLOCK: Final = 8
_BLOCK_ORDER: Final = ("memory_bound", "attention", "gemm")
_CPU_WIDTH: Final = 2048
_WAKE_REPEATS: Final = 5
"""About how often a rest is repeated."""


@dataclass(frozen=True, slots=True)
class Block:
    """Cases of one kind and condition that run together.

    The cases of a collective block run on all ranks at once, those of another are dealt out to the ranks.
    """

    condition: str
    cases: tuple[Case, ...]

    @property
    def kind(self) -> str:
        """The kind that all cases share; the kernels of passes are found where the passes run."""
        first = self.cases[0]
        return "pass" if isinstance(first, KernelsCase) and first.of.startswith("pass/") else first.kind

    @property
    def collective(self) -> bool:
        """Whether ranks must run the cases together."""
        first = self.cases[0]
        if isinstance(first, LaunchCase):
            return first.condition is not None
        if isinstance(first, KernelsCase):
            return first.of.startswith(("all_reduce/", "pass/"))
        return first.collective

    def estimate_s(self, num_ranks: int) -> float:
        """Roughly how long it takes."""
        sustained = [
            case.load_before_s + case.idle_before_s + case.duration_s
            for case in self.cases
            if isinstance(case, SustainedCase)
        ]
        if sustained:
            return max(sustained) + SECONDS["sustained"]
        rests_s = sum(_WAKE_REPEATS * case.rest_s for case in self.cases if isinstance(case, WakeCase))
        rounds = len(self.cases) if self.collective else -(-len(self.cases) // num_ranks)
        return SECONDS[self.kind] * rounds + rests_s


@dataclass(frozen=True, slots=True)
class Machine:
    """What a plan depends on."""

    device_type: Literal["cuda", "cpu"]
    num_devices: int
    has_collectives: bool = True


def default_conditions(suite: str, machine: Machine, known: Iterable[str]) -> list[str]:
    """The conditions of a suite, in order: one where nothing can be collective; of the host's suite two processes."""
    if suite == "host":
        first = CPU_CONDITION if machine.device_type == "cpu" else DEFAULT_CONDITION
        return [first, first + AGAIN]
    if machine.device_type == "cpu":
        return [CPU_CONDITION]
    if machine.num_devices == 1 or not machine.has_collectives:
        return [DEFAULT_CONDITION]
    return list(QUICK_CONDITIONS) if suite == "quick" else [name for name in known if name != CPU_CONDITION]


def plan(suite: str, machine: Machine, conditions: Sequence[str]) -> list[Block]:
    """All blocks of a suite, condition by condition; work of single devices goes with the first condition.

    Raises:
        InputError: an unknown suite, or one that needs a single device.
    """
    if suite not in SUITES:
        raise InputError.single("suite", "unknown", suite, "quick")
    blocks: list[Block] = []
    for index, condition in enumerate(conditions):
        if suite == "passes":
            blocks += _passes(machine, condition)
        elif suite == "rivals":
            blocks += _rivals(machine, condition)
        elif suite in ONE_DEVICE:
            blocks += _passes_of_one_device(suite, machine, condition)
        elif suite == "host":
            blocks += _host(machine, condition, process=index + 1)
        elif suite == "llama-microbench":
            blocks += _llama_microbenchmarks(machine, condition)
        elif suite == "fp8-microbench":
            blocks += _fp8_microbenchmarks(machine, condition)
        elif suite == "chains":
            blocks += _chains(machine, condition) if index == 0 else []
        elif suite == "power":
            blocks += _power(machine, condition)
        else:
            blocks += _microbenchmarks(suite, machine, condition, first=index == 0)
    return blocks


def _passes(machine: Machine, condition: str) -> list[Block]:
    # Imported here: building the list needs torch, planning microbenchmarks does not.
    from validation.passes import list_passes, same_weights

    cases = list_passes("passes", machine.num_devices, device_type=machine.device_type, condition=condition)
    return [Block(condition, group) for group in same_weights(cases)]


def _rivals(machine: Machine, condition: str) -> list[Block]:
    from validation.passes import same_weights

    cases = rival_passes(machine.num_devices, condition, cpu=machine.device_type == "cpu")
    return [Block(condition, group) for group in same_weights(cases)]


def _host(machine: Machine, condition: str, process: int) -> list[Block]:
    """What launching costs this host, in one process."""
    cpu = machine.device_type == "cpu"
    names = launch.HOST if cpu else launch.HOST + launch.HOST_CUDA
    cases: list[Case] = [LaunchCase(quantity=name, detail=detail, process=process) for name, detail in names]
    blocks = [Block(condition, tuple(cases))]
    if machine.num_devices > 1 and machine.has_collectives:
        blocks.append(Block(condition, tuple(_collective_launches(condition, cpu=cpu))))
    return blocks


def _passes_of_one_device(suite: str, machine: Machine, condition: str) -> list[Block]:
    if machine.num_devices > 1:
        message = "measures models and shares of them on one device"
        raise InputError.single("--suite", message, f"{suite} on {machine.num_devices}", "passes")
    grid = fp8_grid if suite == "fp8-passes" else model_grid
    return [Block(condition, group) for group in grid.pass_groups(condition, cpu=machine.device_type == "cpu")]


def _fp8_microbenchmarks(machine: Machine, condition: str) -> list[Block]:
    """GEMMs on fp8 operands and kernels that quantise, in turn; on CPUs small ones."""
    gemms: list[Case] = [*fp8_grid.gemms()]
    kernels: list[Case] = [*fp8_grid.memory_bounds()]
    if machine.device_type == "cpu":
        small = [case for case in [*gemms, *kernels] if _is_small_on_a_cpu(case)]
        return _blocks(
            condition, [[case.model_copy(update={"launch": Launch.EAGER}) for case in small]], _BLOCK["gemm"]
        )
    turns = [_blocks(condition, [gemms], _BLOCK["gemm"]), _blocks(condition, [kernels], _BLOCK["memory_bound"])]
    blocks = [block for turn in zip_longest(*turns) for block in turn if block is not None]
    return blocks + _kernel_blocks(condition, blocks, _looked_at)


def _is_small_on_a_cpu(case: Case) -> bool:
    if isinstance(case, GemmCase):
        return case.m == 1 and case.n * case.k <= _CPU_WIDTH**2
    return isinstance(case, MemoryBoundCase) and case.num_tokens == 1


def _llama_microbenchmarks(machine: Machine, condition: str) -> list[Block]:
    """Kernels of Llama-like layers on one device; on CPUs the few rows of the narrowest."""
    cpu = machine.device_type == "cpu"
    kinds: list[list[Case]] = [[*model_grid.memory_bounds()], [*model_grid.attentions()], [*model_grid.gemms()]]
    if cpu:
        small = [case for case in kinds[0] if isinstance(case, MemoryBoundCase) and case.num_tokens == 1]
        change = {"dtype": DType.FLOAT32, "launch": Launch.EAGER}
        kinds = [[case.model_copy(update=change) for case in small if case.hidden_size <= _CPU_WIDTH], [], []]
    turns = [_blocks(condition, [cases], _BLOCK[name]) for cases, name in zip(kinds, _BLOCK_ORDER, strict=True)]
    blocks = [block for turn in zip_longest(*turns) for block in turn if block is not None]
    return blocks if cpu else blocks + _kernel_blocks(condition, blocks, _looked_at)


def _chains(machine: Machine, condition: str) -> list[Block]:
    """Chains of unlike kernels, and what the other suites leave out of the kernels alone.

    The gap between nodes comes first, and again after streams were forked and after the profiler ran, since either may
    leave something behind in the process.
    """
    if machine.device_type == "cpu":
        return _blocks(condition, [[*chains.cpu_cases()]], _BLOCK["chain"])
    kinds: dict[str, list[Case]] = {"chain": [*chains.chain_cases()], "memory_bound": [*chains.memory_bounds()]}
    kinds |= {"attention": [*chains.attentions()], "gemm": [*chains.gemms()]}
    turns = [_blocks(condition, [cases], _BLOCK[name]) for name, cases in kinds.items()]
    blocks = [block for turn in zip_longest(*turns) for block in turn if block is not None]
    kernels = _kernel_blocks(condition, blocks, _looked_at)
    before, forked, profiled = (_gaps(condition, detail) for detail in ("", "after forks", "after the profiler"))
    return [*before, *blocks, *forked, *kernels, *profiled]


def _gaps(condition: str, detail: str) -> list[Block]:
    names = ("graph_chain", "graph_node_gap")
    cases = [LaunchCase(quantity=name, detail=detail) for name in names]
    if detail == "after forks":
        cases.insert(0, LaunchCase(quantity="graph_edge"))
    return _blocks(condition, [cases], len(cases))


def _power(machine: Machine, condition: str) -> list[Block]:
    """Loads and rests of one device, each sustained load a block of its own."""
    cpu = machine.device_type == "cpu"
    cases: list[Case] = [*(loads.cpu_loads() if cpu else (*loads.sustained_loads(), *loads.wakes()))]
    apart = [case for case in cases if not isinstance(case, WakeCase)]
    rests = [case for case in cases if isinstance(case, WakeCase)]
    return [*_blocks(condition, [apart], 1), *_blocks(condition, [rests], _REST_BLOCK)]


def _looked_at(case: Case) -> bool:
    """Whether a kernel's name is worth a record: not of every number of rows."""
    if isinstance(case, MemoryBoundCase):
        return case.hidden_size in (4096, 5120) and case.num_tokens in (1, 2048)
    if isinstance(case, GemmCase):
        return case.m in (1, 16, 128, 2048)
    return True


def _microbenchmarks(suite: str, machine: Machine, condition: str, *, first: bool) -> list[Block]:
    cpu, quick = machine.device_type == "cpu", suite == "quick"
    together = machine.num_devices > 1 and machine.has_collectives
    cases: dict[str, list[Case]] = {name: [] for name in ("launch", "gemm", "all_reduce", "attention")}
    cases |= {name: [] for name in ("memory_bound", "pair", "sustained", "odd")}
    if first:
        single = _cpu_cases(quick) if cpu else _gpu_cases(quick, machine.num_devices)
        cases |= single
    if together:
        cases["launch"] = [*cases["launch"], *_collective_launches(condition, cpu=cpu)]
        cases["all_reduce"] = list(_all_reduces(machine, condition, quick=quick, first=first))
        cases["pair"] = list(pair_cases(machine.num_devices, condition, quick=quick, cpu=cpu))
    blocks = [*_blocks(condition, _by_collective(cases["launch"]), 8)]
    turns = [_blocks(condition, [cases[name]], _BLOCK[name]) for name in ("gemm", "all_reduce", "attention")]
    turns += [_blocks(condition, [cases[name]], _BLOCK[name]) for name in ("memory_bound", "pair")]
    blocks += [block for turn in zip_longest(*turns) for block in turn if block is not None]
    blocks += _blocks(condition, [cases["sustained"]], machine.num_devices)
    blocks += _blocks(condition, [cases["odd"]], _BLOCK["gemm"])
    return blocks if cpu else blocks + _kernel_blocks(condition, blocks)


def _blocks(condition: str, groups: Iterable[Sequence[Case]], size: int) -> list[Block]:
    return [
        Block(condition, tuple(group[start : start + size])) for group in groups for start in range(0, len(group), size)
    ]


def _by_collective(cases: Sequence[Case]) -> list[list[Case]]:
    local: list[Case] = [case for case in cases if isinstance(case, LaunchCase) and case.condition is None]
    return [local, [case for case in cases if case not in local]]


def _kernel_blocks(
    condition: str, blocks: Sequence[Block], wanted: Callable[[Case], bool] = lambda _: True
) -> list[Block]:
    """A look at the kernels of everything that ran from graphs, last: the profiler may slow what follows."""
    profiled = (GemmCase, AttentionCase, MemoryBoundCase, AllReduceCase)
    targets = [
        case
        for case in chain.from_iterable(block.cases for block in blocks)
        if isinstance(case, profiled) and case.launch is Launch.GRAPH and wanted(case)
    ]
    alone: list[Case] = [KernelsCase(of=case.key) for case in targets if not case.collective]
    together: list[Case] = [KernelsCase(of=case.key) for case in targets if case.collective]
    return _blocks(condition, [together, alone], _BLOCK["kernels"])


def _collective_launches(condition: str, *, cpu: bool) -> list[Case]:
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


def remaining(blocks: Iterable[Block], done: set[str], only: str | None = None) -> list[Block]:
    """The blocks without the cases that are done or whose key does not match the regular expression `only`."""
    wanted = re.compile(only) if only else None
    found = []
    for block in blocks:
        cases = tuple(
            case for case in block.cases if case.key not in done and (wanted is None or wanted.search(case.key))
        )
        if cases:
            found.append(Block(block.condition, cases))
    return found
