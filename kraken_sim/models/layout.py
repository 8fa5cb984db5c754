"""What repeats in a model and how it is spread over devices: the one definition of a device's share.

A layer is one block (attention + FFN) or several of them side by side, such as Kraken's sub-layers. With more blocks
than devices a device runs several, one after the other; with fewer, neighbouring devices share each block as in
Megatron-LM (Shoeybi et al., arXiv 1909.08053): columns of the first matrices, rows of the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kraken_sim.models.config import TransformerConfig


@dataclass(frozen=True, slots=True)
class Block:
    """One attention + FFN, or a device's share of one.

    `hidden_size` is the width of the residual stream it reads and writes; a share has fewer heads and a
    narrower FFN, never a narrower stream.
    """

    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int


@dataclass(frozen=True, slots=True)
class Layout:
    """The blocks of a layer and the devices that run them; the fullest device counts where a split is uneven.

    `block` is a whole block. `norms_per_block` is one where attention and FFN share theirs. `concat` marks a projection
    of all blocks' outputs, side by side, back to one width after the last layer. `extra_streams` are the activations of
    the stream's width that a device keeps beside the three of each of its blocks. `private_norms`, of all layers, have
    weights of their own on each device. An architecture that needs to know more about its programs derives from this.
    """

    block: Block
    num_devices: int
    blocks_per_layer: int = 1
    norms_per_block: int = 2
    concat: bool = False
    extra_streams: int = 0
    private_norms: int = 0

    @property
    def local(self) -> int:
        """Blocks of a layer that one device runs."""
        return max(1, self.blocks_per_layer // self.num_devices)

    @property
    def group(self) -> int:
        """Devices that share one block."""
        return devices_per_block(self.num_devices, self.blocks_per_layer)

    @property
    def exchange(self) -> int:
        """Ranks of a collective between blocks."""
        return min(self.blocks_per_layer, self.num_devices)

    @property
    def share(self) -> Block:
        """What a device holds of each of its blocks; key/value heads are replicated once they run out."""
        whole, group = self.block, self.group
        return Block(
            whole.hidden_size,
            _ceil_div(whole.num_attention_heads, group),
            _ceil_div(whole.num_key_value_heads, group),
            whole.head_dim,
            _ceil_div(whole.intermediate_size, group),
        )

    @property
    def concat_slice(self) -> int:
        """Inputs of the concat projection that a device takes from each of its blocks."""
        return _ceil_div(self.block.hidden_size, self.group)

    @property
    def live_streams(self) -> int:
        """Activations [T, hidden_size] alive at once: a block's input, its norm and its output, and what is extra."""
        return 3 * self.local + self.extra_streams

    def vocabulary_share(self, vocab_size: int) -> int:
        """Rows of the LM head on a device: it is split over all devices, however blocks are."""
        return _ceil_div(vocab_size, self.num_devices)


def devices_per_block(num_devices: int, blocks_per_layer: int) -> int:
    """Devices that share one block."""
    return max(1, num_devices // blocks_per_layer)


def whole_layer(config: TransformerConfig) -> Block:
    """The model's own layer as one block."""
    return Block(
        config.hidden_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
        config.intermediate_size,
    )


def tensor_parallel(config: TransformerConfig, num_devices: int = 1, norms_per_block: int = 2) -> Layout:
    """A layer of one block, the model's own, over all devices."""
    return Layout(whole_layer(config), num_devices, norms_per_block=norms_per_block)


def _ceil_div(number: int, divisor: int) -> int:
    return -(-number // divisor)
