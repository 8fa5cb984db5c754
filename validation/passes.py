"""Whole passes of real models, prefill and decode: which ones a suite measures, and one of them ready to run.

    for cases in same_weights(list_passes("passes", num_devices=2)):
        with pass_model(cases[0], device) as model:
            for case in cases:
                with ModelPass(model, case) as one:
                    one.run()           # one TTFT or one decode step, on the current stream

A pass covers what TTFT covers: embedding lookup, all layers, for Kraken the concat projection and its
AllReduce, the final norm and the LM head for the last token of each sequence. A decode step does the same for one new
token of each sequence, over a cache of `context_length` tokens before it.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, Self

import torch
import torch.distributed as dist

from kraken_sim.errors import InputError, closest
from kraken_sim.measurements.records.passes import PassCase
from kraken_sim.measurements.schema import CPU_CONDITION, DEFAULT_CONDITION
from kraken_sim.models.kraken_width import kraken_config_for_latency
from kraken_sim.models.presets import preset
from kraken_sim.program.ops import DType
from kraken_sim.scenario.resolve import memory_of, resolve_model
from kraken_sim.scenario.spec import Launch, scenario_from
from validation.models import build_model
from validation.models.kraken import KrakenDecoder
from validation.models.quantized import quantize_model
from validation.models.wired import WiredDecoder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.scenario.resolve import ResolvedModel
    from kraken_sim.scenario.spec import Scenario
    from validation.models.decoder import Decoder

DeviceType = Literal["cuda", "cpu"]

GRID: Final[tuple[tuple[str, int | None], ...]] = (
    ("1.3B", None),
    ("6.7B", None),
    ("13B", None),
    ("65B", 20),
    ("175B", 24),
)
"""Presets and, where memory allows a quarter of the layers only, how many (as in the Kraken paper)."""

GRID_TOKENS: Final = (128, 512, 2048)
SUITES: Final = ("quick", "passes", "full")

_SIZES: Final[Mapping[str, tuple[tuple[tuple[str, int | None], ...], tuple[int, ...]]]] = MappingProxyType(
    {
        "quick": (GRID[:1], GRID_TOKENS[:2]),
        "passes": (GRID, GRID_TOKENS),
        "full": (GRID, GRID_TOKENS),
        "cpu": ((("125M", 2),), (32, 128)),
    }
)

_WARM_UP_RUNS: Final = 3
_FEWEST_WAYS: Final = 2


def list_passes(
    suite: str,
    num_devices: int,
    *,
    device_type: DeviceType = "cuda",
    condition: str | None = None,
) -> tuple[PassCase, ...]:
    """The passes of a suite, those with the same weights next to each other.

    `passes` and `full` are the grid of presets 1.3B to 175B x 128, 512, 2048 tokens x standard, parallel,
    Kraken with and without overlap x graph and eager; `quick` is its smallest model at 128 and 512 tokens. On
    CPUs every suite is two layers of the smallest preset in float32, eager. One device runs the two sub-layers
    of a 2-way Kraken one after the other, so it has nothing to overlap.

    Raises:
        InputError: an unknown suite, or no device.
    """
    if suite not in SUITES:
        raise InputError.single("suite", "unknown", suite, "quick", closest(suite, SUITES))
    if num_devices < 1:
        raise InputError.single("num_devices", "must be at least 1", num_devices, "2")
    cpu = device_type == "cpu"
    models, tokens = _SIZES["cpu" if cpu else suite]
    default_condition = CPU_CONDITION if cpu else DEFAULT_CONDITION
    return tuple(
        PassCase(
            architecture=architecture,
            model=model,
            num_devices=num_devices,
            phase="prefill",
            batch_size=1,
            context_length=length,
            dtype=DType.FLOAT32 if cpu else DType.FLOAT16,
            launch=launch,
            overlap=overlap,
            condition=default_condition if condition is None else condition,
        )
        for name, layers in models
        for model, architecture, overlaps in _models(name, layers, num_devices)
        for length in tokens
        for overlap in overlaps
        for launch in ((Launch.EAGER,) if cpu else (Launch.GRAPH, Launch.EAGER))
    )


def _models(
    name: str, num_hidden_layers: int | None, num_devices: int
) -> Iterator[tuple[dict[str, object], dict[str, object], tuple[bool, ...]]]:
    """`model` and `architecture` of a scenario, and the settings of `overlap` that make a difference."""
    model: dict[str, object] = {"preset": name}
    if num_hidden_layers is not None:
        model["num_hidden_layers"] = num_hidden_layers
    yield model, {"kind": "standard"}, (False,)
    yield model, {"kind": "parallel"}, (False,)
    ways = max(num_devices, _FEWEST_WAYS)
    # The width is the whole model's, whatever part of its layers runs.
    shape = kraken_config_for_latency(preset(name), ways)
    architecture: dict[str, object] = {
        "kind": "kraken",
        "ways": ways,
        "hidden_size": shape.hidden_size,
        "num_attention_heads": shape.num_attention_heads,
    }
    yield model, architecture, (True, False) if num_devices > 1 else (False,)


def weights_key(case: PassCase) -> str:
    """Equal for passes that one set of weights can serve."""
    parts = (case.model, case.architecture, case.num_devices, case.dtype, case.quantization, case.activation_scheme)
    return "/".join(str(sorted(part.items())) if isinstance(part, dict) else str(part) for part in parts)


def same_weights(cases: Sequence[PassCase]) -> list[tuple[PassCase, ...]]:
    """Runs of neighbouring cases that share their weights."""
    return [tuple(group) for _, group in groupby(cases, weights_key)]


def required_bytes(case: PassCase) -> int:
    """Device memory that one rank needs for weights, cache and activations of a pass.

    Raises:
        InputError: the case's shapes do not fit together or do not fit the devices.
    """
    scenario, resolved = _resolve(case)
    return memory_of(scenario, resolved).total_bytes


def build_pass_model(case: PassCase, device: torch.device | str) -> Decoder:
    """This rank's part of the case's model with random weights, filled on `device`; all ranks call it.

    Raises:
        InputError: the case's shapes do not fit together or do not fit the ranks.
    """
    _, resolved = _resolve(case)
    model = build_model(
        resolved.kind,
        _config_of(resolved),
        num_ways=resolved.layout.blocks_per_layer,
        fields={name: value for name, value in case.architecture.items() if name != "kind"},
        dtype=getattr(torch, case.dtype.value),
        device=device,
    )
    if case.quantization is not None:
        quantize_model(model, case.quantization, case.activation_scheme)
    return model


@contextmanager
def pass_model(case: PassCase, device: torch.device | str) -> Iterator[Decoder]:
    """The case's model for the length of a with block, its memory given back to the device afterwards."""
    model = build_pass_model(case, device)
    try:
        yield model
    finally:
        # Storage goes now, whoever still holds the module: the next model may need all of the device.
        model.to("meta")
        gc.collect()
        if torch.device(device).type == "cuda":
            torch.cuda.empty_cache()


class ModelPass:
    """One prefill or decode step on static inputs; use as a context manager, or call `close`.

    `logits` [batch_size, V/N] are those of the last run (on CUDA, once the stream is done). The cache of a decode step
    holds random keys and values; each run writes those of the new token to the same place.

    Args:
        model: this rank's model, built for the case (or one that shares its weights).
        case: phase, tokens, batch, launch, overlap and kernel set. With launch graph the pass is captured here, NCCL
            kernels and side stream included; all ranks construct the same passes in the same order.
        seed: of the prompt, the same on every rank.

    Raises:
        InputError: more tokens than positions, or a graph on a device without CUDA.
    """

    def __init__(self, model: Decoder, case: PassCase, seed: int = 0) -> None:
        weight = model.embeddings.tokens.weight
        if case.launch is Launch.GRAPH and weight.device.type != "cuda":
            message = f"a CUDA graph needs a CUDA device, not {weight.device.type}"
            raise InputError.single("runtime.launch", message, "graph", "eager")
        self.model, self.case, self.device = model, case, weight.device
        decode = case.phase == "decode"
        self.start = case.context_length if decode else 0
        shape = (case.batch_size, 1 if decode else case.context_length)
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(model.config.vocab_size, shape, generator=generator)
        self.input_ids = ids.to(self.device)
        self.cache = model.new_cache(case.batch_size, self.start + shape[1])
        if decode:
            self.cache.data.normal_()
        self.logits: torch.Tensor | None = None
        self._graph = self._capture() if case.launch is Launch.GRAPH else None

    def run(self) -> None:
        """Computes the next token's logits once; returns when the work is queued."""
        if self._graph is None:
            self.forward()
        else:
            self._graph.replay()

    def close(self) -> None:
        """Gives the graph back; NCCL's communicators must outlive the graphs that captured them."""
        if self._graph is not None:
            torch.cuda.synchronize(self.device)
            self._graph.reset()
        self._graph = self.logits = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def forward(self) -> None:
        """Launches the kernels of the pass one by one on the current stream, whatever the case's launch."""
        if isinstance(self.model, KrakenDecoder | WiredDecoder):
            self.model.overlap = self.case.overlap
        self.model.kernels = self.case.kernels
        with torch.inference_mode():
            self.logits = self.model(self.input_ids, self.cache, start=self.start)

    def _capture(self) -> torch.cuda.CUDAGraph:
        """Warms up and captures on the same stream, so that cuBLAS keeps its workspace.

        NCCL connects its peers at the first AllReduce of a size class, which cannot happen inside a capture.
        The default stream cannot be captured.
        """
        stream = torch.cuda.current_stream(self.device)
        if stream == torch.cuda.default_stream(self.device):
            stream = torch.cuda.Stream(self.device)
            stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_RUNS):
                self.forward()
        torch.cuda.synchronize(self.device)
        if self.model.world.size > 1:
            dist.barrier(device_ids=[torch.cuda.current_device()])
            torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        # thread_local: NCCL's watchdog queries events from its own thread meanwhile.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            self.forward()
        return graph


def _resolve(case: PassCase) -> tuple[Scenario, ResolvedModel]:
    scenario = scenario_from(
        {
            "name": case.kind,
            "hardware": "this machine",
            "model": case.model,
            "architecture": case.architecture,
            "num_devices": case.num_devices,
            "phase": case.phase,
            "batch_size": case.batch_size,
            "context_length": case.context_length,
            "dtype": case.dtype,
            **({} if case.quantization is None else {"quantization": case.quantization}),
        }
    )
    return scenario, resolve_model(scenario)


def _config_of(resolved: ResolvedModel) -> TransformerConfig:
    """The shape that `build_model` wants: the model's, or a Kraken sub-layer's."""
    return replace(resolved.config, **asdict(resolved.layout.block))
