"""The forward step that a program is for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from kraken_sim.models.memory import TokenLoad
from kraken_sim.program.kernel_sets import KernelSet
from kraken_sim.program.ops import DType

if TYPE_CHECKING:
    from kraken_sim.program.formats import InputFormat


CUT_TOKENS: Final = 256
"""Half of a sequence is rounded up to so many tokens, a choice of TokenWeave's (github microsoft/tokenweave)."""


class Phase(StrEnum):
    """Prefill answers TTFT, decode (one step) answers TPOT, generate both and the whole answer."""

    PREFILL = "prefill"
    DECODE = "decode"
    GENERATE = "generate"

    __hash__ = str.__hash__  # faster than Enum's


@dataclass(frozen=True, slots=True)
class Workload:
    """One forward step: `batch_size` sequences with `context_length` tokens in the prompt or the cache.

    `kernels` says which kernels a layer's small operations are, `overlap_copies` how often Kraken copies the activation
    a layer around its AllReduce: before it, then after. `all_reduce_norm_bytes` has the largest AllReduce that takes in
    the add and the norm behind it, by the number of devices in its group, where the kernel set fuses them. `inputs` is
    what the inputs of the layers' GEMMs are quantised to, as their weights are, `kv_dtype` the cache's format, each
    where it is not `dtype`. The first `prefix_length` tokens of a prefill are in the cache already. `ragged` has the
    sequences of a step that are not alike, `batch_size` in all, by groups that are; the lengths are theirs then.
    """

    batch_size: int
    context_length: int
    phase: Phase = Phase.PREFILL
    dtype: DType = DType.FLOAT16
    overlap: bool = True
    overlap_copies: int = 1
    kernels: KernelSet = KernelSet.PYTORCH
    all_reduce_norm_bytes: tuple[tuple[int, int], ...] = ()
    inputs: InputFormat | None = None
    kv_dtype: DType | None = None
    prefix_length: int = 0
    ragged: tuple[TokenLoad, ...] = ()

    @property
    def q_len(self) -> int:
        """New tokens of one sequence."""
        return 1 if self.phase is Phase.DECODE else self.context_length - self.prefix_length

    @property
    def kv_len(self) -> int:
        """Tokens of one sequence that attention sees; a decode step adds its own to the cache."""
        return self.context_length + 1 if self.phase is Phase.DECODE else self.context_length

    @property
    def groups(self) -> tuple[TokenLoad, ...]:
        """The sequences by groups that are alike; attention takes one after the other."""
        return self.ragged or (TokenLoad(self.batch_size, self.q_len, self.kv_len),)

    @property
    def num_tokens(self) -> int:
        """T: rows of every activation of the step."""
        return sum(group.num_tokens for group in self.groups)


def halves_of(work: Workload) -> tuple[Workload, ...]:
    """The two halves of a step: of its sequences, or of the tokens of a single one.

    The second half of a sequence attends to the first as well. What cannot be cut stays whole.
    """
    if work.batch_size > 1:
        first = -(-work.batch_size // 2)
        return replace(work, batch_size=first), replace(work, batch_size=work.batch_size - first)
    first = -(-work.q_len // (2 * CUT_TOKENS)) * CUT_TOKENS
    if work.phase is Phase.DECODE or first >= work.q_len:
        return (work,)
    cut = work.prefix_length + first
    return replace(work, context_length=cut), replace(work, prefix_length=cut)
