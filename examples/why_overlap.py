"""Is a Kraken faster here, and why? Cells for Jupyter (jupytext) and VS Code, or plain Python."""

# %% The question: as a mapping, a file's path, or the name of a scenario that ships.
from __future__ import annotations

from kraken_sim import best_channels, compare, simulate

QUESTION = {
    "hardware": "h200-sxm-x2",
    "model": {"preset": "6.7B"},
    "architecture": {"kind": "kraken"},
    "context_length": 512,
    "dtype": "bfloat16",
}

# %% One prediction: its line, where the time goes, how far to trust it. `prediction.plot()` draws it.
prediction = simulate(QUESTION)
print(prediction)
for part, seconds in prediction.breakdown_s.items():
    print(f"{part:16} {1e3 * seconds:6.2f} ms")
exposed_s, hidden_s = prediction.exposed_communication_s, prediction.hidden_communication_s
print(f"communication: {1e3 * exposed_s:.2f} ms exposed, {1e3 * hidden_s:.2f} ms hidden")

# %% Against others of the same parameters, by prompt length.
for context_length in (128, 512, 2048):
    answer = compare({**QUESTION, "context_length": context_length}, architectures=["parallel", "kraken"])
    print(context_length, answer)

# %% What the AllReduce beside the attention costs: SMs, bandwidth, waiting. Fewer channels hold fewer SMs.
cost = prediction.overlap_cost
print(f"waiting {1e6 * cost.waiting_s:.0f} us, slower compute {1e6 * cost.compute_slowdown_s:.0f} us")
channels = best_channels(QUESTION, (None, 4, 8, 16), perturb=False)
print(channels)

# %% As a table; with pandas (extra `pandas`) `channels.to_pandas()` is the same.
for row in channels.records:
    print(row["channels"], f"{1e3 * row['latency_s']:.3f} ms")
