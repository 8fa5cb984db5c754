"""What a suite measures, in which order: blocks of cases, the most telling first.

A block is the unit of progress: its cases run, its records are written, the deadline is looked at. Blocks of
different kinds take turns, so that a run that is cut short has some of everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kraken_sim.errors import InputError
from kraken_sim.measurements.records.kernels import GemmCase, MemoryBoundCase
from kraken_sim.measurements.records.launched import LaunchCase
from kraken_sim.measurements.records.loads import WakeCase
from kraken_sim.measurements.schema import AGAIN, CPU_CONDITION, DEFAULT_CONDITION
from kraken_sim.program.ops import DType
from kraken_sim.scenario.spec import Launch
from validation import fp8_grid, model_grid
from validation.microbench import chains, launch, loads
from validation.microbench.blocks import BLOCK_SIZES, Block, in_blocks, in_turn, kernel_blocks
from validation.microbench.full import collective_launches, microbenchmarks
from validation.rival_grid import rival_passes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kraken_sim.measurements.records.base import Case
    from validation.microbench.blocks import Machine

SUITES: Final = (
    *("quick", "full", "passes", "llama-passes", "llama-microbench", "chains", "host", "power"),
    *("fp8-passes", "fp8-microbench", "rivals"),
)

ONE_DEVICE: Final = ("llama-passes", "fp8-passes")

QUICK_CONDITIONS: Final = (DEFAULT_CONDITION, "channels-4")

_REST_BLOCK: Final = 8

_BLOCK_ORDER: Final = ("memory_bound", "attention", "gemm")

_CPU_WIDTH: Final = 2048


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
            blocks += microbenchmarks(suite, machine, condition, first=index == 0)
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
        blocks.append(Block(condition, tuple(collective_launches(condition, cpu=cpu))))
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
        return in_blocks(
            condition, [[case.model_copy(update={"launch": Launch.EAGER}) for case in small]], BLOCK_SIZES["gemm"]
        )
    kinds = (("gemm", gemms), ("memory_bound", kernels))
    blocks = in_turn([in_blocks(condition, [cases], BLOCK_SIZES[kind]) for kind, cases in kinds])
    return blocks + kernel_blocks(condition, blocks, _looked_at)


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
    turns = [in_blocks(condition, [cases], BLOCK_SIZES[name]) for cases, name in zip(kinds, _BLOCK_ORDER, strict=True)]
    blocks = in_turn(turns)
    return blocks if cpu else blocks + kernel_blocks(condition, blocks, _looked_at)


def _chains(machine: Machine, condition: str) -> list[Block]:
    """Chains of unlike kernels, and what the other suites leave out of the kernels alone.

    The gap between nodes comes first, and again after streams were forked and after the profiler ran, since either may
    leave something behind in the process.
    """
    if machine.device_type == "cpu":
        return in_blocks(condition, [[*chains.cpu_cases()]], BLOCK_SIZES["chain"])
    kinds: dict[str, list[Case]] = {"chain": [*chains.chain_cases()], "memory_bound": [*chains.memory_bounds()]}
    kinds |= {"attention": [*chains.attentions()], "gemm": [*chains.gemms()]}
    turns = [in_blocks(condition, [cases], BLOCK_SIZES[name]) for name, cases in kinds.items()]
    blocks = in_turn(turns)
    kernels = kernel_blocks(condition, blocks, _looked_at)
    before, forked, profiled = (_gaps(condition, detail) for detail in ("", "after forks", "after the profiler"))
    return [*before, *blocks, *forked, *kernels, *profiled]


def _gaps(condition: str, detail: str) -> list[Block]:
    names = ("graph_chain", "graph_node_gap")
    cases = [LaunchCase(quantity=name, detail=detail) for name in names]
    if detail == "after forks":
        cases.insert(0, LaunchCase(quantity="graph_edge"))
    return in_blocks(condition, [cases], len(cases))


def _power(machine: Machine, condition: str) -> list[Block]:
    """Loads and rests of one device, each sustained load a block of its own."""
    cpu = machine.device_type == "cpu"
    cases: list[Case] = [*(loads.cpu_loads() if cpu else (*loads.sustained_loads(), *loads.wakes()))]
    apart = [case for case in cases if not isinstance(case, WakeCase)]
    rests = [case for case in cases if isinstance(case, WakeCase)]
    return [*in_blocks(condition, [apart], 1), *in_blocks(condition, [rests], _REST_BLOCK)]


def _looked_at(case: Case) -> bool:
    """Whether a kernel's name is worth a record: not of every number of rows."""
    if isinstance(case, MemoryBoundCase):
        return case.hidden_size in (4096, 5120) and case.num_tokens in (1, 2048)
    if isinstance(case, GemmCase):
        return case.m in (1, 16, 128, 2048)
    return True
