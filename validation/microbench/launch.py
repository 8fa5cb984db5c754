"""What launching costs, on the host and between kernels.

Host time of one call, the device kept busy (eager mode):
    host_kernel/<name>        one functional call
    host_module/<name>        the same through torch.nn
    host_kernel/generated     a call of a kernel that torch.compile has generated
    host_layer/standard       one decoder layer of a model on one device, of several in turn
    host_layer/llama          the same of a Llama-like one: rotary, cache write and SiLU-mul are generated kernels
    host_event/<record|wait|stream_switch>
    host_all_reduce/<blocking|side_stream>   side_stream with its events and stream switch
    host_graph_launch/nodes=<n>
Device time:
    graph_chain               period of a minimal kernel in a graph
    graph_node_gap            what is left of that period when the kernel's own work goes to nothing: from chains of
                              kernels that spin for a known number of cycles
    graph_edge                extra of a node that waits for a node of another stream: half of what fork
                              and join add to the critical path
    graph_start/nodes=<n>     from an event before the launch call, on an idle device, to the first node
    graph_end                 from the last node to an event recorded after the launch call
    queued_chain              period of a minimal kernel launched one by one, all queued beforehand
    queued_edge               extra of a kernel that waits for an event of another stream, likewise
    eager_chain               period of a minimal kernel when the host launches while the device runs
    round_trip                host time of launching a minimal kernel and waiting for it
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

import torch
import torch.nn.functional as nnf

from kraken_sim.models.hf import config_from_fields
from kraken_sim.program.ops import DType
from validation.microbench.bench import Bench, Outcome, SkipCase
from validation.models import build_model, fused
from validation.models.communication import Group
from validation.models.layers import Step
from validation.timing import time_eager, time_graph, time_host, time_queued

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from kraken_sim.measurements.records.launched import LaunchCase
    from kraken_sim.models.config import TransformerConfig

    Call = Callable[[], object]
    Measured = tuple[list[float], int]

REPEATS: Final = 9
_SHORT: Final = 20
_LONG: Final = 120
_SPIN_CYCLES: Final = (2_000, 20_000)
_LAYERS: Final = 8
_TOKENS: Final = 16
_WIDTH: Final = 256
GRAPH_SIZES: Final = (1, 100, 500)

LOCAL: Final = (
    *((name, detail) for name in ("host_kernel",) for detail in ("add", "gemm", "norm", "gelu", "attention", "copy")),
    ("host_module", "linear"),
    ("host_module", "layer_norm"),
    ("host_layer", "standard"),
    ("eager_chain", ""),
    ("round_trip", ""),
)
"""Quantities of one device that a CPU has too."""

LOCAL_CUDA: Final = (
    *(("host_event", detail) for detail in ("record", "wait", "stream_switch")),
    *(("host_graph_launch", f"nodes={count}") for count in GRAPH_SIZES),
    ("graph_chain", ""),
    ("graph_node_gap", ""),
    ("graph_edge", ""),
    *(("graph_start", f"nodes={count}") for count in GRAPH_SIZES),
    ("graph_end", ""),
    ("queued_chain", ""),
    ("queued_edge", ""),
)
HOST: Final = (
    *LOCAL,
    ("host_layer", "llama"),
)
"""What the host suite measures on CPUs too."""

HOST_CUDA: Final = (
    ("host_kernel", "generated"),
    *((name, detail) for name, detail in LOCAL_CUDA if name in ("host_event", "host_graph_launch", "graph_start")),
)
COLLECTIVE: Final = (("host_all_reduce", "blocking"), ("host_all_reduce", "side_stream"))


def run(bench: Bench, case: LaunchCase) -> Outcome:
    """Measure one quantity."""
    measure = _MEASURES.get(case.quantity)
    if measure is None:
        raise SkipCase(f"no such quantity: {case.quantity}")
    samples, calls = measure(bench, case.detail)
    return Outcome({"time_s": samples}, {"calls": calls, "repeats": len(samples)})


def _dtype(bench: Bench) -> DType:
    return DType.FLOAT16 if bench.clock.is_cuda else DType.FLOAT32


def _tiny(bench: Bench) -> Call:
    data = torch.ones(1, device=bench.device)
    return partial(data.add_, 1)


def _small(bench: Bench, *shape: int) -> Tensor:
    return bench.inputs(_dtype(bench)).take(*shape)


def _host_kernel(bench: Bench, detail: str) -> Measured:
    x, weight, bias = _small(bench, 16, 256), _small(bench, 256, 256), _small(bench, 256)
    q, target = _small(bench, 1, 16, 2, 64).transpose(1, 2), weight[:16]
    calls: Mapping[str, Call] = {
        "add": lambda: x + x,
        "gemm": lambda: nnf.linear(x, weight, bias),
        "norm": lambda: nnf.layer_norm(x, (256,), bias, bias),
        "gelu": lambda: nnf.gelu(x),
        "attention": lambda: nnf.scaled_dot_product_attention(q, q, q, is_causal=True),
        "copy": lambda: target.copy_(x),
        "generated": lambda: fused.silu_mul(x),
    }
    return _host(bench, calls[detail])


def _host_module(bench: Bench, detail: str) -> Measured:
    kind = torch.float16 if bench.clock.is_cuda else torch.float32
    x = _small(bench, 16, 256)
    modules: Mapping[str, torch.nn.Module] = {
        "linear": torch.nn.Linear(256, 256, device=bench.device, dtype=kind),
        "layer_norm": torch.nn.LayerNorm(256, device=bench.device, dtype=kind),
    }
    return _host(bench, partial(modules[detail], x))


def _host_layer(bench: Bench, detail: str) -> Measured:
    """Small enough that the device never holds the host up, deep enough that no layer is warm from the call before."""
    kind = torch.float16 if bench.clock.is_cuda else torch.float32
    model = build_model("standard", _layer_config(detail), dtype=kind, device=bench.device, world=Group())
    rotary = None if model.rotary is None else model.rotary(0, _TOKENS)
    x, step = _small(bench, _TOKENS, _WIDTH), Step(1, _TOKENS, cache=model.new_cache(1, _TOKENS), rotary=rotary)

    def layers() -> None:
        with torch.inference_mode():
            model.run_layers(x, step)

    # On a CPU the layers compute, which takes long and says nothing about launches.
    samples, count = _host(bench, layers, count=20 if bench.clock.is_cuda else 2)
    return [sample / _LAYERS for sample in samples], count * _LAYERS


def _layer_config(detail: str) -> TransformerConfig:
    """A narrow GPT-2-like model (`standard`) or a Llama-like one."""
    sizes = {"num_hidden_layers": _LAYERS, "num_attention_heads": 4, "vocab_size": 512, "max_position_embeddings": 64}
    fields: dict[str, dict[str, object]] = {
        "standard": {"model_type": "gpt2"},
        "llama": {"model_type": "llama", "num_key_value_heads": 2, "intermediate_size": 2 * _WIDTH},
    }
    return config_from_fields({**fields[detail], **sizes, "hidden_size": _WIDTH})


def _host(bench: Bench, call: Call, count: int = 200, gate_s: float = 8e-3) -> Measured:
    for _ in range(min(20, count)):
        call()
    bench.clock.synchronize()
    return time_host(bench.clock, call, count, REPEATS, gate_s=gate_s), count


def _host_event(bench: Bench, detail: str) -> Measured:
    event, main, side = torch.cuda.Event(), bench.clock.main, bench.clock.side
    event.record(main)

    def switch() -> None:
        with torch.cuda.stream(side):
            pass

    calls: Mapping[str, Call] = {
        "record": partial(event.record, main),
        "wait": partial(main.wait_event, event),
        "stream_switch": switch,
    }
    return _host(bench, calls[detail])


def _host_all_reduce(bench: Bench, detail: str) -> Measured:
    data = torch.zeros(1024, device=bench.device)
    forked, joined = (torch.cuda.Event(), torch.cuda.Event()) if bench.clock.is_cuda else (None, None)
    main, side = bench.clock.main, bench.clock.side

    def beside() -> None:
        assert forked is not None
        assert joined is not None
        forked.record(main)
        side.wait_event(forked)
        with torch.cuda.stream(side):
            bench.all_reduce(data)
            joined.record(side)
        main.wait_event(joined)

    call = beside if detail == "side_stream" else partial(bench.all_reduce, data)
    if detail == "side_stream" and not bench.clock.is_cuda:
        raise SkipCase("a CPU has no streams")
    return _host(bench, call, count=50, gate_s=10e-3)


def _chain_graph(bench: Bench, count: int) -> torch.cuda.CUDAGraph:
    tiny = _tiny(bench)
    tiny()

    def body() -> None:
        for _ in range(count):
            tiny()

    graph: torch.cuda.CUDAGraph = bench.clock.capture(body)
    graph.replay()
    bench.clock.synchronize()
    return graph


def _nodes(detail: str) -> int:
    return int(detail.removeprefix("nodes="))


def _host_graph_launch(bench: Bench, detail: str) -> Measured:
    graph = _chain_graph(bench, _nodes(detail))
    return time_host(bench.clock, graph.replay, 10, REPEATS, gate_s=5e-3), 10


def _slope(short: list[float], long: list[float], few: int = _SHORT, many: int = _LONG) -> list[float]:
    """Cost of one more call, from periods of a short and a long chain: what happens at the ends drops out."""
    return [(many * b - few * a) / (many - few) for a, b in zip(short, long, strict=True)]


def _graph_slope(bench: Bench, call: Call) -> list[float]:
    short, long = (time_graph(bench.clock, [call] * count, REPEATS, lead=[call]) for count in (_SHORT, _LONG))
    return _slope(short, long)


def _graph_chain(bench: Bench, _: str) -> Measured:
    return _graph_slope(bench, _tiny(bench)), _LONG


def _graph_node_gap(bench: Bench, _: str) -> Measured:
    few, many = _SPIN_CYCLES
    short, long = (_graph_slope(bench, partial(torch.cuda._sleep, cycles)) for cycles in _SPIN_CYCLES)
    return [(many * a - few * b) / (many - few) for a, b in zip(short, long, strict=True)], _LONG


def _graph_edge(bench: Bench, _: str) -> Measured:
    on_main, on_side = _tiny(bench), _tiny(bench)

    def diamond() -> None:
        on_main()
        forked, joined = torch.cuda.Event(), torch.cuda.Event()
        forked.record(bench.clock.main)
        bench.clock.side.wait_event(forked)
        with torch.cuda.stream(bench.clock.side):
            on_side()
            joined.record(bench.clock.side)
        on_main()
        bench.clock.main.wait_event(joined)

    plain, forked_joined = _graph_slope(bench, on_main), _graph_slope(bench, diamond)
    return [(b - 2 * a) / 2 for a, b in zip(plain, forked_joined, strict=True)], _LONG


def _graph_start(bench: Bench, detail: str) -> Measured:
    first, _ = _graph_ends(bench, _nodes(detail))
    return first, 1


def _graph_end(bench: Bench, _: str) -> Measured:
    return _graph_ends(bench, GRAPH_SIZES[1])[1], 1


def _graph_ends(bench: Bench, count: int) -> tuple[list[float], list[float]]:
    """Event before the launch call to first node, last node to event after the call; the device idle before."""
    clock = bench.clock
    if not clock.events_in_graphs:
        raise SkipCase("this torch cannot time events inside graphs")
    tiny, first, last = _tiny(bench), clock.event(in_graph=True), clock.event(in_graph=True)
    tiny()

    def body() -> None:
        first.record()
        for _ in range(count):
            tiny()
        last.record()

    graph = clock.capture(body)
    starts, ends = [], []
    for repeat in range(2 + REPEATS):
        begun, done = clock.event(), clock.event()
        clock.synchronize()
        time.sleep(200e-6)
        begun.record()
        graph.replay()
        done.record()
        clock.synchronize()
        if repeat >= 2:
            starts.append(begun.elapsed_time(first) * 1e-3)
            ends.append(last.elapsed_time(done) * 1e-3)
    return starts, ends


def _queued_slope(bench: Bench, call: Call) -> list[float]:
    def body(count: int) -> None:
        for _ in range(count):
            call()

    short, long = (time_queued(bench.clock, partial(body, count), REPEATS) for count in (_SHORT, _LONG))
    return [(b - a) / (_LONG - _SHORT) for a, b in zip(short, long, strict=True)]


def _queued_chain(bench: Bench, _: str) -> Measured:
    return _queued_slope(bench, _tiny(bench)), _LONG


def _queued_edge(bench: Bench, _: str) -> Measured:
    on_main, on_side = _tiny(bench), _tiny(bench)
    there, back = torch.cuda.Event(), torch.cuda.Event()

    def ping_pong() -> None:
        on_main()
        there.record(bench.clock.main)
        bench.clock.side.wait_event(there)
        with torch.cuda.stream(bench.clock.side):
            on_side()
            back.record(bench.clock.side)
        bench.clock.main.wait_event(back)

    plain, crossing = _queued_slope(bench, on_main), _queued_slope(bench, ping_pong)
    return [(b - 2 * a) / 2 for a, b in zip(plain, crossing, strict=True)], _LONG


def _eager_chain(bench: Bench, _: str) -> Measured:
    count = 300
    return time_eager(bench.clock, [_tiny(bench)] * count, REPEATS), count


def _round_trip(bench: Bench, _: str) -> Measured:
    tiny = _tiny(bench)
    samples: list[float] = []
    for repeat in range(5 + REPEATS):
        begun = time.perf_counter()
        tiny()
        bench.clock.synchronize()
        if repeat >= 5:
            samples.append(time.perf_counter() - begun)
    return samples, 1


_MEASURES: Final[Mapping[str, Callable[[Bench, str], Measured]]] = {
    "host_kernel": _host_kernel,
    "host_module": _host_module,
    "host_layer": _host_layer,
    "host_event": _host_event,
    "host_all_reduce": _host_all_reduce,
    "host_graph_launch": _host_graph_launch,
    "graph_chain": _graph_chain,
    "graph_node_gap": _graph_node_gap,
    "graph_edge": _graph_edge,
    "graph_start": _graph_start,
    "graph_end": _graph_end,
    "queued_chain": _queued_chain,
    "queued_edge": _queued_edge,
    "eager_chain": _eager_chain,
    "round_trip": _round_trip,
}
