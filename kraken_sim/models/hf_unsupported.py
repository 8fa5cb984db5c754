"""Which Hugging Face models are not dense decoders of the supported kinds, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraken_sim.errors import Problem, closest
from kraken_sim.files.problems import as_printed
from kraken_sim.models.quantised import checkpoint_format

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_EXPERTS_MISSING = (
    "which tokens go to which expert, their exchange between devices and products of uneven groups are not modelled"
)

_REASONS: Mapping[str, str] = {
    f"a mixture of experts is not supported: {_EXPERTS_MISSING}": (
        "mixtral qwen2_moe qwen3_moe gpt_oss olmoe dbrx phimoe granitemoe granitemoeshared arctic minimax glm4_moe "
        "llama4 llama4_text ernie4_5_moe switch_transformers"
    ),
    f"a mixture of experts with multi-head latent attention (MLA) is not supported: {_EXPERTS_MISSING}": (
        "deepseek deepseek_v2 deepseek_v3 deepseek_v32 kimi_k2"
    ),
    "a state-space or recurrent model is not supported": (
        "mamba mamba2 falcon_mamba falcon_h1 jamba zamba zamba2 bamba rwkv recurrent_gemma qwen3_next xlstm "
        "granitemoehybrid phi4flash"
    ),
    "an encoder-decoder is not supported": (
        "t5 mt5 umt5 longt5 bart mbart pegasus marian m2m_100 led whisper speech_to_text encoder-decoder t5gemma"
    ),
    "an encoder is not supported": ("bert roberta xlm-roberta distilbert albert electra deberta deberta-v2 modernbert"),
    "a vision, audio or multimodal model is not supported; for text alone give its text_config as a file of its own": (
        "vit clip siglip dinov2 llava llava_next qwen2_vl qwen2_5_vl qwen3_vl qwen2_audio mllama gemma3 "
        "paligemma idefics2 idefics3 pixtral internvl blip-2 phi3_v phi4mm phi4_multimodal smolvlm mistral3 "
        "granite_speech"
    ),
    "its norms over all query heads and all key heads of a token, which tensor parallelism has to gather from all "
    "devices first, are not modelled": "olmo2 olmo3",
    "its per-layer embeddings and alternating updates are not modelled": "gemma3n gemma3n_text",
    "block-sparse attention is not supported": "phi3small",
    "ALiBi attention is not supported": "bloom mpt",
}
"""Why well-known model types are not supported (their modeling files in transformers)."""

_PRESENT: Mapping[str, str] = {
    "kv_lora_rank": "multi-head latent attention (MLA) is not supported",
    "vision_config": "vision and multimodal models are not supported",
    "audio_config": "audio and multimodal models are not supported",
    "text_config": "vision and multimodal models are not supported",
    "ssm_cfg": "state-space models are not supported",
    "state_size": "state-space models are not supported",
    "clip_qkv": "clipping of queries, keys and values is not supported; set it to null to predict without",
}

_TRUE: Mapping[str, str] = {
    "is_encoder_decoder": "encoder-decoder models are not supported",
    "add_cross_attention": "cross-attention is not supported",
    "alibi": "ALiBi attention is not supported",
    "use_bidirectional_attention": "attention in both directions is not supported",
    "qk_layernorm": "LayerNorms of queries and keys are not supported",
}

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")

_SOFT_CAP = 50.0
"""`attn_logit_softcapping` of a gemma2 config that leaves it out (configuration_gemma2.py)."""


def unsupported_model_type(model_type: object, path: str, supported: tuple[str, ...]) -> Problem:
    """The problem of a `model_type` that is none of `supported` (or absent)."""
    listed = ", ".join(supported)
    if model_type is None:
        return Problem(path, f"is missing; supported model types: {listed}", example='"llama"')
    if not isinstance(model_type, str):
        return Problem(path, f"must be one of {listed}", model_type, '"llama"')
    reason = next((reason for reason, types in _REASONS.items() if model_type in types.split()), None)
    if reason is not None:
        return Problem(path, f"{reason}; supported model types: {listed}", model_type)
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
            yield Problem(path(name), f"mixtures of experts are not supported: {_EXPERTS_MISSING}", count)
    cap = fields.get("attn_logit_softcapping", _SOFT_CAP if fields.get("model_type") == "gemma2" else None)
    if cap is not None:
        message = "no attention kernel with soft-capped logits was measured; set it to null to predict without"
        yield Problem(path("attn_logit_softcapping"), message, as_printed(cap), "attn_logit_softcapping: null")
    if fields.get("do_layer_norm_before") is False:
        yield Problem(path("do_layer_norm_before"), "norms behind the residual are not supported (OPT-350m)", False)
    projected, hidden = fields.get("word_embed_proj_dim"), fields.get("hidden_size")
    if isinstance(projected, int) and isinstance(hidden, int) and projected != hidden:
        yield Problem(path("word_embed_proj_dim"), "an embedding of another width is not supported", projected)
    found = checkpoint_format(fields.get("quantization_config"), path("quantization_config"))
    if isinstance(found, Problem):
        yield found
