"""Attention over sequences of unequal lengths whose keys and values lie in rows of one cache.

On CUDA it is torch's flash attention with the start and the used length of every sequence's row; elsewhere, and where
that is refused, plain attention under a mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as nnf

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Rows:
    """Sequences of a step: new tokens of each, its row of the cache, tokens in the cache after the step.

    `starts` [n + 1] are the first places of the rows, `new` [n + 1] the places of the new tokens, `used` [n] the
    lengths; int32 on the device. `most_new` bounds the new tokens, `row` is the length of a row.
    """

    starts: Tensor
    new: Tensor
    used: Tensor
    most_new: int
    row: int


def attend(q: Tensor, k: Tensor, v: Tensor, rows: Rows, *, flash: bool) -> Tensor:
    """Causal attention, the last new token of a sequence on its last place.

    Args:
        q: [T, h, e], the new tokens of all sequences.
        k: [places, g, e], all rows of the cache.
        v: the same of values.
        rows: where the sequences lie.
        flash: whether flash attention may be used.

    Returns:
        [T, h, e].
    """
    if flash and q.is_cuda:
        call: Any = torch.ops.aten._flash_attention_forward
        out: Tensor = call(
            q, k, v, rows.new, rows.starts, rows.most_new, rows.row, 0.0, True, False, seqused_k=rows.used
        )[0]
        return out
    if rows.most_new == 1:
        return _decode_under_mask(q, k, v, rows)
    return torch.cat([_one_under_mask(q, k, v, rows, index) for index in range(len(rows.used))])


def _decode_under_mask(q: Tensor, k: Tensor, v: Tensor, rows: Rows) -> Tensor:
    """One token a sequence: [n, h, e], over whole rows."""
    places = torch.arange(rows.row, device=q.device)
    taken = rows.starts[:-1, None].long() + places
    keys, values = (x[taken].transpose(1, 2) for x in (k, v))
    mask = (places < rows.used[:, None])[:, None, None]
    grouped = q.shape[1] != k.shape[1]
    out = nnf.scaled_dot_product_attention(q.unsqueeze(2), keys, values, attn_mask=mask, enable_gqa=grouped)
    return out.squeeze(2)


def _one_under_mask(q: Tensor, k: Tensor, v: Tensor, rows: Rows, index: int) -> Tensor:
    start, used = int(rows.starts[index]), int(rows.used[index])
    first, last = int(rows.new[index]), int(rows.new[index + 1])
    queries = q[first:last].transpose(0, 1)
    keys, values = (x[start : start + used].transpose(0, 1) for x in (k, v))
    places = torch.arange(used, device=q.device)
    mask = places <= places[used - (last - first) :, None]
    grouped = q.shape[1] != k.shape[1]
    out = nnf.scaled_dot_product_attention(queries[None], keys[None], values[None], attn_mask=mask, enable_gqa=grouped)
    return out[0].transpose(0, 1)
