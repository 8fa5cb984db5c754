"""One split for every fit, and what every fit gives back.

*Held out* means a shape that the fit has seen in no form. A shape is what a kernel or a collective works on: the sizes
of a product, of an attention, of a stream; the bytes and devices of a collective; the kernels of a pair or of a load
together with its collective. A form is how that shape was run: number format, chain, start order, launch, library,
version, algorithm, number of channels, transport, and on which card. All samples of one shape are on one side.

A shape's side is read off a hash of it, so that it depends on no other shape, neither on the order of samples nor on
how many there are, and is the same in every file, on every machine and in every run: constants that start where those
of another card were fitted have not seen through them what is held out here. Sustained loads are too few to give any
away: there each shape is held out once, of a fit to all others.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import MISSING, dataclass, field, fields
from functools import lru_cache
from hashlib import blake2b
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from kraken_sim.calibration.errors import ClassError, class_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from kraken_sim.program.ops import ComputeOp

    Key = tuple[object, ...]
    """Text, numbers, truth values and tuples of those."""

Sample = TypeVar("Sample")
Constants = TypeVar("Constants")

HELD_OUT: Final = 0.3
"""Share of shapes that a fit does not see; a choice of ours."""

MOST_OF_FEW: Final = 0.5
"""Where shapes are so few that chance would hold out more than this share of them, no more are; a choice of ours."""

FORMS: Final = frozenset(
    {"dtype", "accumulate", "bias", "causal", "by_row", "kv_dtype", "cold_parameters", "cold_inputs"}
)
"""Fields of an op that say how it is run, not what it works on."""

REFINEMENTS: Final = frozenset(
    {
        "function",
        "fused",
        "adds",
        "writes_sum",
        "output_dtype",
        "quantization",
        "rows",
        "row_scales",
        "positions",
        "strided",
        "converted",
        "window",
    }
)
"""Fields of an op that count where they are not at their default: a plain kernel's shape stays on its side of the split
when ops learn to tell more kernels apart."""


def split(
    samples: Iterable[Sample], key: Callable[[Sample], Key], held: float = HELD_OUT
) -> tuple[list[Sample], list[Sample]]:
    """Samples to fit and samples held out, all of one key on one side.

    Of few keys at least one is held out and at least half are fitted; a single key is fitted. Both lists are in the
    order of the keys' hashes, so that the first part of either is again a fair draw of it.

    Args:
        samples: in any order.
        key: what a sample is a measurement of.
        held: share of the keys that is held out, between 0 and 1.
    """
    groups = _grouped(samples, key)
    places = {text: _place(text) for text in groups}
    order = sorted(groups, key=lambda text: (places[text], text))
    below = sum(place < held for place in places.values())
    cut = min(max(below, 1), int(MOST_OF_FEW * len(order)))
    return _samples(groups, order[cut:]), _samples(groups, order[:cut])


def split_again(
    fitted: Iterable[Sample], key: Callable[[Sample], Key], draw: int, held: float
) -> tuple[list[Sample], list[Sample]]:
    """A split of what is to be fitted, which tells nothing of the first: `draw` numbers the ones that differ."""
    return split(fitted, lambda sample: (draw, *key(sample)), held)


def each_left_out(
    samples: Iterable[Sample], key: Callable[[Sample], Key]
) -> Iterator[tuple[list[Sample], list[Sample]]]:
    """For each key, all others to fit and its own samples held out: where keys are too few to give any away."""
    groups = _grouped(samples, key)
    for own in sorted(groups):
        yield _samples(groups, [text for text in sorted(groups) if text != own]), _samples(groups, [own])


def _grouped(samples: Iterable[Sample], key: Callable[[Sample], Key]) -> dict[str, list[Sample]]:
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[json.dumps(key(sample))].append(sample)
    return groups


def _place(text: str) -> float:
    """Where a key lies between 0 and 1."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") / 2.0**64


def _samples(groups: Mapping[str, list[Sample]], keys: Iterable[str]) -> list[Sample]:
    return [
        sample for key in keys for sample in (sorted(groups[key], key=repr) if len(groups[key]) > 1 else groups[key])
    ]


def shape_of(op: ComputeOp) -> Key:
    """What an op works on, whatever its form."""
    shape: list[Any] = [type(op).__name__]
    for name, plain in _told(type(op)):  # type: ignore[arg-type]  # mypy takes a class for what its instances are
        value = getattr(op, name)
        if plain is MISSING or value != plain:
            shape.append(value)
    return tuple(shape)


@lru_cache(maxsize=64)
def _told(kind: type[Any]) -> tuple[tuple[str, object], ...]:
    """The fields of a kind of op that tell its shape, each with the value that says nothing, or MISSING."""
    own = (item for item in fields(kind) if item.name not in FORMS)
    return tuple((item.name, item.default if item.name in REFINEMENTS else MISSING) for item in own)


@dataclass(frozen=True, slots=True)
class Fit(Generic[Constants, Sample]):
    """Fitted constants, and how far off they are on samples whose shapes the fit has seen in no form."""

    constants: Constants
    held_out: tuple[tuple[Sample, float], ...]
    """Each held-out sample with its predicted / measured - 1, by a fit that saw nothing of its shape; a sample of
    several times stands there as often."""
    fitted: tuple[Sample, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict)
    """Constants of which the samples say nothing, and why: they are what they were before."""

    @property
    def residual(self) -> float | None:
        """Mean of |predicted / measured - 1| over what was held out; None where all samples have one shape."""
        return fmean(abs(error) for _, error in self.held_out) if self.held_out else None

    def class_errors(self, kernel: str, class_of: Callable[[Sample], tuple[int, str]]) -> tuple[ClassError, ...]:
        """Errors of all that was held out, then by class; `class_of` gives a class's rank and name."""
        return class_errors(kernel, self.held_out, class_of)
