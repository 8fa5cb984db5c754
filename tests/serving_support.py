"""Steps of known length for tests of a service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kraken_sim.serving.steps import Stretch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.serving.plan import Chunk


@dataclass(frozen=True, slots=True)
class LinearSteps:
    """A step takes `step_s`, more for every decoding sequence, cached token and token of a prompt."""

    step_s: float = 0.0
    sequence_s: float = 0.0
    cached_s: float = 0.0
    prompt_token_s: float = 0.0
    watts: float = 100.0

    def decode(self, batch: int, cache_tokens: int) -> Stretch:
        first_s = self.step_s + batch * self.sequence_s + cache_tokens * self.cached_s
        return Stretch(first_s, batch * self.cached_s, 1 << 30, self.watts)

    def mixed(self, batch: int, cache_tokens: int, chunks: Sequence[Chunk]) -> tuple[float, float]:
        tokens = sum(chunk.num_tokens for chunk in chunks)
        return self.decode(batch, cache_tokens if batch else 0).first_s + tokens * self.prompt_token_s, self.watts


@dataclass(frozen=True, slots=True)
class OneByOne:
    """The same steps, each on its own."""

    steps: LinearSteps

    def decode(self, batch: int, cache_tokens: int) -> Stretch:
        return self.steps.decode(batch, cache_tokens)._replace(steps=1)

    def mixed(self, batch: int, cache_tokens: int, chunks: Sequence[Chunk]) -> tuple[float, float]:
        return self.steps.mixed(batch, cache_tokens, chunks)
