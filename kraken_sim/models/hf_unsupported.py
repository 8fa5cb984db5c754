"""Which Hugging Face models are not dense decoders of the supported kinds, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.errors import Problem, closest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_REASONS: Mapping[str, str] = {
    "a mixture of experts": (
        "mixtral qwen2_moe qwen3_moe gpt_oss olmoe dbrx phimoe granitemoe arctic minimax glm4_moe llama4 "
        "llama4_text ernie4_5_moe deepseek switch_transformers"
    ),
    "a mixture of experts with multi-head latent attention (MLA)": ("deepseek_v2 deepseek_v3 deepseek_v32 kimi_k2"),
    "a state-space or recurrent model": (
        "mamba mamba2 falcon_mamba falcon_h1 jamba zamba zamba2 bamba rwkv recurrent_gemma qwen3_next xlstm"
    ),
    "an encoder-decoder": (
        "t5 mt5 umt5 longt5 bart mbart pegasus marian m2m_100 led whisper speech_to_text encoder-decoder"
    ),
    "an encoder": "bert roberta xlm-roberta distilbert albert electra deberta deberta-v2 modernbert",
    "a vision, audio or multimodal model": (
        "vit clip siglip dinov2 llava llava_next qwen2_vl qwen2_5_vl qwen3_vl qwen2_audio mllama gemma3 "
        "paligemma idefics2 idefics3 pixtral internvl blip-2"
    ),
}
"""Well-known model types by what they are, so that an error can say why they are not supported."""

_PRESENT: Mapping[str, str] = {
    "kv_lora_rank": "multi-head latent attention (MLA) is not supported",
    "vision_config": "vision and multimodal models are not supported",
    "audio_config": "audio and multimodal models are not supported",
    "text_config": "vision and multimodal models are not supported",
    "ssm_cfg": "state-space models are not supported",
    "state_size": "state-space models are not supported",
    "quantization_config": "quantised weights are not supported; use the unquantised model's config",
}

_TRUE: Mapping[str, str] = {
    "is_encoder_decoder": "encoder-decoder models are not supported",
    "add_cross_attention": "cross-attention is not supported",
    "alibi": "ALiBi attention is not supported",
}

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


def unsupported_model_type(model_type: object, path: str, supported: tuple[str, ...]) -> Problem:
    """The problem of a `model_type` that is none of `supported` (or absent)."""
    listed = ", ".join(supported)
    if model_type is None:
        return Problem(path, f"is missing; supported model types: {listed}", example='"llama"')
    if not isinstance(model_type, str):
        return Problem(path, f"must be one of {listed}", model_type, '"llama"')
    reason = next((reason for reason, types in _REASONS.items() if model_type in types.split()), None)
    if reason is not None:
        message = f"{reason} is not supported; supported model types: {listed}"
        return Problem(path, message, model_type)
    suggestion = closest(model_type, supported)
    return Problem(path, f"not supported; supported model types: {listed}", model_type[:60], suggestion=suggestion)


def unsupported_features(fields: Mapping[str, object], at: str = "") -> Iterator[Problem]:
    """Fields that make a model something else than a dense decoder, whatever its `model_type` says."""

    def path(name: str) -> str:
        return f"{at}.{name}" if at else name

    for name, reason in _PRESENT.items():
        if fields.get(name):
            yield Problem(path(name), reason)
    for name, reason in _TRUE.items():
        if fields.get(name) is True:
            yield Problem(path(name), reason, True)
    for name in _EXPERTS:
        count = fields.get(name)
        if isinstance(count, int) and count > 1:
            yield Problem(path(name), "mixtures of experts are not supported", count)
    yield from _sliding_window(fields, path("sliding_window"))


def _sliding_window(fields: Mapping[str, object], path: str) -> Iterator[Problem]:
    """A window shorter than the positions; Qwen configs name one and switch it off."""
    window = fields.get("sliding_window")
    positions = fields.get("max_position_embeddings")
    if not isinstance(window, int) or fields.get("use_sliding_window") is False:
        return
    layers = fields.get("layer_types")
    if isinstance(layers, list) and all(layer == "full_attention" for layer in layers):
        return
    if isinstance(positions, int) and window >= positions:
        return
    message = "sliding-window attention is not supported; set it to null to predict with full attention"
    yield Problem(path, message, window, example="sliding_window: null")
