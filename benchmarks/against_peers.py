"""Kraken_sim's rows against tools that add formulas up: CPU time an answer on the same questions, in one run.

    python -m venv peers && peers/bin/pip install llm-analysis genz-llm
    python benchmarks/against_peers.py peers/bin/python

The question: prefill of a GPT of 6.7 B parameters (32 layers of width 4096) on four A100, tensor parallel, one
sequence; 16 lengths, and of ours also 2,000 together, none of them asked before. Rounds take turns, so that a busy
machine slows all of them; the best round counts, and the last column is how many answers we give in the time of one of
theirs. Who is not installed is left out, and said so. Without a Python, only our own are timed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

LENGTHS = range(512, 528)
ROUNDS = 3
TOGETHER = "kraken_sim, standard, together"
"""What the others are compared with: the same model, many questions at once."""

LLM_ANALYSIS = """
import logging; logging.disable(logging.CRITICAL)
from llm_analysis.analysis import LLMAnalysis
from llm_analysis.config import ModelConfig, ParallelismConfig, get_dtype_config_by_name, get_gpu_config_by_name
model = ModelConfig(name="gpt", num_layers=32, n_head=32, hidden_dim=4096, vocab_size=51200, max_seq_len=2048)
gpu, dtype = get_gpu_config_by_name("a100-sxm-80gb"), get_dtype_config_by_name("w16a16e16")
analysis = LLMAnalysis(model, gpu, dtype, ParallelismConfig(tp_size=4))
def ask(length):
    return analysis.inference(batch_size_per_gpu=1, seq_len=length, num_tokens_to_generate=1)["prefill_latency"]
"""
GENZ = """
import contextlib, io, warnings; warnings.filterwarnings("ignore")
from GenZ import prefill_moddeling
def ask(length):
    with contextlib.redirect_stdout(io.StringIO()):
        answer = prefill_moddeling(model="llama2_7b", batch_size=1, input_tokens=length, system_name="A100_80GB_GPU",
                                   bits="bf16", tensor_parallel=4)
    return float(answer["Latency"]) / 1e3
"""
SERVE = """
import json, sys, time
ask({first})
for _ in sys.stdin:
    begin = time.process_time()
    answers = [ask(length) for length in range({first}, {last})]
    print(json.dumps([(time.process_time() - begin) / len(answers), answers[0]]), flush=True)
"""


class Peer:
    """Another tool in a process of its own, with its own packages."""

    def __init__(self, python: str, code: str) -> None:
        script = code + SERVE.format(first=LENGTHS.start, last=LENGTHS.stop)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        self._process = subprocess.Popen([python, "-c", script], **pipes)  # type: ignore[call-overload]

    def round(self) -> tuple[float, float] | None:
        """CPU seconds an answer, and the first answer's latency in seconds; None where it does not run."""
        try:
            print(file=self._process.stdin, flush=True)
        except BrokenPipeError:
            return None
        line = self._process.stdout.readline()
        if not line:
            return None
        seconds, latency_s = json.loads(line)
        return seconds, latency_s


class Ours:
    """Rows of a sweep, so many at once, each length new in every round."""

    def __init__(self, kind: str, together: int) -> None:
        from kraken_sim.explore.sweep.rows import Evaluator

        fixed = {
            "hardware": "a100-sxm4-80gb-x8",
            "model": {"preset": "6.7B", "max_position_embeddings": 16_384},
            "architecture": {"kind": kind},
            "num_devices": 4,
        }
        self._evaluator = Evaluator(fixed, ["context_length"])
        self._evaluator.rows([(LENGTHS.start - 1,)])
        self._together, self._next = together, LENGTHS.start

    def round(self) -> tuple[float, float]:
        """As `Peer.round`."""
        chunks = [[(self._next + index,)] for index in range(len(LENGTHS))]
        if self._together > 1:
            chunks = [[(self._next + index,) for index in range(self._together)]]
        self._next += sum(map(len, chunks))
        begin = time.process_time()
        rows = [row for chunk in chunks for row in self._evaluator.rows(chunk)]
        return (time.process_time() - begin) / len(rows), rows[0][1]


def main() -> None:
    """Print the table."""
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    tools: dict[str, Ours | Peer] = {
        f"kraken_sim, {kind}{words}": Ours(kind, together)
        for kind in ("standard", "kraken")
        for together, words in ((1, ""), (2_000, ", together"))
    }
    for name, code in (("llm-analysis", LLM_ANALYSIS), ("GenZ", GENZ)) if len(sys.argv) == 2 else ():
        tools[name] = Peer(sys.argv[1], code)
    best: dict[str, tuple[float, float]] = {}
    for _ in range(ROUNDS):
        for name, tool in list(tools.items()):
            found = tool.round()
            if found is None:
                print(f"{name} does not run with {sys.argv[1]}: left out")
                del tools[name]
            else:
                best[name] = min(best.get(name, found), found)
    ours = best[TOGETHER][0]
    print(f"{'tool':32} {'CPU ms an answer':>18} {'answers / s':>12} {'TTFT, ms':>10} {'time of ours':>13}")
    for name, (seconds, latency_s) in best.items():
        row = f"{name:32} {1e3 * seconds:18.3f} {1.0 / seconds:12,.0f} {1e3 * latency_s:10.2f}"
        print(f"{row} {seconds / ours:12.1f}x")


if __name__ == "__main__":
    main()
