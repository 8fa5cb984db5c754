"""Cross-entropy over logits of which every rank has some columns (Shoeybi et al., "Megatron-LM", arXiv 1909.08053)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as nnf
from torch import Tensor, nn
from torch.autograd import Function

if TYPE_CHECKING:
    from validation.models.communication import Group


class _ShardedCrossEntropy(Function):
    """Mean over rows; logits [R, C] are this rank's columns `first`.. of V, those past V are padding."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor, vocab_size: int, group: Group) -> Tensor:
        first = group.rank * logits.shape[1]
        columns = torch.arange(first, first + logits.shape[1], device=logits.device)
        x = logits.masked_fill(columns >= vocab_size, float("-inf"))
        highest = x.amax(dim=1)
        dist.all_reduce(highest, op=dist.ReduceOp.MAX, group=group.handle)
        exponentials = (x - highest[:, None]).exp()
        mine = (targets >= first) & (targets < first + logits.shape[1])
        places = (targets - first).clamp(0, logits.shape[1] - 1)
        chosen = x.gather(1, places[:, None]).squeeze(1).masked_fill(~mine, 0.0)
        sums = torch.stack([exponentials.sum(dim=1), chosen])
        dist.all_reduce(sums, group=group.handle)
        ctx.save_for_backward(exponentials / sums[0][:, None], places, mine)
        return (sums[0].log() + highest - sums[1]).mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        shares, places, mine = ctx.saved_tensors
        gradient = shares.clone()
        gradient.scatter_add_(1, places[:, None], -mine.to(gradient.dtype)[:, None])
        return gradient * (gradients[0] / len(gradient)), None, None, None


def cross_entropy(logits: Tensor, targets: Tensor, vocab_size: int, group: Group) -> Tensor:
    """Mean negative log-likelihood in nats, float32 or better, the same on every rank.

    Args:
        logits: [R, C], this rank's columns; V padded to a multiple of the ranks.
        targets: [R].
        vocab_size: V.
        group: the ranks that share the columns.
    """
    logits = logits.float() if logits.dtype.itemsize < torch.float32.itemsize else logits
    if group.size == 1:
        return nnf.cross_entropy(logits, targets)
    loss = _ShardedCrossEntropy.apply(logits, targets, vocab_size, group)  # type: ignore[no-untyped-call]
    return cast("Tensor", loss)


class LossOf(nn.Module):
    """A model and its loss as one function, which can be compiled whole."""

    def __init__(self, model: nn.Module, vocab_size: int, group: Group) -> None:
        super().__init__()
        self.model, self.vocab_size, self.group = model, vocab_size, group

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of tokens [B, T]."""
        logits = self.model(inputs)
        return cross_entropy(logits.flatten(0, 1), targets.flatten(), self.vocab_size, self.group)
