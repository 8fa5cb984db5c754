"""Which kernels a callable launches, in order and by kind, as torch.profiler saw them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, cast

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from validation.models.fused import LABEL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch.autograd.profiler_util import FunctionEvent

_RUN = "validation::run"
"""The range of what is recorded."""

# On a CPU every operator of this list stands for the one kernel that it is on a GPU.
_OPERATORS: Mapping[str, str] = {
    "aten::addmm": "gemm",
    "aten::addmm_": "gemm",
    "aten::mm": "gemm",
    "aten::_scaled_mm": "gemm",
    "aten::native_layer_norm": "norm",
    "aten::rms_norm": "norm",
    "aten::silu": "silu",
    "aten::mul": "mul",
    "aten::neg": "neg",
    "aten::cat": "cat",
    "aten::pow": "pow",
    "aten::mean": "mean",
    "aten::rsqrt": "rsqrt",
    "aten::_to_copy": "convert",
    "aten::gelu": "gelu",
    "aten::add": "add",
    "aten::add_": "add",
    "aten::copy_": "copy",
    "aten::embedding": "embedding",
    "aten::scaled_dot_product_attention": "attention",
    "c10d::allreduce_": "all_reduce",
    "c10d::_allgather_base_": "all_gather",
}

# Parts of CUDA kernel names; the first that fits says the kind.
_KERNELS: tuple[tuple[str, str], ...] = (
    ("allgather", "all_gather"),
    ("reducescatter", "reduce_scatter"),
    ("nccl", "all_reduce"),
    ("flash", "attention"),
    ("sdpa", "attention"),
    ("fmha", "attention"),
    ("layer_norm", "norm"),
    ("layernorm", "norm"),
    ("rms_norm", "norm"),
    ("rmsnorm", "norm"),
    ("triton", "fused"),
    ("silu", "silu"),
    ("gelu", "gelu"),
    ("indexselect", "embedding"),
    ("index_select", "embedding"),
    ("gather", "embedding"),
    ("memset", "memset"),
    ("copy", "copy"),
    ("memcpy", "copy"),
    ("splitk", "splitk_reduce"),
    ("nvjet", "gemm"),
    ("gemm", "gemm"),
    ("gemv", "gemm"),
    ("cutlass", "gemm"),
    ("add", "add"),
)


def record_kernels(run: Callable[[], object], device: torch.device | str = "cpu") -> tuple[str, ...]:
    """The kinds of the kernels that one call of `run` launches, in launch order.

    On CUDA these are the kernels and copies the device really ran, ordered by their start (so that those of
    a side stream come where they began); a kind that no name gives away is "other". On a CPU they are the
    operators that would be kernels on a GPU.
    """
    if torch.device(device).type != "cuda":
        return _record_operators(run)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    events = [event for event in _events(profiler) if event.device_type.name == "CUDA"]
    # Annotated ranges are mirrored on the device's timeline; they are no kernels.
    kernels = [event for event in events if not event.is_user_annotation]
    return tuple(_kind_of_kernel(event.name) for event in sorted(kernels, key=_start))


def count_kernels(run: Callable[[], object], device: torch.device | str = "cpu") -> dict[str, int]:
    """How many kernels of each kind one call of `run` launches."""
    return dict(Counter(record_kernels(run, device)))


def record_gemms(run: Callable[[], object]) -> tuple[tuple[int, int, int], ...]:
    """(m, n, k) of the GEMMs that one call of `run` asks for, in launch order, whatever the device."""
    gemms = [event for event in _operators(run) if _kind_of_operator(event.name) == "gemm"]
    return tuple(_gemm_shape(event) for event in gemms)


def _gemm_shape(event: FunctionEvent) -> tuple[int, int, int]:
    """From the operands: mm(x[m, k], w[k, n]), addmm(b, x[m, k], w[k, n])."""
    shapes = cast("list[list[int]]", event.input_shapes)
    x, w = [shape for shape in shapes if shape][-2:]
    return x[0], w[1], x[1]


def _record_operators(run: Callable[[], object]) -> tuple[str, ...]:
    return tuple(_kind_of_operator(event.name) for event in _operators(run))


def _kind_of_operator(name: str) -> str:
    """The kind of an operator of the list; a fused function carries its own, anything else has none."""
    return name.removeprefix(LABEL) if name.startswith(LABEL) else _OPERATORS.get(name, "")


def _operators(run: Callable[[], object]) -> list[FunctionEvent]:
    """The operators of the list that are not part of another one, in the order they were called.

    What threads of a communication library copy is theirs.
    """
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler, record_function(_RUN):
        run()
    events = _events(profiler)
    own = next(event.thread for event in events if event.name == _RUN)
    found = [event for event in events if event.thread == own and _kind_of_operator(event.name) and not _inside(event)]
    return sorted(found, key=_start)


def _inside(event: FunctionEvent) -> bool:
    """Whether an operator is part of another one of the list, such as the bias copy inside a CPU's addmm."""
    parent = event.cpu_parent
    while parent is not None:
        if _kind_of_operator(parent.name):
            return True
        parent = parent.cpu_parent
    return False


def _events(profiler: profile) -> list[FunctionEvent]:
    events = profiler.events()
    return list(events) if events is not None else []


def _start(event: FunctionEvent) -> float:
    return float(event.time_range.start)


def _kind_of_kernel(name: str) -> str:
    lowered = name.lower()
    return next((kind for part, kind in _KERNELS if part in lowered), "other")
