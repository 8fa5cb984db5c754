"""Quantised checkpoints: what their config says their matrices are is what is predicted, or is refused by name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kraken_sim import simulate
from kraken_sim.errors import InputError
from kraken_sim.models.hf import config_from_hf, format_from_fields
from kraken_sim.program.formats import BY_BLOCK, BY_TENSOR, BY_TOKEN, FP4, STATIC, InputFormat

if TYPE_CHECKING:
    from pathlib import Path

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 8,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "max_position_embeddings": 8192,
    "vocab_size": 32000,
}


def compressed(weights: dict[str, Any], inputs: dict[str, Any] | None) -> dict[str, Any]:
    """What compressed-tensors writes of one group of all linear layers."""
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs, "output_activations": None}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, "ignore": ["lm_head"]}


def floats(bits: int, strategy: str, **more: Any) -> dict[str, Any]:
    return {"num_bits": bits, "type": "float", "strategy": strategy, "symmetric": True, "dynamic": False, **more}


FP8_BLOCKS = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}


@pytest.mark.parametrize(
    ("stored", "format_"),
    [
        ({"quant_method": "fp8", "activation_scheme": "static"}, STATIC),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, BY_TOKEN),
        (FP8_BLOCKS, BY_BLOCK),
        (compressed(floats(8, "tensor"), floats(8, "tensor")), STATIC),
        (compressed(floats(8, "channel"), floats(8, "token", dynamic=True)), BY_TOKEN),
        (compressed(floats(8, "tensor"), floats(8, "tensor", dynamic=True)), BY_TENSOR),
        (compressed(floats(8, "block", block_structure=[128, 128]), floats(8, "group", dynamic=True)), BY_BLOCK),
        (compressed(floats(4, "tensor_group", group_size=16), floats(4, "tensor_group", group_size=16)), FP4),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, STATIC),
        ({"quant_method": "modelopt", "quantization": {"quant_algo": "NVFP4"}}, FP4),
        ({}, None),
    ],
)
def test_formats_that_are_measured_are_read(stored: dict[str, Any], format_: InputFormat | None) -> None:
    assert format_from_fields({"quantization_config": stored}) == format_


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "weights of AWQ in 4 bits beside 16-bit activations"),
        ({"quant_method": "gptq", "bits": 4}, "weights of GPTQ in 4 bits"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "weights of bitsandbytes"),
        ({"load_in_8bit": True, "llm_int8_threshold": 6.0}, "weights of bitsandbytes"),
        ({"quant_method": "mxfp4"}, "weights of MXFP4"),
        ({"quant_method": "exl9"}, "quantised weights of this method are not supported.*exl9"),
        ({"bits": 4}, "quantised weights of this method"),
        ([], "must be a mapping of fields"),
        ({"quant_method": "fp8", "weight_block_size": [64, 64]}, "other blocks of weights than 128 x 128"),
        ({"quant_method": "fp8", "weight_block_size": 5}, "other blocks of weights"),
        ({"quant_method": "fp8", "activation_scheme": "none"}, "must be static or dynamic"),
        ({"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}, "FP8 and NVFP4 are supported"),
        (compressed({"num_bits": 8, "type": "int"}, {"num_bits": 8, "type": "int"}), "8-bit integers"),
        (compressed({"num_bits": 4, "type": "int"}, None), "4-bit integers beside 16-bit activations"),
        (compressed(floats(8, "channel"), None), "8-bit floats beside 16-bit activations"),
        ({"quant_method": "compressed-tensors"}, "config_groups: is missing"),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": 3}}, "without weights"),
        ("fp8", "must be a mapping"),
    ],
)
def test_formats_that_are_not_measured_are_refused_by_name(stored: object, words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        config_from_hf(LLAMA | {"quantization_config": stored})
    assert len(raised.value.problems) == 1


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA | {"quantization_config": {"quant_method": "fp8", "activation_scheme": "static"}}))
    return str(path)


def test_a_checkpoint_is_predicted_in_its_own_format(checkpoint: str) -> None:
    question = {"hardware": "h200-sxm-x2", "context_length": 512, "dtype": "bfloat16"}
    plain = {**question, "model": LLAMA}
    stored = simulate({**question, "model": {"config": checkpoint}})
    said = simulate({**plain, "quantization": "fp8", "activation_scheme": "static"})
    assert stored.scenario.quantization == "fp8"
    assert stored.latency_s == said.latency_s
    assert stored.memory == said.memory
    assert stored.latency_s < simulate(plain).latency_s


def test_a_scenario_that_names_a_format_asks_for_that(checkpoint: str) -> None:
    question = {"hardware": "h200-sxm-x2", "model": {"config": checkpoint}, "context_length": 512, "dtype": "bfloat16"}
    assert simulate({**question, "quantization": "fp8_block"}).scenario.quantization == "fp8_block"


def test_a_card_that_cannot_multiply_the_checkpoints_format_says_so(checkpoint: str) -> None:
    question = {"hardware": "a100-sxm4-80gb-x8", "model": {"config": checkpoint}, "context_length": 512}
    with pytest.raises(InputError, match=r"quantization: .*has no tensor cores for it"):
        simulate(question)
