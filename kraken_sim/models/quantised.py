"""What the `quantization_config` of a checkpoint says its matrices and their inputs are, by `quantization`'s words.

Sources: github huggingface/transformers, src/transformers/utils/quantization_config.py (FineGrainedFP8Config); github
vllm-project/compressed-tensors, src/compressed_tensors/quantization (quant_args.py, quant_scheme.py); github
vllm-project/vllm, vllm/model_executor/layers/quantization (fp8.py, modelopt.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from kraken_sim.errors import Problem
from kraken_sim.program.formats import ActivationScheme, InputFormat, Quantization

_WEIGHTS_ALONE: Mapping[str, str] = MappingProxyType(
    {
        "awq": "AWQ",
        "gptq": "GPTQ",
        "bitsandbytes": "bitsandbytes",
        "hqq": "HQQ",
        "aqlm": "AQLM",
        "auto-round": "AutoRound",
        "quip": "QuIP#",
        "mxfp4": "MXFP4",
        "torchao": "torchao",
        "eetq": "EETQ",
        "gguf": "GGUF",
    }
)
"""Methods whose kernels unpack weights for products in 16 bits, none of them measured; with their names."""

_TELLING: Mapping[str, str] = MappingProxyType(
    {"quant_algo": "modelopt", "load_in_8bit": "bitsandbytes", "load_in_4bit": "bitsandbytes"}
)
"""Fields that tell the method of a file that does not name it."""

_BLOCK: Final = 128
"""Weights of a scale along each side, and inputs of one, in fp8_block: a definition, that of `Quantization`."""

_INSTEAD: Final = "use the unquantised model's config, and `quantization` for fp8, fp8_block or nvfp4"


def checkpoint_format(config: object, path: str) -> InputFormat | Problem | None:
    """What a `quantization_config` asks of GEMMs, or why that is not supported; None where it asks nothing.

    Args:
        config: its content.
        path: its dotted path, for error messages.
    """
    if config is None or config == {}:
        return None
    if not isinstance(config, Mapping):
        return Problem(path, "must be a mapping of fields", str(config)[:60])
    method = config.get("quant_method")
    if method is None:
        # Files of before transformers wrote the method's name.
        method = next((name for key, name in _TELLING.items() if key in config), None)
    if method == "fp8":
        return _of_fp8(config, path)
    if method == "compressed-tensors":
        return _of_compressed_tensors(config, path)
    if method in ("modelopt", "modelopt_fp4"):
        return _of_modelopt(config, path)
    name = _WEIGHTS_ALONE.get(method) if isinstance(method, str) else None
    if name is not None:
        bits = f" in {config['bits']} bits" if isinstance(config.get("bits"), int) else ""
        message = f"quantised weights of {name}{bits} beside 16-bit activations have no measured kernels; {_INSTEAD}"
        return Problem(f"{path}.quant_method", message, method)
    message = f"quantised weights of this method are not supported; {_INSTEAD}"
    return Problem(f"{path}.quant_method", message, None if method is None else str(method)[:60])


def _of_fp8(config: Mapping[str, Any], path: str) -> InputFormat | Problem:
    block = config.get("weight_block_size")
    if block is not None:
        if list(block) != [_BLOCK, _BLOCK] if isinstance(block, list | tuple) else True:
            message = f"scales for other blocks of weights than {_BLOCK} x {_BLOCK} are not supported"
            return Problem(f"{path}.weight_block_size", message, block if isinstance(block, list) else str(block)[:60])
        return InputFormat(Quantization.FP8_BLOCK)
    scheme = config.get("activation_scheme", ActivationScheme.DYNAMIC.value)
    if scheme not in (ActivationScheme.STATIC.value, ActivationScheme.DYNAMIC.value):
        return Problem(f"{path}.activation_scheme", "must be static or dynamic", str(scheme)[:60], "dynamic")
    return InputFormat(Quantization.FP8, ActivationScheme(scheme))


def _of_modelopt(config: Mapping[str, Any], path: str) -> InputFormat | Problem:
    inner = config.get("quantization")
    algorithm = config.get("quant_algo", inner.get("quant_algo") if isinstance(inner, Mapping) else None)
    if algorithm == "FP8":
        return InputFormat(Quantization.FP8, ActivationScheme.STATIC)
    if algorithm == "NVFP4":
        return InputFormat(Quantization.NVFP4)
    message = f"of modelopt's formats FP8 and NVFP4 are supported; {_INSTEAD}"
    return Problem(f"{path}.quant_algo", message, None if algorithm is None else str(algorithm)[:60])


def _of_compressed_tensors(config: Mapping[str, Any], path: str) -> InputFormat | Problem:
    groups = config.get("config_groups")
    at = f"{path}.config_groups"
    if not isinstance(groups, Mapping) or not groups:
        return Problem(at, "is missing; it says the formats of compressed-tensors")
    found = {_of_group(group) for group in groups.values()}
    if len(found) > 1:
        return Problem(at, f"several formats in one model are not supported; {_INSTEAD}")
    only = found.pop()
    return only if isinstance(only, InputFormat) else Problem(at, f"{only}; {_INSTEAD}")


def _of_group(group: object) -> InputFormat | str:
    """The format of one group of layers, or what is not supported about it."""
    weights = group.get("weights") if isinstance(group, Mapping) else None
    inputs = group.get("input_activations") if isinstance(group, Mapping) else None
    if not isinstance(weights, Mapping):
        return "a group without weights is not supported"
    what = f"weights of {weights.get('num_bits')}-bit {'integers' if weights.get('type') == 'int' else 'floats'}"
    if not isinstance(inputs, Mapping):
        return f"{what} beside 16-bit activations have no measured kernels"
    if weights.get("type") != "float" or inputs.get("type") != "float":
        return f"{what} have no measured kernels"
    if (weights.get("num_bits"), inputs.get("num_bits")) == (4, 4) and weights.get("group_size") == 16:
        return InputFormat(Quantization.NVFP4)
    if (weights.get("num_bits"), inputs.get("num_bits")) != (8, 8):
        return f"{what} beside activations of {inputs.get('num_bits')} bits have no measured kernels"
    if weights.get("strategy") == "block":
        block = weights.get("block_structure")
        if block in ([_BLOCK, _BLOCK], f"{_BLOCK}x{_BLOCK}"):
            return InputFormat(Quantization.FP8_BLOCK)
        return f"scales for other blocks of weights than {_BLOCK} x {_BLOCK} are not supported"
    if not inputs.get("dynamic"):
        return InputFormat(Quantization.FP8, ActivationScheme.STATIC)
    by_token = inputs.get("strategy") == "token"
    return InputFormat(Quantization.FP8, ActivationScheme.DYNAMIC if by_token else ActivationScheme.DYNAMIC_TENSOR)
