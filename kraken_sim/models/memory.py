"""What a device must hold to answer: weights, KV cache and the activations alive at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kraken_sim.errors import InfeasibleError
from kraken_sim.models.counts import block_of, device_parameter_counts

if TYPE_CHECKING:
    from kraken_sim.models.config import ArchitectureKind, TransformerConfig
    from kraken_sim.models.kraken_width import KrakenShape
    from kraken_sim.program.ops import DType

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class TokenLoad:
    """Tokens of one step: `num_new_tokens` a sequence, whose cache then holds `kv_length`."""

    batch_size: int
    num_new_tokens: int
    kv_length: int

    @classmethod
    def prefill(cls, batch_size: int, context_length: int) -> TokenLoad:
        """All tokens of the context in one pass."""
        return cls(batch_size, context_length, context_length)

    @classmethod
    def decode(cls, batch_size: int, context_length: int) -> TokenLoad:
        """One more token a sequence, on caches that hold `context_length`."""
        return cls(batch_size, 1, context_length + 1)


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


def device_memory(
    config: TransformerConfig,
    kind: ArchitectureKind,
    num_devices: int,
    load: TokenLoad,
    dtype: DType,
    kraken: KrakenShape | None = None,
) -> DeviceMemory:
    """Bytes on one of `num_devices` devices that run the model on `load`."""
    return DeviceMemory(
        weight_bytes_per_device(config, kind, num_devices, dtype, kraken),
        kv_cache_bytes_per_device(config, kind, num_devices, load, dtype, kraken),
        activation_bytes_per_device(config, kind, num_devices, load, dtype, kraken),
    )


def weight_bytes_per_device(
    config: TransformerConfig,
    kind: ArchitectureKind,
    num_devices: int,
    dtype: DType,
    kraken: KrakenShape | None = None,
) -> int:
    """Bytes of the weights a device stores; how they are split: `device_parameter_counts`."""
    return device_parameter_counts(config, kind, num_devices, kraken).total * dtype.num_bytes


def kv_cache_bytes_per_device(
    config: TransformerConfig,
    kind: ArchitectureKind,
    num_devices: int,
    load: TokenLoad,
    dtype: DType,
    kraken: KrakenShape | None = None,
) -> int:
    """Bytes of keys and values, [batch, kv_length, kv heads of the device, head_dim] twice a layer.

    A Kraken device keeps the cache of its whole sub-layers, so Kraken's cache is larger than the standard
    model's: N · d_k against d (arXiv 2408.07802, section 6).
    """
    ways = kraken.ways if kraken else 1
    share = block_of(config, kind, kraken).share(max(1, num_devices // ways))
    num_blocks = config.num_hidden_layers * max(1, ways // num_devices)
    elements_per_token = 2 * num_blocks * share.num_key_value_heads * share.head_dim
    return load.batch_size * load.kv_length * elements_per_token * dtype.num_bytes


def activation_bytes_per_device(
    config: TransformerConfig,
    kind: ArchitectureKind,
    num_devices: int,
    load: TokenLoad,
    dtype: DType,
    kraken: KrakenShape | None = None,
) -> int:
    """Estimated peak of the activations alive at once, buffers being reused from layer to layer.

    The stream x, its norm and a block's output are alive beside the larger of attention's intermediates
    (Q, K, V and the attended values; flash attention stores no scores) and the FFN's (up, and gate). Kraken
    adds the received sum and the copy it was sent from, and keeps the three of every sub-layer on the device.
    The logits are those of one token a sequence.
    """
    ways = kraken.ways if kraken else 1
    share = block_of(config, kind, kraken).share(max(1, num_devices // ways))
    query_width = share.num_attention_heads * share.head_dim
    attention_width = 2 * query_width + 2 * share.num_key_value_heads * share.head_dim
    ffn_width = (2 if config.gated_ffn else 1) * share.intermediate_size
    streams = 3 * max(1, ways // num_devices) + (2 if kraken else 0)
    num_tokens = load.batch_size * load.num_new_tokens
    elements = num_tokens * (streams * share.hidden_size + max(attention_width, ffn_width))
    logits = load.batch_size * -(-config.vocab_size // num_devices)
    return (elements + logits) * dtype.num_bytes


def check_memory(memory: DeviceMemory, hbm_capacity_bytes: float) -> None:
    """Nothing, if a device with `hbm_capacity_bytes` of memory can hold `memory`.

    Raises:
        InfeasibleError: it cannot; names the capacity and what takes the room.
    """
    if memory.total_bytes <= hbm_capacity_bytes:
        return
    parts = {
        "weights": memory.weights_bytes,
        "KV cache": memory.kv_cache_bytes,
        "activations": memory.activation_bytes,
    }
    listed = ", ".join(f"{name} {count / GIB:.2f} GiB" for name, count in parts.items())
    message = f"the model does not fit: a device needs {memory.total_bytes / GIB:.2f} GiB ({listed})"
    raise InfeasibleError(message, f"device memory {hbm_capacity_bytes / GIB:.2f} GiB")
