"""What the simulator says to a published figure: its time and its 90 % interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kraken_sim import Scenario, predict_op, simulate
from kraken_sim.errors import InputError, KrakenSimError, closest
from kraken_sim.predict.uncertainty import block_residuals, interval_of
from kraken_sim.profiles.load import load_profile
from validation.public_facts import COLLECTIVES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kraken_sim.predict.prediction import Prediction
    from validation.public_facts import Fact

WARM_ROWS: Final = 16
"""Products of more rows were measured with the weights in L2; a choice of ours."""


def _llama(
    layers: int, hidden: int, heads: int, kv_heads: int, ffn: int, vocabulary: int, **more: int
) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "max_position_embeddings": 16384,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": ffn,
        "vocab_size": vocabulary,
        **more,
    }


def _gpt(layers: int, heads: int, head_dim: int, vocabulary: int = 51200, **more: int) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "max_position_embeddings": 16384,
        "num_hidden_layers": layers,
        "hidden_size": heads * head_dim,
        "num_attention_heads": heads,
        "vocab_size": vocabulary,
        **more,
    }


MODELS: Final[Mapping[str, dict[str, Any]]] = {
    "Llama-2-7B": _llama(32, 4096, 32, 32, 11008, 32000),
    "Llama-2-70B": _llama(80, 8192, 64, 8, 28672, 32000),
    "Llama-3-8B": _llama(32, 4096, 32, 8, 14336, 128256),
    "Llama-3-70B": _llama(80, 8192, 64, 8, 28672, 128256),
    "Mistral-7B": _llama(32, 4096, 32, 8, 14336, 32000),
    "Qwen2.5-14B": _llama(48, 5120, 40, 8, 13824, 152064),
    "Qwen3-32B": _llama(64, 5120, 64, 8, 25600, 151936, head_dim=128),
    "GPT-J-6B": _gpt(28, 16, 256, 50400),
    "Falcon-180B": _gpt(80, 232, 64, 65024, num_key_value_heads=8),
    "BLOOM-176B": _gpt(70, 112, 128, 250880),
    "GPT-6.7B": _gpt(32, 32, 128),
    "GPT-20B": _gpt(44, 48, 128),
    "GPT-89B": _gpt(48, 96, 128),
    "GPT-175B": _gpt(96, 96, 128),
    "GPT-530B": _gpt(105, 128, 160),
    "GPT-3-layer": _gpt(96, 96, 128),
    "BERT-base": _gpt(12, 12, 64, 128),
    "BERT-6B": _gpt(32, 32, 128, 128),
}
"""The models by their names, as their configurations on Hugging Face or their papers have them: datasheet."""

PARALLEL: Final = ("GPT-J-6B", "Falcon-180B")
"""Models whose attention and feed-forward network stand side by side."""

COLLECTIVES_OF: Final[tuple[tuple[str, dict[str, str]], ...]] = (
    ("SGLang", {"library": "custom", "selection": "vllm"}),
    ("vLLM", {"library": "custom", "selection": "vllm"}),
    ("TensorRT-LLM 0.5", {"library": "nccl"}),
    ("TensorRT-LLM", {"library": "custom", "selection": "tensorrt_llm_legacy"}),
    ("torch.compile, intra-node", {"library": "custom"}),
    ("gpt-fast", {"library": "custom"}),
    ("torch.compile, NCCL_P2P_DISABLE", {"library": "nccl", "transport": "shm"}),
)
"""Whose AllReduces an engine runs, by the beginning of its name; others run NCCL's."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The predicted time of a figure, and where it lies with 90 %."""

    fact: Fact
    predicted_s: float
    low_s: float
    high_s: float

    @property
    def error(self) -> float:
        """Predicted / published - 1."""
        return self.predicted_s / self.fact.measured_s - 1.0

    @property
    def inside(self) -> bool:
        """Whether the published time lies in the interval."""
        return self.low_s <= self.fact.measured_s <= self.high_s


def answers(facts: list[Fact]) -> tuple[list[Answer], list[tuple[Fact, str]]]:
    """The figures answered, and those that cannot be, with the reason."""
    found, unanswered = [], []
    for fact in facts:
        try:
            found.append(answer(fact))
        except KrakenSimError as error:
            unanswered.append((fact, str(error).splitlines()[-1].strip(" -")))
    return found, unanswered


def answer(fact: Fact) -> Answer:
    """One figure's prediction.

    Raises:
        InputError: The machine, the model or the shape is not known.
        InfeasibleError: The machine has too few GPUs or too little memory.
    """
    if fact.kind in ("gemm", "attention") or fact.kind in COLLECTIVES:
        return _of_op(fact)
    steps = list(_steps(fact))
    seconds = sum(share * prediction.latency_s for share, prediction in steps)
    low = min(prediction.interval.low_s / prediction.latency_s for _, prediction in steps)
    high = max(prediction.interval.high_s / prediction.latency_s for _, prediction in steps)
    return Answer(fact, seconds, low * seconds, high * seconds)


def _of_op(fact: Fact) -> Answer:
    seconds = predict_op(fact.machine, _op(fact))
    block = "collectives.alone" if fact.kind in COLLECTIVES else fact.kind
    residuals = block_residuals(load_profile(fact.machine).provenance)
    found = interval_of(seconds, {block: {fact.shape: seconds}}, residuals)
    return Answer(fact, seconds, found.low_s, found.high_s)


def _op(fact: Fact) -> dict[str, Any]:
    shape = fact.fields
    if fact.kind == "gemm":
        weights = "warm" if shape["m"] > WARM_ROWS else "cold"
        return {
            "op": "gemm",
            "m": shape["m"],
            "n": shape["n"],
            "k": shape["k"],
            "dtype": fact.dtype,
            "weights": weights,
        }
    if fact.kind == "attention":
        return {
            "op": "attention",
            "batch": shape["b"],
            "q_len": shape["q"],
            "kv_len": shape["kv"],
            "num_heads": shape["h"],
            "num_kv_heads": shape["hkv"],
            "head_dim": shape["d"],
            "causal": bool(shape["causal"]),
            "dtype": fact.dtype,
            "serving": False,
        }
    return {"op": fact.kind, "bytes": int(fact.shape), "num_devices": fact.num_devices}


def _steps(fact: Fact) -> Iterator[tuple[float, Prediction]]:
    """The steps that make up a figure of passes, and how many of each.

    A decode step grows evenly with its cache; a layer is half of what two more take.
    """
    if fact.kind.startswith("layer_"):
        for share, layers in ((0.5, 3), (-0.5, 1)):
            yield share, _step(fact, fact.kind.removeprefix("layer_"), fact.tokens_in, layers)
        return
    if fact.kind == "decode":
        yield 1.0, _step(fact, "decode", fact.tokens_in)
        return
    yield 1.0, _step(fact, "prefill", fact.tokens_in)
    decoded = fact.tokens_out - 1
    if fact.kind == "generate" and decoded > 0:
        yield decoded / 2.0, _step(fact, "decode", fact.tokens_in + 1)
        yield decoded / 2.0, _step(fact, "decode", fact.tokens_in + decoded)


def _step(fact: Fact, phase: str, context: int, layers: int | None = None) -> Prediction:
    name, _, kind = fact.shape.partition(":")
    if name not in MODELS:
        message = f"must be one of {', '.join(MODELS)}"
        raise InputError.single("model_or_shape", message, name, "Llama-3-8B", closest(name, list(MODELS)))
    collective = next((policy for prefix, policy in COLLECTIVES_OF if fact.library.startswith(prefix)), {})
    return simulate(
        Scenario.model_validate(
            {
                "hardware": fact.machine,
                "model": MODELS[name] | ({} if layers is None else {"num_hidden_layers": layers}),
                "architecture": {"kind": kind or ("parallel" if name in PARALLEL else "standard")},
                "num_devices": fact.num_devices,
                "batch_size": fact.batch,
                "dtype": fact.dtype,
                "phase": phase,
                "context_length": context,
                "runtime": {"launch": "graph", "collective": collective},
            }
        )
    )
