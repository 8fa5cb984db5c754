"""What a device must hold to answer: weights, KV cache and the activations alive at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kraken_sim.errors import InfeasibleError
from kraken_sim.models.counts import device_matrix_parameters, device_parameter_counts
from kraken_sim.program.many import is_many, maths_for, same, whole_part

if TYPE_CHECKING:
    from kraken_sim.models.config import TransformerConfig
    from kraken_sim.models.layout import Layout
    from kraken_sim.program.formats import DType, Quantization

GIB = 1 << 30
"""Bytes of a GiB; a definition."""


@dataclass(frozen=True, slots=True)
class TokenLoad:
    """Tokens of one step: `num_new_tokens` a sequence, whose cache then holds `kv_length`.

    The first `prefix_length` of these are the same for all sequences and are held once.
    """

    batch_size: int
    num_new_tokens: int
    kv_length: int
    prefix_length: int = 0

    @classmethod
    def prefill(cls, batch_size: int, context_length: int) -> TokenLoad:
        """All tokens of the context in one pass."""
        return cls(batch_size, context_length, context_length)

    @classmethod
    def decode(cls, batch_size: int, context_length: int) -> TokenLoad:
        """One more token a sequence, on caches that hold `context_length`."""
        return cls(batch_size, 1, context_length + 1)

    @property
    def num_tokens(self) -> int:
        """New tokens of all sequences: rows of every activation."""
        return self.batch_size * self.num_new_tokens

    @property
    def cache_tokens(self) -> int:
        """Tokens whose keys and values are held."""
        return self.batch_size * (self.kv_length - self.prefix_length) + self.prefix_length


@dataclass(frozen=True, slots=True)
class RaggedLoad:
    """Tokens of one step whose sequences are not alike: groups that are."""

    groups: tuple[TokenLoad, ...]

    @property
    def batch_size(self) -> int:
        """Sequences of all groups."""
        return sum(group.batch_size for group in self.groups)

    @property
    def num_tokens(self) -> int:
        """New tokens of all groups."""
        return sum(group.num_tokens for group in self.groups)

    @property
    def cache_tokens(self) -> int:
        """Tokens whose keys and values are held."""
        return sum(group.cache_tokens for group in self.groups)


StepLoad = TokenLoad | RaggedLoad


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes one device needs; on an uneven split the fullest device's."""

    weights_bytes: int
    kv_cache_bytes: int
    activation_bytes: int

    @property
    def total_bytes(self) -> int:
        """The sum of the three."""
        return self.weights_bytes + self.kv_cache_bytes + self.activation_bytes


@dataclass(frozen=True, slots=True)
class StoredAs:
    """Number formats: of activations; of the layers' matrices; of keys and values where that is not the first."""

    dtype: DType
    quantization: Quantization | None = None
    kv_dtype: DType | None = None


def device_memory(config: TransformerConfig, layout: Layout, load: StepLoad, formats: StoredAs) -> DeviceMemory:
    """Bytes on one device of the layout that runs the model on `load`."""
    dtype = formats.dtype
    return DeviceMemory(
        weight_bytes_per_device(config, layout, dtype, formats.quantization),
        kv_cache_bytes_per_device(config, layout, load, formats.kv_dtype or dtype),
        activation_bytes_per_device(config, layout, load, dtype),
    )


def weight_bytes_per_device(
    config: TransformerConfig, layout: Layout, dtype: DType, quantization: Quantization | None = None
) -> int:
    """Bytes of the weights a device stores; how they are split: `device_parameter_counts`.

    With a `quantization` the layers' matrices have that format and their share of the scales; embedding, LM head, norms
    and biases keep `dtype`.
    """
    total = device_parameter_counts(config, layout).total
    if quantization is None:
        return total * dtype.num_bytes
    matrices = device_matrix_parameters(config, layout)
    stored: int = whole_part(maths_for(matrices).ceil(matrices * quantization.bytes_per_weight))
    return (total - matrices) * dtype.num_bytes + stored


def kv_cache_bytes_per_device(config: TransformerConfig, layout: Layout, load: StepLoad, dtype: DType) -> int:
    """Bytes of keys and values, [tokens, kv heads of the device, head_dim] twice a block.

    A Kraken device keeps the cache of its whole sub-layers, so Kraken's cache is larger than the standard
    model's: N · d_k against d (arXiv 2408.07802, section 6).
    """
    return load.cache_tokens * kv_bytes_per_token(config, layout, dtype)


def kv_bytes_per_token(config: TransformerConfig, layout: Layout, dtype: DType) -> int:
    """Bytes of the keys and values of one token on a device."""
    share = layout.share
    width = share.num_key_value_heads * share.head_dim
    return 2 * config.num_hidden_layers * layout.local * width * dtype.num_bytes


def activation_bytes_per_device(config: TransformerConfig, layout: Layout, load: StepLoad, dtype: DType) -> int:
    """Estimated peak of the activations alive at once, buffers being reused from layer to layer.

    The layout's live streams are there beside the larger of attention's intermediates (Q, K, V and the attended
    values; flash attention stores no scores) and the FFN's (up, and gate). The logits are those of one token a
    sequence.
    """
    share = layout.share
    query_width = share.num_attention_heads * share.head_dim
    attention_width = 2 * query_width + 2 * share.num_key_value_heads * share.head_dim
    ffn_width = (2 if config.gated_ffn else 1) * share.intermediate_size
    wider: int = maths_for(attention_width, ffn_width).maximum(attention_width, ffn_width)
    elements = load.num_tokens * (layout.live_streams * share.hidden_size + wider)
    logits = load.batch_size * layout.vocabulary_share(config.vocab_size)
    return (elements + logits) * dtype.num_bytes


def check_memory(memory: DeviceMemory, hbm_capacity_bytes: float) -> None:
    """Nothing, if a device with `hbm_capacity_bytes` of memory can hold `memory`.

    Raises:
        InfeasibleError: it cannot; names the capacity and what takes the room.
    """
    if same(memory.total_bytes <= hbm_capacity_bytes):
        return
    if is_many(memory.total_bytes):
        raise InfeasibleError("none of these points fits in memory", f"device memory {hbm_capacity_bytes:g} bytes")
    parts = {
        "weights": memory.weights_bytes,
        "KV cache": memory.kv_cache_bytes,
        "activations": memory.activation_bytes,
    }
    listed = ", ".join(f"{name} {count / GIB:.2f} GiB" for name, count in parts.items())
    message = f"the model does not fit: a device needs {memory.total_bytes / GIB:.2f} GiB ({listed})"
    raise InfeasibleError(message, f"device memory {hbm_capacity_bytes / GIB:.2f} GiB")
