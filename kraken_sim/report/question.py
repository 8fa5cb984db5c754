"""The question of a prediction in full, as names and values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.architectures.workload import Phase
from kraken_sim.report.explore import model_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.scenario.spec import Scenario


def question_facts(predictions: Sequence[Prediction]) -> list[tuple[str, str]]:
    """What was asked: model, work, machine and run; of several predictions what they have in common."""
    return [*_model(predictions), *_work(predictions[0].scenario), *_machine(predictions[0]), *_run(predictions)]


def _model(predictions: Sequence[Prediction]) -> Iterator[tuple[str, str]]:
    first = predictions[0]
    config = first.resolved.config
    yield "Model", model_name(first.scenario)
    yield "Parameters", _joined(f"{prediction.num_parameters / 1e9:.2f} B" for prediction in predictions)
    yield "Layers", str(config.num_hidden_layers)
    yield "Hidden size", str(config.hidden_size)
    heads = f"{config.num_attention_heads} of {config.head_dim}"
    if config.num_key_value_heads != config.num_attention_heads:
        heads += f", {config.num_key_value_heads} for keys and values"
    yield "Attention heads", heads
    yield "Vocabulary", f"{config.vocab_size:,}"
    yield "Architecture", _joined(prediction.resolved.kind for prediction in predictions)


def _work(scenario: Scenario) -> Iterator[tuple[str, str]]:
    phases = {Phase.PREFILL: "prefill", Phase.DECODE: "a step of decode", Phase.GENERATE: "a whole answer"}
    yield "Phase", phases[scenario.phase]
    if scenario.sequences is not None:
        yield "Sequences", f"{scenario.batch_size} that are not alike"
        yield "Longest context", f"{scenario.context_length:,} tokens"
    else:
        yield "Batch", f"{scenario.batch_size:,}"
        words = "Tokens in the cache" if scenario.phase is Phase.DECODE else "Tokens of the prompt"
        yield words, f"{scenario.context_length:,}"
    if scenario.output_length is not None:
        yield "Tokens of the answer", f"{scenario.output_length:,}"
    if scenario.prefix_length:
        yield "Cached prefix", f"{scenario.prefix_length:,} tokens"
    yield "Number format", str(scenario.dtype)
    if scenario.quantization is not None:
        yield "Quantisation", str(scenario.quantization)
    if scenario.kv_cache_dtype.value != "auto":
        yield "KV cache in", str(scenario.kv_cache_dtype.value)


def _machine(prediction: Prediction) -> Iterator[tuple[str, str]]:
    profile, scenario = prediction.profile, prediction.scenario
    yield "Machine", scenario.hardware
    yield "GPUs", f"{prediction.resolved.num_devices} x {profile.device.name}"
    if prediction.resolved.num_devices > 1:
        yield "Joined by", str(profile.topology.interconnect(prediction.resolved.num_devices).kind.value)
    if scenario.placement is not None:
        yield "Placement", scenario.placement


def _run(predictions: Sequence[Prediction]) -> Iterator[tuple[str, str]]:
    runtime = predictions[0].scenario.runtime
    yield "Kernels", _joined(str(prediction.scenario.runtime.kernels.value) for prediction in predictions)
    yield "Launch", "CUDA graph" if runtime.launch.value == "graph" else "eager, kernel by kernel"
    yield "Load", f"{runtime.load.value}"
    clocks = [prediction.clock_hz / 1e6 for prediction in predictions]
    low, high = min(clocks), max(clocks)
    yield "Clock of the SMs", f"{low:.0f} MHz" if high - low < 1.0 else f"{low:.0f} to {high:.0f} MHz"
    if predictions[0].resolved.num_devices > 1:
        yield "Collectives", str(runtime.collective.library.value)


def _joined(words: Iterator[str]) -> str:
    """Different ones, in their order."""
    return ", ".join(dict.fromkeys(words))
