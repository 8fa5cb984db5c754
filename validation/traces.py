"""A few steps of real models as torch.profiler saw them, small enough to keep: what `diff-trace` is tried on.

    python -m validation.traces --out out/traces                # this project's twins, and a Hugging Face model
    kraken-sim diff-trace SCENARIO out/traces/twin-decode.pt.trace.json.gz

Widths are Llama-3.1-8B's, layers few, weights random. Beside torch's own fields a file holds `validation`: the question
as a scenario's fields, and the period of the same steps back to back without the profiler. Hugging Face's model needs
the package transformers, and is left out without it. On CPUs everything is tiny, and traces have no GPU events.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import torch

from kraken_sim.measurements.records.passes import PassCase
from kraken_sim.measurements.schema import DEFAULT_CONDITION
from kraken_sim.program.kernel_sets import CardLoad, KernelSet
from kraken_sim.program.ops import DType
from kraken_sim.scenario.spec import Launch
from validation.model_grid import SHAPES, Shape
from validation.passes import ModelPass, pass_model
from validation.progress import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Step = Callable[[], None]
    Steps = Callable[[PassCase, torch.device], AbstractContextManager[Step]]

STEPS: Final = 3
"""Steps that a trace holds, so that one can be picked and a repetition seen; a choice of ours."""

_WARM_UP_STEPS: Final = 3
_TIMED_STEPS: Final = 20
_QUESTION: Final = frozenset(
    ("model", "architecture", "num_devices", "phase", "batch_size", "context_length", "dtype", "launch", "kernels")
)
"""What of a case is a scenario's, and the kernel set."""
_DROPPED: Final = ("ac2g", "python_function")
"""Categories of events that nothing here reads: arrows from a launch to its kernel, which their numbers give too."""

TINY: Final = Shape("tiny", "llama", 2, 64, 4, 2, 16, 96, 101, max_position_embeddings=64)
"""For CPUs."""


class Question(NamedTuple):
    """What is traced."""

    name: str
    phase: Literal["prefill", "decode"]
    context_length: int
    launch: Launch
    num_hidden_layers: int
    kernels: KernelSet = KernelSet.PYTORCH


TWINS: Final = (
    Question("twin-prefill", "prefill", 2048, Launch.GRAPH, 4),
    Question("twin-decode", "decode", 2048, Launch.GRAPH, 4),
    Question("twin-prefill-eager", "prefill", 512, Launch.EAGER, 4),
)
HF_MODELS: Final = (
    Question("hf-prefill-eager", "prefill", 512, Launch.EAGER, 3, KernelSet.PYTORCH_COMPOSED),
    Question("hf-decode-eager", "decode", 512, Launch.EAGER, 3, KernelSet.PYTORCH_COMPOSED),
    Question("hf-prefill-graph", "prefill", 512, Launch.GRAPH, 3, KernelSet.PYTORCH_COMPOSED),
)


def main() -> None:
    """Writes the traces."""
    parser = argparse.ArgumentParser(prog="validation.traces", description="Writes traces of a few steps.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the traces")
    parser.add_argument("--only", default="", help="only those whose name begins so, such as twin or hf-prefill")
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for questions, steps in ((TWINS, _twin), (HF_MODELS, _hf_model)):
        for question in questions:
            if question.name.startswith(given.only):
                _trace(_case(question, device), steps, device, given.out / f"{question.name}.pt.trace.json.gz")


def _case(question: Question, device: torch.device) -> PassCase:
    shape = SHAPES[0] if device.type == "cuda" else TINY
    layers = min(question.num_hidden_layers, shape.num_hidden_layers)
    return PassCase(
        architecture={"kind": "standard"},
        model=shape.fields() | {"num_hidden_layers": layers},
        num_devices=1,
        phase=question.phase,
        batch_size=1,
        context_length=question.context_length if device.type == "cuda" else 16,
        dtype=DType.BFLOAT16 if device.type == "cuda" else DType.FLOAT32,
        launch=question.launch if device.type == "cuda" else Launch.EAGER,
        overlap=False,
        condition=DEFAULT_CONDITION,
        kernels=question.kernels,
        load=CardLoad.SUSTAINED,
    )


def _trace(case: PassCase, steps: Steps, device: torch.device, path: Path) -> None:
    begun = time.perf_counter()
    try:
        with steps(case, device) as step:
            for _ in range(_WARM_UP_STEPS):
                step()
            period_s = _period(step, device)
            document = _profiled(step, device)
    except (ImportError, RuntimeError) as error:
        say(f"{path.name}: left out, {type(error).__name__}: {error}")
        return
    events = [event for event in document["traceEvents"] if event.get("cat") not in _DROPPED]
    question = case.model_dump(mode="json", include={*_QUESTION})
    kept = document | {
        "traceName": path.name,
        "traceEvents": events,
        "validation": {"question": question, "period_s": period_s},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(kept, separators=(",", ":")).encode(), 9, mtime=0))
    say(f"{path.name}: {period_s * 1e3:.3f} ms a step, {len(events)} events, {time.perf_counter() - begun:.1f} s")


def _period(step: Step, device: torch.device) -> float:
    """Seconds of a step among others without a pause, unprofiled."""
    _synchronize(device)
    begun = time.perf_counter()
    for _ in range(_TIMED_STEPS):
        step()
    _synchronize(device)
    return (time.perf_counter() - begun) / _TIMED_STEPS


def _profiled(step: Step, device: torch.device) -> dict[str, Any]:
    """The document of a trace of some steps, each in its ProfilerStep."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    schedule = torch.profiler.schedule(wait=0, warmup=1, active=STEPS, repeat=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"

        def export(profiler: torch.profiler.profile) -> None:
            profiler.export_chrome_trace(str(path))

        with torch.profiler.profile(activities=activities, schedule=schedule, on_trace_ready=export) as profiler:
            for _ in range(1 + STEPS):
                step()
                _synchronize(device)
                profiler.step()
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    return document


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _twin(case: PassCase, device: torch.device) -> Iterator[Step]:
    """A step of this project's model."""
    with pass_model(case, device) as model, ModelPass(model, case) as one:
        yield one.run


@contextmanager
def _hf_model(case: PassCase, device: torch.device) -> Iterator[Step]:
    """A step of transformers' Llama: a prompt, or one more token after a prompt in its own growing cache."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {name: value for name, value in case.model.items() if name != "model_type"}
    with torch.device(device), torch.inference_mode():
        model = LlamaForCausalLM(LlamaConfig(**sizes)).to(getattr(torch, case.dtype.value)).eval()
        prompt = torch.randint(case.model["vocab_size"], (case.batch_size, case.context_length))
        cache = None
        if case.phase == "decode":
            cache = model(prompt, use_cache=True, logits_to_keep=1).past_key_values
            prompt = prompt[:, :1]

    def step() -> None:
        with torch.inference_mode():
            if cache is None:
                model(prompt, use_cache=False, logits_to_keep=1)
            else:
                model(prompt, past_key_values=cache, use_cache=True, logits_to_keep=1)
                cache.crop(-1)

    if case.launch is Launch.EAGER:
        yield step
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP_STEPS):
            step()
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        step()
    yield graph.replay


if __name__ == "__main__":
    main()
