"""A server of its own: continuous batching over an engine, replaying a trace; every step and request is recorded.

It decides as `kraken_sim.serving.scheduler` says it does, in code of its own: sequences that decode come first, then
the prompt under way, then waiting ones in the order of arrival, in chunks of what the token budget leaves. A request is
let in while there is a free row of the cache.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from validation.serving.engine import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kraken_sim.serving.arrivals import Requests
    from validation.serving.engine import ServingEngine


@dataclass(slots=True)
class Live:
    """A request in the server: its row, how far its prompt is, its answer so far."""

    index: int
    prompt: Sequence[int]
    output: int
    row: int = -1
    computed: int = 0
    answer: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Log:
    """Steps (start, end, host seconds, decoding requests, chunks (request, before, tokens)) and requests' times."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    first_token_s: dict[int, float] = field(default_factory=dict)
    finish_s: dict[int, float] = field(default_factory=dict)


def replay(
    engine: ServingEngine,
    requests: Requests,
    *,
    max_num_batched_tokens: int,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Log:
    """Serves a trace in real time.

    A step begins where the one before ended, or with the arrival that ended a pause, so that the times of steps add up.
    """
    arrivals, prompts, outputs = (
        values.tolist() for values in (requests.arrival_s, requests.prompt_tokens, requests.output_tokens)
    )
    waiting: deque[Live] = deque()
    running: list[Live] = []
    prefilling: list[Live] = []
    free = deque(range(engine.num_rows))
    log, upcoming, began = Log(), 0, clock()
    now = 0.0
    while len(log.finish_s) < len(arrivals):
        while upcoming < len(arrivals) and arrivals[upcoming] <= now:
            # The prompt's tokens do not matter to anybody.
            prompt = [(upcoming * 31 + place * 7) % 1000 for place in range(prompts[upcoming])]
            waiting.append(Live(upcoming, prompt, outputs[upcoming]))
            upcoming += 1
        if not (waiting or running or prefilling):
            now = arrivals[upcoming]
            while (left := now - (clock() - began)) > 0.0:
                sleep(left if left > 2e-3 else 0.0)
            continue
        start, budget = now, max_num_batched_tokens - len(running)
        decoding = list(running)
        chunks: list[tuple[Live, int, int]] = []
        for live in prefilling:
            budget -= _take(live, budget, chunks)
        while budget > 0 and waiting and free:
            live = waiting.popleft()
            live.row = free.popleft()
            prefilling.append(live)
            budget -= _take(live, budget, chunks)
        decode = [Part(live.row, len(live.prompt) + len(live.answer) - 1, (live.answer[-1],)) for live in decoding]
        parts = [Part(live.row, before, live.prompt[before : before + count]) for live, before, count in chunks]
        planned = clock()
        tokens = engine.step(decode, parts)
        answered = clock()
        for live, token in zip([*decoding, *(chunk[0] for chunk in chunks)], tokens, strict=True):
            if len(live.prompt) == live.computed:
                live.answer.append(token)
        ended = clock() - began
        for live, _, _ in chunks:
            if live.computed == len(live.prompt):
                prefilling.remove(live)
                running.append(live)
                log.first_token_s[live.index] = ended
        for live in [live for live in running if len(live.answer) >= live.output]:
            running.remove(live)
            free.append(live.row)
            log.finish_s[live.index] = ended
        now = ended
        log.steps.append(
            {
                "start_s": start,
                "end_s": ended,
                "device_s": answered - planned,
                "decoding": [live.index for live in decoding],
                "cached": sum(part.start for part in decode),
                "chunks": [(live.index, before, count) for live, before, count in chunks],
            }
        )
    return log


def _take(live: Live, budget: int, chunks: list[tuple[Live, int, int]]) -> int:
    count = min(budget, len(live.prompt) - live.computed)
    if count > 0:
        chunks.append((live, live.computed, count))
        live.computed += count
    return max(count, 0)
