"""A model of your own on machines that you might rent. Cells for Jupyter (jupytext) and VS Code, or plain Python."""

# %% A Hugging Face config (`"model": {"config": "path/config.json"}`), or its fields: here 8 layers of Llama 3 8B.
from __future__ import annotations

from kraken_sim import InfeasibleError, InputError, best_degree, simulate, sweep

MODEL = {
    "model_type": "llama",
    "num_hidden_layers": 8,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
}
DECODE = {"model": MODEL, "phase": "decode", "batch_size": 16, "context_length": 2000, "dtype": "bfloat16"}
DECODE["runtime"] = {"kernels": "serving"}

# %% Machines, numbers of GPUs and number formats: lists are axes of a sweep.
axes = {"hardware": ["h100-sxm-x8", "l40s-x8"], "num_devices": [1, 2, 4], "quantization": [None, "fp8"]}
result = sweep({**DECODE, **axes}, jobs=1)
print(result)
for row in result.records:
    where = f"{row['num_devices']} x {row['hardware']}, {row['quantization'] or 'bf16'}"
    times = [1e3 * row[name] for name in ("tpot_s", "interval_s.low", "interval_s.high")]
    print(f"{where:28} {times[0]:.2f} ms a token ({times[1]:.2f} to {times[2]:.2f})")

# %% How many GPUs: the fastest, and the one with the most sequences a second of the whole machine.
print(best_degree({**DECODE, "hardware": "h100-sxm-x8"}, perturb=False, architectures=["standard"]))

# %% What cannot be says the number in the way; what is wrong says everything at once.
try:
    simulate({**DECODE, "hardware": "l40s-x8", "num_devices": 1, "batch_size": 4096})
except InfeasibleError as error:
    print(error)
try:
    simulate({**DECODE, "hardware": "h100-sxm-x9", "phase": "decod", "model": {"preset": "7B"}})
except InputError as error:
    print(error)
