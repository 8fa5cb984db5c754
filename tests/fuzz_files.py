"""Right files of every kind, who reads each, and what their answers must be; the fuzzer starts from them."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml
from fuzz_promise import check_json, check_time, check_words, kept
from fuzz_trees import from_schema, written

import kraken_sim
from kraken_sim.explore.sweep.plan import load_plan
from kraken_sim.files.shipped import data_dir
from kraken_sim.measurements.nccl_tests import read_collectives
from kraken_sim.measurements.schema import read_measurements
from kraken_sim.models.hf import config_from_hf
from kraken_sim.paper.grid import load_grid
from kraken_sim.profiles.datasheet import datasheet_json_schema
from kraken_sim.profiles.from_datasheet import profile_from_datasheet
from kraken_sim.profiles.load import check_profile, load_profile
from kraken_sim.profiles.schema import profile_json_schema
from kraken_sim.program.ops import CollectiveKind
from kraken_sim.report.trace import write_traces
from kraken_sim.scenario.spec import scenario_json_schema
from kraken_sim.serving.trace_file import read_trace_file
from kraken_sim.traces.comparison import Predicted, compare_traces, predicted, predicted_trace
from kraken_sim.traces.device_trace import read_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hypothesis import strategies as st

HERE: Final = Path(__file__).parent
SMALL: Final = {"hardware": "h200-sxm-x2", "model": {"preset": "125M"}, "context_length": 128, "num_devices": 2}


def answered(path: Path) -> None:
    """Asks a scenario's file."""
    check_prediction(kraken_sim.simulate(kraken_sim.load_scenario(path)))


def check_prediction(prediction: kraken_sim.Prediction) -> None:
    check_time(prediction.latency_s)
    check_json(prediction.as_dict())


def swept(path: Path) -> None:
    plan = load_plan(path)
    if plan.num_points <= 4:
        for row in kraken_sim.sweep(path, jobs=1).records:
            assert row["error"] is not None or row["latency_s"] > 0.0
            if row["error"] is not None:
                check_words(row["error"])


def machine(path: Path) -> None:
    for problem in check_profile(path):
        check_words(str(problem))
    profile = load_profile(path)
    gpus = min(2, len(profile.topology.gpus))
    check_prediction(kraken_sim.simulate(SMALL | {"num_devices": gpus}, profile=profile))


def datasheet(path: Path) -> None:
    machine(path)
    profile_from_datasheet(path, "made")


def model(path: Path) -> None:
    config_from_hf(path)
    check_prediction(kraken_sim.simulate(SMALL | {"model": {"config": str(path)}}))


def measured(path: Path) -> None:
    found = read_measurements(path)
    list(found.records)


def traced(path: Path) -> None:
    """Compares a trace with a small question, and takes it for one of ours."""
    trace = read_trace(path)
    check_json(compare_traces(small_prediction(), [trace]).as_dict())
    check_json(compare_traces(predicted_trace(trace), [trace]).as_dict())


@functools.cache
def small_prediction() -> Predicted:
    return predicted(kraken_sim.simulate(SMALL))


def designs(path: Path) -> None:
    kraken_sim.load_design_request(path)


def purchase(path: Path) -> None:
    request = kraken_sim.load_procure_request(path)
    if len(request.candidates) == 1:
        check_json(kraken_sim.procure(request).as_dict())


def service(path: Path) -> None:
    request = kraken_sim.load_serve_request(path)
    traffic, replicas = request.traffic, request.replicas * (request.prefill.replicas if request.prefill else 1)
    if (traffic.num_requests or 5000) * replicas <= MOST_SERVED:
        check_json(kraken_sim.serve(request).as_dict())


def requests(path: Path) -> None:
    found = read_trace_file(path)
    assert len(found.arrival_s) == len(found.prompt_tokens) == len(found.output_tokens)


def layers(path: Path) -> None:
    """An architecture's file, asked with the smallest question."""
    question = path.with_name("question.yaml")
    question.write_text(written(SMALL | {"architecture": {"kind": "file", "path": path.name}}), encoding="utf-8")
    answered(question)


def times(path: Path) -> None:
    for row in read_collectives(path, CollectiveKind.ALL_GATHER, 8):
        check_time(row.time_s)


def cases(path: Path) -> None:
    sweep = path.with_name("sweep.yaml")
    sweep.write_text(written(SMALL | {"sweep": {"cases": path.name}}), encoding="utf-8")
    swept(sweep)


def shipped(name: str) -> str:
    return (data_dir("scenarios") / name).read_text(encoding="utf-8")


def tree(text: str) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(text.replace(": 2026-01-01", ': "2026-01-01"'), loader)


def one_candidate() -> dict[str, Any]:
    request: dict[str, Any] = tree(shipped("assistant_purchase.yaml"))
    return request | {"candidates": request["candidates"][1:2], "what_if": request["what_if"][:1]}


def small_service() -> dict[str, Any]:
    request: dict[str, Any] = tree(shipped("chat_service.yaml"))
    model = request["model"] | {"num_hidden_layers": 2}
    short = {"mean": 50, "variation": 0.5, "least": 2, "most": 100}
    traffic = {"requests_per_s": 20, "num_requests": 20, "prompt_tokens": short, "output_tokens": short, "seed": 1}
    return request | {"model": model, "num_devices": 1, "replicas": 1, "traffic": traffic}


LLAMA: Final = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 32,
    "num_hidden_layers": 22,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "hidden_act": "silu",
    "rope_scaling": None,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
}
GPT2: Final = {
    "model_type": "gpt2",
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "vocab_size": 50257,
}
RICH: Final = {
    "name": "rich",
    "hardware": "h200-sxm-x8",
    "model": {"preset": "1.3B"},
    "placement": "0,1,4,5",
    "architecture": {"kind": "kraken", "ways": 4, "hidden_size": 1024, "num_attention_heads": 8},
    "num_devices": 4,
    "phase": "decode",
    "batch_size": 3,
    "context_length": 300,
    "dtype": "bfloat16",
    "runtime": {
        "launch": "eager",
        "overlap": True,
        "overlap_copies": 2,
        "collective": {"library": "nccl", "channels": 4, "transport": "auto"},
    },
}
SIZED: Final = SMALL | {
    "model": {
        "model_type": "llama",
        "num_hidden_layers": 4,
        "hidden_size": 512,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "intermediate_size": 1024,
        "vocab_size": 1000,
    },
    "architecture": {"kind": "parallel"},
}
SWEEP: Final = SMALL | {
    "name": "s",
    "batch_size": [1, 2],
    "context_length": {"start": 128, "stop": 300, "step": 128},
    "runtime": {"collective": {"channels": [None]}},
    "architecture": [{"kind": "standard"}],
}
HALF: Final[dict[str, Any]] = {"name": "all_reduce", "kind": "all_reduce", "share": 0.5}
GPT_J: Final = {
    "name": "half-gpt-j",
    "layers": [
        {"period": [[{"norm": "norm"}, "attention", {"ffn": {"onto": True}}, {"residual": {"name": "r", "by": HALF}}]]}
    ],
}
LADDER: Final[dict[str, Any]] = {
    "name": "ladder",
    "layers": [
        {
            "period": [
                [
                    {"take": {"of": "reduce_attention", "name": "residual_attention", "layers_back": 1}},
                    {"norm": "norm_attention"},
                    "attention",
                    {"begin": "reduce_attention"},
                    {"take": {"of": "reduce_ffn", "name": "residual_ffn", "layers_back": 1}},
                    {"norm": "norm_ffn"},
                    "ffn",
                    {"begin": "reduce_ffn"},
                ]
            ]
        }
    ],
    "end": [
        {"take": {"of": "reduce_attention", "name": "residual_attention"}},
        {"take": {"of": "reduce_ffn", "name": "residual_ffn"}},
    ],
}
CASES: Final = "batch_size,context_length,architecture.kind\n1,128,standard\n2,256,kraken\n4,,\n"
AZURE: Final = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
"""
MOONCAKE: Final = """{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}
{"timestamp": 30535, "input_length": 6472, "output_length": 26, "hash_ids": [46]}
"""
MOST_SERVED: Final = 50
"""Requests that the fuzzer has simulated at most, times replicas."""

CSV: Final = "op,num_gpus,message_bytes,time_us\nall_gather,8,1048576,25.4\nall_gather,8,2097152,40.1\n"


@functools.cache
def examples_of() -> dict[str, list[str]]:
    """By kind of file, the texts of right ones."""
    profiles = data_dir("hardware_profiles")
    texts = {
        "scenario": [written(SMALL), written(RICH), written(SIZED), shipped("kraken-6.7b-on-two-h200.yaml")],
        "sweep": [written(SWEEP), written(SWEEP | {"sweep": {"combine": "zip"}}), shipped("lengths-sweep.yaml")],
        "grid": [shipped("paper_grid.yaml")],
        "design": [shipped("13b-on-h100_design.yaml")],
        "service": [written(small_service()), shipped("chat_service.yaml")],
        "requests": [AZURE, MOONCAKE, "arrival_s,prompt_tokens,output_tokens\n0,10,5\n1.5,200,3\n"],
        "purchase": [written(one_candidate()), shipped("assistant_purchase.yaml")],
        "profile": [(profiles / f"{name}.yaml").read_text(encoding="utf-8") for name in ("h200-sxm-x2", "l40s-x8")],
        "datasheet": [
            (HERE / "data" / "b200-datasheet.yaml").read_text(encoding="utf-8"),
            shipped("thirty-lines/h20-sxm-x8.yaml"),
        ],
        "config": [written(LLAMA), written(GPT2)],
        "layers": [written(GPT_J), written(LADDER)],
        "times": [(HERE / "data" / "nccl-tests-all-gather.txt").read_text(encoding="utf-8"), CSV],
        "cases": [CASES],
        "measurements": ["\n".join(measurement_lines()) + "\n"],
        "trace": [measured_trace(), trace_of_ours()],
    }
    return {kind: [text.lstrip("\ufeff") for text in found] for kind, found in texts.items()}


def measured_trace() -> str:
    """The first kernels of a measured step."""
    found = json.loads((HERE / "data" / "h200-llama-8b-decode.trace.json").read_text(encoding="utf-8"))
    return json.dumps(found | {"traceEvents": found["traceEvents"][:15]})


def trace_of_ours() -> str:
    """A predicted step of one layer."""
    model = {"preset": "125M", "num_hidden_layers": 1}
    with tempfile.TemporaryDirectory() as folder:
        file, *_ = write_traces(kraken_sim.simulate(SMALL | {"model": model, "num_devices": 1}), Path(folder))
        return json.dumps(json.loads(file.read_text(encoding="utf-8")))


def measurement_lines() -> list[str]:
    """The header of a measurement file and a record of every kind in it."""
    file = HERE.parent / "validation" / "measurements" / "h200-sxm-x2-quick.jsonl"
    by_kind: dict[str, str] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        by_kind.setdefault(yaml.safe_load(line)["kind"] if len(by_kind) < 1 else line.split('"')[3], line)
    return list(by_kind.values())


READERS: Final[Mapping[str, tuple[str, Callable[[Path], None]]]] = {
    "scenario": ("question.yaml", answered),
    "sweep": ("question.yaml", swept),
    "grid": ("grid.yaml", lambda path: void(load_grid(str(path)))),
    "design": ("request.yaml", designs),
    "purchase": ("request.yaml", purchase),
    "service": ("request.yaml", service),
    "requests": ("requests.csv", requests),
    "profile": ("machine.yaml", machine),
    "datasheet": ("machine.yaml", datasheet),
    "config": ("config.json", model),
    "layers": ("layers.yaml", layers),
    "times": ("times.txt", times),
    "cases": ("cases.csv", cases),
    "measurements": ("measured.jsonl", measured),
    "trace": ("rank0.pt.trace.json", traced),
}
TREES: Final = (
    "scenario",
    "sweep",
    "grid",
    "design",
    "purchase",
    "service",
    "profile",
    "datasheet",
    "config",
    "layers",
    "trace",
)


def void(_: object) -> None:
    """Drops an answer."""


def ask(kind: str, content: bytes) -> None:
    """Has a file of this kind and content read and asked."""
    name, reader = READERS[kind]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        kept(lambda: reader(path))


@functools.cache
def schema_of(kind: str) -> Mapping[str, Any] | None:
    match kind:
        case "scenario":
            return scenario_json_schema()
        case "design":
            return kraken_sim.DesignRequest.model_json_schema()
        case "purchase":
            return kraken_sim.ProcureRequest.model_json_schema()
        case "service":
            return kraken_sim.ServeRequest.model_json_schema()
        case "profile":
            return profile_json_schema()
        case "datasheet":
            return datasheet_json_schema()
    return None


@functools.cache
def drawn_of(kind: str) -> st.SearchStrategy[Any]:
    """Files of this kind by its schema."""
    schema = schema_of(kind)
    assert schema is not None
    return from_schema(schema)
