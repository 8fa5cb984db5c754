"""A service as tables and sentences."""

from __future__ import annotations

import math
from math import isnan
from typing import TYPE_CHECKING

from rich.console import Group

from kraken_sim.report.explore import percent
from kraken_sim.report.page import TextTable
from kraken_sim.serving.memory import memory_words
from kraken_sim.units import format_bytes, format_seconds, format_watts

if TYPE_CHECKING:
    from rich.console import RenderableType

    from kraken_sim.serving.answer import ServeAnswer
    from kraken_sim.serving.sla import Sla

NAMES = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "end to end"}
"""What people call the times."""


def serve_report(answer: ServeAnswer) -> RenderableType:
    """The times of requests, what the replicas did, the memory, and what is assumed."""
    grids = [grid.rich() for grid in serve_grids(answer)]
    return Group(*serve_sentences(answer), *grids, *serve_caveats(answer))


def serve_grids(answer: ServeAnswer) -> list[TextTable]:
    """The times of requests, and what each replica did."""
    return [_times(answer), _replicas(answer)]


def _times(answer: ServeAnswer) -> TextTable:
    names = list(answer.spreads["ttft_s"][0].percentiles_s)
    columns = ["time", "mean", *(f"p{name:g}" for name in names)]
    rows = []
    for key, (middle, low, high) in answer.spreads.items():
        cells = [_cell(middle.mean_s, low.mean_s, high.mean_s)]
        cells += [
            _cell(middle.percentiles_s[name], low.percentiles_s[name], high.percentiles_s[name]) for name in names
        ]
        rows.append([NAMES[key], *cells])
    title = "Times of requests, waiting included; in brackets with every step at either end of its 90 % interval"
    return TextTable(title, columns, rows)


def _cell(middle_s: float, low_s: float, high_s: float) -> str:
    if isnan(middle_s):
        return "-"
    return f"{format_seconds(middle_s, 3)} ({format_seconds(low_s, 3)} to {format_seconds(high_s, 3)})"


def _replicas(answer: ServeAnswer) -> TextTable:
    columns = ["replica", "busy", "steps", "prompt tokens", "tokens answered", "most waiting", "most blocks used"]
    rows = []
    served = answer.served
    for index, (account, samples) in enumerate(zip(served.accounts, served.samples, strict=True)):
        prefill = index < served.num_prefill
        states = samples.states or [(0, 0, 0)]
        rows.append(
            [
                f"{'prefill' if prefill else 'replica'} {(index if prefill else index - served.num_prefill) + 1}",
                percent(account.busy_s / served.span_s, 0),
                f"{account.steps:,}",
                f"{account.computed_tokens:,}",
                f"{account.generated_tokens:,}",
                f"{max(state[0] for state in states):,}",
                percent(max(state[2] for state in states) / max(1, answer.memory.num_blocks), 0),
            ]
        )
    return TextTable("What the replicas did", columns, rows)


def serve_sentences(answer: ServeAnswer) -> list[str]:
    """What is answered at which rate, whether the limits are kept, and what there is room for."""
    served, sla, memory = answer.served, answer.sla, answer.memory
    number, count = answer.request.replicas + served.num_prefill, len(served.requests)
    rate_per_s = served.requests.rate_per_s
    often = "at once" if math.isinf(rate_per_s) else f"at {rate_text(rate_per_s)} a second"
    sentences = [
        f"{answer.request.name}: {count:,} request{'s' if count != 1 else ''} {often} on "
        f"{number} replica{'s' if number != 1 else ''} of {answer.num_devices} x {answer.request.hardware}, which can "
        f"take {rate_text(answer.capacity_per_s)} a second. {answer.output_tokens_per_s:,.0f} tokens a second are "
        f"answered, {answer.mean_batch:.3g} a step on average; {served.preemptions:,} preemptions."
    ]
    if sla is not None and answer.kept is not None:
        verdict = "is kept" if answer.keeps_sla else "is missed"
        sentences.append(
            f"The SLA ({limit_words(sla)} at {sla.percentile:g} %; {sla.source}) {verdict}: {percent(answer.kept, 2)} "
            f"of the requests keep all of it, a goodput of {rate_text(answer.goodput_per_s)} requests a second."
        )
    sentences.append(
        f"Energy {answer.energy_j / float(served.requests.output_tokens.sum()):.3g} J a token answered, "
        f"{format_watts(answer.energy_j / served.span_s, 3)} on average on all devices, without hosts."
    )
    tokens = round(float((served.requests.prompt_tokens + served.requests.output_tokens).mean()))
    sentences.append(
        f"A device has {format_bytes(memory.capacity_bytes, 3)}, of which {format_bytes(memory.usable_bytes, 3)} are "
        f"used: {memory_words(memory.as_dict())}; {format_bytes(memory.cache_bytes, 3)} are left for the cache, "
        f"{memory.num_blocks:,} blocks of {memory.block_size} tokens: one context of {memory.cache_tokens:,} "
        f"tokens, or {memory.largest_batch(tokens):,} requests of {tokens:,} tokens in flight."
    )
    return sentences


def rate_text(per_s: float) -> str:
    """A rate in three digits, without an exponent."""
    return f"{float(f'{per_s:.3g}'):,g}"


def limit_words(sla: Sla) -> str:
    """The limits of an SLA."""
    return f"TTFT {format_seconds(sla.ttft_s)}" + (
        "" if sla.tpot_s is None else f" and TPOT {format_seconds(sla.tpot_s)}"
    )


def serve_caveats(answer: ServeAnswer) -> list[str]:
    """What is assumed."""
    spec = answer.request.scheduler
    caveats = [
        f"Every step has {format_seconds(spec.host_step)} of the host's own on top (scheduler.host_step). Attention of "
        "a decode batch is priced at the mean length of its caches, prompts of a step one after the other.",
    ]
    if answer.request.prefill is not None:
        caveats.append("Caches go from prefill to decode one after the other on the link of their replica.")
    if len(answer.ends[0].requests) < len(answer.served.requests):
        caveats.append(f"The ends of the intervals are those of the first {len(answer.ends[0].requests):,} requests.")
    return caveats
