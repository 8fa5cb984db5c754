"""Which architecture for one question: ranked, with what each costs beside time, and in a sentence why it wins.

Architectures whose layers have a width of their own (Kraken, Parallel Track) rarely have the base model's parameters
exactly. For them the two widths around these are predicted as well, and the latency at equal parameters is interpolated
between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.architectures.registry import BASELINE
from kraken_sim.costs.attention_shape import attention_flops
from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.explore.quality import quality_of
from kraken_sim.explore.sensitivity import probability_best, speedup_interval
from kraken_sim.predict.answer import Answer
from kraken_sim.predict.api import compare
from kraken_sim.predict.generation import answered
from kraken_sim.predict.records import Records
from kraken_sim.program.ops import Attention, Collective, Gemm
from kraken_sim.program.program import MAIN_STREAM, Category
from kraken_sim.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kraken_sim.predict.api import Predictions
    from kraken_sim.predict.prediction import Prediction
    from kraken_sim.profiles.profile import HardwareProfile
    from kraken_sim.scenario.spec import Scenario, ScenarioSource

WIDTH_STEP: Final = 128
"""Widths around equal parameters are multiples of it, the narrower side of tensor-core tiles; a choice of ours."""

MOST_WIDTHS: Final = 64
"""Widths that are tried on the way to equal parameters; a limit of ours."""

WORTH_WORDS: Final = 0.02
"""Share of the latency from which a difference is named; a choice of ours."""

SAME: Final = 0.0005
"""Share of the latency below which a gain is none: what is printed has one decimal of a per cent."""

LARGER_CACHE: Final = 1.1
"""How many times the baseline's cache is worth words and a what-if; a choice of ours."""

_PARTS: Final[Mapping[str, tuple[Category, ...]]] = {
    "GEMMs": (Category.GEMM, Category.OVERLAPPED_GEMM, Category.LM_HEAD),
    "attention": (Category.ATTENTION,),
    "norms and other small kernels": (Category.NORM, Category.OTHER),
}
"""What compute is split into for the words."""


@dataclass(frozen=True, slots=True)
class StepAccount:
    """What an architecture costs beside time: bytes of a device, its FLOPs and what it sends in a step."""

    memory_bytes: int
    kv_cache_bytes: int
    flops: float
    sent_bytes: float
    blocking: int
    """Collectives that the stream of compute runs itself."""
    beside: int
    """Those that run beside it."""

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return {
            "memory_bytes": self.memory_bytes,
            "kv_cache_bytes": self.kv_cache_bytes,
            "flops": self.flops,
            "sent_bytes": self.sent_bytes,
            "blocking_collectives": self.blocking,
            "collectives_beside_compute": self.beside,
        }


@dataclass(frozen=True, slots=True)
class EqualParameters:
    """The widths around the baseline's parameters, and what is interpolated between them."""

    widths: tuple[int, ...]
    num_parameters: tuple[int, ...]
    latencies_s: tuple[float, ...]
    latency_s: float
    """At the baseline's parameters."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "hidden_sizes": list(self.widths),
            "num_parameters": list(self.num_parameters),
            "latencies_s": list(self.latencies_s),
            "latency_s": self.latency_s,
        }


@dataclass(frozen=True)
class Rival:
    """One architecture against the baseline."""

    prediction: Prediction
    base: Prediction
    account: StepAccount
    interval: tuple[float, float]
    """Of the gain, 90 %."""
    equal: EqualParameters | None
    cache_remedy: Remedy | None
    probability: float
    """That it is the fastest of all."""

    @property
    def kind(self) -> str:
        """Its name."""
        return self.prediction.resolved.kind

    @property
    def gain(self) -> float:
        """How much faster it answers than the baseline, as a share: 0.1 is 10 %."""
        return self.base.latency_s / self.prediction.latency_s - 1.0

    @property
    def gain_at_equal_parameters(self) -> float:
        """The same with the baseline's parameters; the gain itself where it has them."""
        return self.gain if self.equal is None else self.base.latency_s / self.equal.latency_s - 1.0

    @property
    def quality(self) -> str:
        """What is published or measured of its quality."""
        return quality_of(self.prediction)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "architecture": self.kind,
            "num_parameters": self.prediction.num_parameters,
            "latency_s": self.prediction.latency_s,
            "speedup_percent": 100.0 * self.gain,
            **self.beside_time(),
        }

    def beside_time(self) -> dict[str, Any]:
        """For JSON, what there is to say beside the prediction and its gain."""
        low, high = self.interval
        return {
            "speedup_interval_percent": [100.0 * low, 100.0 * high],
            "speedup_at_equal_parameters_percent": 100.0 * self.gain_at_equal_parameters,
            "equal_parameters": None if self.equal is None else self.equal.as_dict(),
            "probability_fastest": self.probability,
            "account": self.account.as_dict(),
            "reason": reason(self),
            "quality": self.quality,
        }


@dataclass(frozen=True, slots=True)
class Remedy:
    """Fewer key/value heads in a sub-layer, which give a larger cache back."""

    num_key_value_heads: int
    kv_cache_bytes: int
    latency_s: float


@dataclass(frozen=True, repr=False)
class ArchitectureAnswer(Answer):
    """All architectures on one question, the fastest at equal parameters first, and why others have no answer."""

    scenario: Scenario
    rivals: tuple[Rival, ...]
    impossible: Mapping[str, str]

    shown = (
        "architecture",
        "latency_s",
        "speedup_percent",
        "speedup_at_equal_parameters_percent",
        "probability_fastest",
        "reason",
    )

    @property
    def headline(self) -> str:
        """The fastest, and by how much."""
        best = self.rivals[0]
        where = f"{best.prediction.resolved.num_devices} x {self.scenario.hardware}"
        gain = 100.0 * best.gain_at_equal_parameters
        return f"fastest of {len(self.rivals)} architectures on {where}: {best.kind}, {gain:+.1f} % at equal parameters"

    @property
    def records(self) -> Records:
        """One flat row for each."""
        return Records(
            {key: value for key, value in row.items() if not isinstance(value, dict | list)} | row["account"]
            for row in (rival.as_dict() for rival in self.rivals)
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.scenario.name,
            "hardware": self.scenario.hardware,
            "num_devices": self.rivals[0].prediction.resolved.num_devices,
            "phase": self.scenario.phase.value,
            "batch_size": self.scenario.batch_size,
            "context_length": self.scenario.context_length,
            "best": self.rivals[0].kind,
            "architectures": [rival.as_dict() for rival in self.rivals],
            "impossible": dict(self.impossible),
        }


def best_architecture(
    scenario: ScenarioSource,
    profile: HardwareProfile | None = None,
    *,
    architectures: Sequence[str] = (),
) -> ArchitectureAnswer:
    """Every architecture on a question, or those named, with standard to compare with; the fastest first.

    Args:
        scenario: as `simulate` takes it; its architecture is replaced in turn.
        profile: the machine, instead of the one that the scenario names.
        architectures: those to try; default: all that the question fits.

    Raises:
        InputError, InfeasibleError: see `compare`.
    """
    predictions = compare(scenario, profile, architectures=architectures)
    rivals = sorted(side_by_side(predictions), key=lambda rival: -rival.gain_at_equal_parameters)
    return ArchitectureAnswer(predictions[0].scenario, tuple(rivals), predictions.impossible)


def rivals_of(predictions: Predictions) -> list[Rival]:
    """Predictions of any kernel sets, each against the first with its own."""
    return [rival for kernels in predictions.kernel_sets for rival in side_by_side(predictions.with_kernels(kernels))]


def side_by_side(predictions: Predictions) -> list[Rival]:
    """Predictions of one kernel set, each against the first."""
    base = predictions[0]
    probabilities = probability_best(predictions)
    return [
        Rival(
            prediction=prediction,
            base=base,
            account=account_of(prediction),
            interval=(0.0, 0.0) if prediction is base else speedup_interval(base, prediction),
            equal=None if prediction is base else equal_parameters(prediction, base.num_parameters),
            cache_remedy=_remedy(prediction, base),
            probability=probability,
        )
        for prediction, probability in zip(predictions, probabilities, strict=True)
    ]


def account_of(prediction: Prediction) -> StepAccount:
    """FLOPs, bytes and collectives of a step, from the program that runs."""
    flops = sent = 0.0
    streams = []
    for kernel in prediction.prepared.program.kernels():
        op = kernel.op
        if isinstance(op, Collective):
            streams.append(kernel.stream)
            sent += prediction.prepared.pricing.collective(op).link_bytes
        elif isinstance(op, Gemm):
            flops += op.flops
        elif isinstance(op, Attention):
            flops += attention_flops(op)
    memory, blocking = prediction.memory, streams.count(MAIN_STREAM)
    return StepAccount(memory.total_bytes, memory.kv_cache_bytes, flops, sent, blocking, len(streams) - blocking)


def equal_parameters(prediction: Prediction, wanted: int) -> EqualParameters | None:
    """The widths on either side of `wanted` parameters; None where the layers are the model's or a width was given."""
    scenario, block = prediction.scenario, prediction.resolved.own_block
    if block is None or getattr(scenario.architecture, "hidden_size", None) is not None:
        return None
    found = dict(_around(prediction, wanted, block.hidden_size))
    if not found:
        return None
    widths = sorted(found)
    counts = tuple(found[width].num_parameters for width in widths)
    latencies = tuple(found[width].latency_s for width in widths)
    if len(widths) == 1 and counts[0] != wanted:
        return None
    share = 0.0 if len(widths) == 1 else (wanted - counts[0]) / (counts[1] - counts[0])
    latency_s = latencies[0] + share * (latencies[-1] - latencies[0])
    return EqualParameters(tuple(widths), counts, latencies, latency_s)


def _around(prediction: Prediction, wanted: int, start: int) -> Iterator[tuple[int, Prediction]]:
    """The largest width with no more, and the smallest with no fewer parameters; nothing where there is none near."""
    width, step = start // WIDTH_STEP * WIDTH_STEP, 0
    last: tuple[int, Prediction] | None = None
    for _ in range(MOST_WIDTHS):
        found = with_width(prediction, width)
        if found is not None:
            upwards = WIDTH_STEP if found.num_parameters < wanted else -WIDTH_STEP
            step = step or upwards
            if found.num_parameters == wanted or upwards != step:
                yield width, found
                if last is not None and found.num_parameters != wanted:
                    yield last
                return
            last = (width, found)
        width += step or WIDTH_STEP
        if width < WIDTH_STEP:
            return


def with_width(prediction: Prediction, width: int) -> Prediction | None:
    """The same architecture with another width of its layers; None where its devices cannot share or hold it."""
    return _changed(prediction, {"hidden_size": width, "num_attention_heads": None, "intermediate_size": None})


def _changed(prediction: Prediction, fields: dict[str, int | None]) -> Prediction | None:
    scenario = prediction.scenario
    architecture = scenario.architecture.model_copy(update=fields)
    try:
        prepared = prediction.prepared.again(scenario.model_copy(update={"architecture": architecture}))
    except (InputError, InfeasibleError):
        return None
    return answered(prepared)


def _remedy(prediction: Prediction, base: Prediction) -> Remedy | None:
    """Key/value heads of a sub-layer with which a cache that is larger and costs time is no larger than the base's."""
    block = prediction.resolved.own_block
    ratio = prediction.memory.kv_cache_bytes / base.memory.kv_cache_bytes
    slower = prediction.breakdown_s[Category.ATTENTION] > base.breakdown_s[Category.ATTENTION]
    if block is None or ratio < LARGER_CACHE or not slower:
        return None
    fitting = [heads for heads in range(1, block.num_key_value_heads) if block.num_attention_heads % heads == 0]
    fewer = [heads for heads in fitting if heads * ratio <= block.num_key_value_heads]
    for heads in reversed(fewer):
        found = _changed(prediction, {"hidden_size": block.hidden_size, "num_key_value_heads": heads})
        if found is not None:
            return Remedy(heads, found.memory.kv_cache_bytes, found.latency_s)
    return None


def reason(rival: Rival) -> str:
    """In a sentence, why it wins or loses against the baseline: what it saves, and what that costs."""
    prediction, base = rival.prediction, rival.base
    if prediction is base:
        return f"{BASELINE} is what the others are compared with"
    saved = {"exposed communication": base.exposed_communication_s - prediction.exposed_communication_s}
    for name, categories in _PARTS.items():
        before, after = (_compute_s(item, categories) for item in (base, prediction))
        saved[name] = before - after
    least = WORTH_WORDS * base.latency_s
    less = [f"{format_seconds(s, 3)} less {name}" for name, s in _largest(saved) if s > least]
    more = [f"{format_seconds(-s, 3)} more {name}" for name, s in _largest(saved) if -s > least]
    low, high = (f"{100.0 * end:+.0f}" for end in rival.interval)
    verb, for_it, against_it, turn = (
        ("wins", less, more, "but") if rival.gain > 0.0 else ("loses", more, less, "despite")
    )
    why = f" {turn} ".join(", ".join(part) for part in (for_it, against_it) if part) or "nothing differs by much"
    text = f"{rival.kind} {verb} {abs(100.0 * rival.gain):.1f} % (90 % interval {low} to {high} %): {why}"
    ratio = prediction.memory.kv_cache_bytes / base.memory.kv_cache_bytes
    if ratio >= LARGER_CACHE:
        text += f"; its KV cache is {ratio:.2g} times as large"
    if rival.cache_remedy is not None:
        remedy = rival.cache_remedy
        gain, cache = base.latency_s / remedy.latency_s - 1.0, remedy.kv_cache_bytes / base.memory.kv_cache_bytes
        heads = f"{remedy.num_key_value_heads} key/value head{'s' if remedy.num_key_value_heads != 1 else ''}"
        size = f"as large as {BASELINE}'s" if f"{cache:.2g}" == "1" else f"{cache:.2g} times as large"
        text += f"; with {heads} a sub-layer it would be {size}, and the speed-up {100.0 * gain:+.1f} %"
    return text


def _compute_s(prediction: Prediction, categories: tuple[Category, ...]) -> float:
    """Seconds of these categories, without what they wait for collectives."""
    seconds = sum(prediction.breakdown_s[category] for category in categories)
    return seconds - (prediction.overlap_cost.waiting_s if Category.OVERLAPPED_GEMM in categories else 0.0)


def _largest(saved: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(saved.items(), key=lambda item: -abs(item[1]))
