"""Which architecture on which machine: draws which-architecture.svg and prints the tables of architectures.md.

Models of 8, 32 and 70 B (the shipped sweep's) in bfloat16 with the kernels of a serving engine, on eight GPUs over
PCIe 4 (L40S), NVLink 4 (H100) and NVLink 5 (B200), and on two nodes of eight H100: a prefill of 2,048 tokens, and a
decode step of 16 sequences of 2,048 tokens.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kraken_sim import simulate
from kraken_sim.errors import InfeasibleError, InputError
from kraken_sim.explore.architectures import ArchitectureAnswer, Rival, best_architecture
from kraken_sim.explore.sensitivity import speedup_interval
from kraken_sim.files.strict_yaml import read_yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT: Final = Path(__file__).parent.parent
DRAWING: Final = ROOT / "docs" / "which-architecture.svg"
MACHINES: Final = (
    ("L40S x 8, PCIe 4", "l40s-x8", 8),
    ("H100 x 8, NVLink 4", "h100-sxm-x8", 8),
    ("B200 x 8, NVLink 5", "b200-sxm-x8", 8),
    ("H100 2 x 8, two nodes", "h100-sxm-2x8", 16),
)
NUMBERS: Final = (2, 4, 8)
SIZES: Final = ("8B", "32B", "70B")
STEPS: Final = (
    ("prefill", {"phase": "prefill", "batch_size": 1, "context_length": 2048}),
    ("decode", {"phase": "decode", "batch_size": 16, "context_length": 2048}),
)
SHOWN: Final = ("parallel", "kraken", "ladder", "desync", "parallel_track", "sync_point_drop", "token_weave")
COLOURS: Final = ("#dd8452", "#4c72b0", "#55a868", "#c44e52", "#8172b3", "#937860", "#8c8c8c")
MOST_PERCENT: Final = 350
"""The right end of the picture."""

COMMUNICATION: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("NCCL's choice", {"kernels": "serving"}),
    ("NCCL's symmetric memory", {"kernels": "serving", "collective": {"algorithm": "symmetric"}}),
    ("one-shot and two-shot kernels", {"kernels": "serving", "collective": {"library": "custom"}}),
    ("AllReduce with add and norm", {"kernels": "serving_fused"}),
)


def models() -> list[dict[str, Any]]:
    """The models of the shipped sweep, smallest first."""
    data = read_yaml(ROOT / "scenarios" / "which-architecture-sweep.yaml").data
    assert isinstance(data, dict)
    found: list[dict[str, Any]] = data["model"]
    return found


def question(hardware: str, num_devices: int, model: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
    """A scenario of the page."""
    asked = {"hardware": hardware, "num_devices": num_devices, "model": model, "dtype": "bfloat16"}
    return {**asked, **step, "runtime": {"kernels": "serving"}}


def answers() -> Iterator[tuple[str, str, str, ArchitectureAnswer]]:
    """Every question of the page with its answer: machine, size, step."""
    for (step_name, step), (machine, hardware, devices), (size, model) in product(
        STEPS, MACHINES, zip(SIZES, models(), strict=True)
    ):
        yield step_name, machine, size, best_architecture(question(hardware, devices, model, step), architectures=SHOWN)


def cell(rival: Rival) -> str:
    """A gain at equal parameters, with half of the interval's width."""
    low, high = rival.interval
    return f"{100.0 * rival.gain_at_equal_parameters:+.0f} ± {50.0 * (high - low):.0f}"


def gains_table(found: Iterable[tuple[str, str, str, ArchitectureAnswer]]) -> Iterator[str]:
    """The gains over standard in per cent, the fastest one bold."""
    yield f"| step, machine | model | standard | {' | '.join(f'`{kind}`' for kind in SHOWN)} |"
    yield f"| --- | --- | ---: |{' ---: |' * len(SHOWN)}"
    for step, machine, size, answer in found:
        rivals = {rival.kind: rival for rival in answer.rivals}
        best = answer.rivals[0].kind
        base_s = rivals["standard"].prediction.latency_s
        cells = [f"**{cell(rivals[kind])}**" if kind == best else cell(rivals[kind]) for kind in SHOWN]
        yield f"| {step}, {machine} | {size} | {1e3 * base_s:.3g} ms | {' | '.join(cells)} |"


def survival_table(model: dict[str, Any]) -> Iterator[str]:
    """What is left of each gain where the standard model's AllReduces are better ones; decode on eight H100."""
    asked = question("h100-sxm-x8", 8, model, STEPS[1][1])
    kinds = tuple(kind for kind in SHOWN if kind != "token_weave")
    yield f"| AllReduces of all | standard | {' | '.join(f'`{kind}`' for kind in kinds)} |"
    yield "| --- | ---: |" + " ---: |" * len(kinds)
    for name, runtime in COMMUNICATION:
        try:
            base, *others = (
                simulate({**asked, "runtime": runtime, "architecture": {"kind": kind}}) for kind in ("standard", *kinds)
            )
        except (InputError, InfeasibleError) as error:
            sys.stderr.write(f"{name}: {error}\n")
            continue
        cells = []
        for prediction in others:
            low, high = speedup_interval(base, prediction)
            gain = 100.0 * (base.latency_s / prediction.latency_s - 1.0)
            cells.append(f"{gain:+.0f} ± {50.0 * (high - low):.0f}")
        yield f"| {name} | {1e3 * base.latency_s:.3g} ms | {' | '.join(cells)} |"


def best_table() -> Iterator[str]:
    """The fastest architecture at equal parameters on two, four and eight GPUs of a machine, with its gain."""
    yield f"| step, machine | model | {' | '.join(f'{number} GPUs' for number in NUMBERS)} |"
    yield "| --- | --- |" + " --- |" * len(NUMBERS)
    within = [(machine.replace(" x 8", ""), hardware) for machine, hardware, devices in MACHINES if devices == 8]
    for (step_name, step), (machine, hardware), (size, model) in product(
        STEPS, within, zip(SIZES, models(), strict=True)
    ):
        cells = [_best(question(hardware, number, model, step)) for number in NUMBERS]
        yield f"| {step_name}, {machine} | {size} | {' | '.join(cells)} |"


def _best(asked: dict[str, Any]) -> str:
    try:
        best = best_architecture(asked, architectures=SHOWN).rivals[0]
    except InfeasibleError:
        return "does not fit"
    return f"`{best.kind}` {cell(best)}"


def drawing(found: list[tuple[str, str, str, ArchitectureAnswer]]) -> str:
    """Bars of the gains by question, with their intervals."""
    row_height, bar, left, scale = 13 * len(SHOWN) + 22, 13, 130, 2.2
    zero = left + 60 * scale
    width, height = int(zero + MOST_PERCENT * scale + 150), row_height * len(found) + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        'font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{zero}" y="18" text-anchor="middle">faster than standard at equal parameters, %</text>',
    ]
    for tick in range(-50, MOST_PERCENT + 1, 50):
        x = zero + tick * scale
        parts.append(f'<line x1="{x}" x2="{x}" y1="30" y2="{height - 8}" stroke="{"#555" if tick == 0 else "#ddd"}"/>')
        parts.append(f'<text x="{x + 3}" y="40" fill="#777">{tick:+d}</text>')
    for index, (step, machine, size, answer) in enumerate(found):
        top = 50 + index * row_height
        parts.append(f'<text x="8" y="{top + 12}" font-weight="bold">{size}, {step}</text>')
        parts.append(f'<text x="8" y="{top + 27}">{machine}</text>')
        rivals = {rival.kind: rival for rival in answer.rivals}
        for place, (kind, colour) in enumerate(zip(SHOWN, COLOURS, strict=True)):
            parts += _bar(rivals[kind], colour, zero, scale, top + place * bar)
    return "\n".join([*parts, "</svg>", ""])


def _bar(rival: Rival, colour: str, zero: float, scale: float, y: float) -> Iterator[str]:
    gain = 100.0 * rival.gain_at_equal_parameters
    shift = gain - 100.0 * rival.gain
    low, high = (min(100.0 * end + shift, MOST_PERCENT) for end in rival.interval)
    x = zero + min(0.0, gain) * scale
    yield f'<rect x="{x:.1f}" y="{y + 1}" width="{abs(gain) * scale:.1f}" height="10" fill="{colour}"/>'
    ends = f'x1="{zero + low * scale:.1f}" x2="{zero + high * scale:.1f}"'
    yield f'<line {ends} y1="{y + 6}" y2="{y + 6}" stroke="#222"/>'
    yield f'<text x="{zero + max(high, gain, 0.0) * scale + 5:.1f}" y="{y + 10}">{rival.kind} {gain:+.0f} %</text>'


def main() -> None:
    """Draws the picture and prints the tables."""
    found = list(answers())
    DRAWING.write_text(drawing([item for item in found if item[2] == "70B"]), encoding="utf-8")
    for line in (*gains_table(found), "", *best_table(), "", *survival_table(models()[-1])):
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
