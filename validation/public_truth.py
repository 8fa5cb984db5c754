"""Published figures beside predictions, as a page.

    python -m validation.public_truth FACTS.csv --markdown docs/public-truth.md

FACTS.csv has the columns of `validation.public_facts`; no constant is ever fitted to such a figure.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Final

from kraken_sim.errors import KrakenSimError
from kraken_sim.profiles.load import load_profile
from validation.paper_page import table
from validation.public_facts import CLASSES, COLLECTIVES, GRADES, read_facts
from validation.public_questions import answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from validation.public_facts import Fact
    from validation.public_questions import Answer

LARGE_ERROR: Final = 0.25
"""Error from which a figure of grade A is named on the page; a choice of ours."""

RIVALS: Final = (
    (
        "PipeWeave (arXiv 2601.14910)",
        "8.5 % of whole inference, 6.1 % of kernels",
        "learned, 11 GPU types, two servers",
    ),
    ("NeuSight (arXiv 2407.13853)", "2.3 % of GPT-3 on an H100 that it never saw", "learned tiles and waves"),
    ("LLMCompass (ISCA 2024)", "4.1 % of inference, 10.9 % of operators", "analytical, A100 and others"),
)
"""What others claim of their own predictions, on figures and splits of their own: from their abstracts."""

OPENING: Final = """# Public truth

Figures that others published, beside what the simulator says; nothing was ever fitted to them. This page is written by

    python -m validation.public_truth FACTS.csv --markdown docs/public-truth.md

from a CSV file of one figure a row, each with its source (columns in `validation/public_facts.py`). Errors are
predicted / published - 1 of the time. Grade A: the same thing was measured. B: an engine, a clock or a topology that
the simulator does not describe. C: another kernel or set-up. **Inside** is the share of the figures that lie in the
90 % interval of their predictions; intervals say how far the fits are off, not how engines, hosts and ways to measure
differ."""


def page(answered: Sequence[Answer], unanswered: Sequence[tuple[Fact, str]]) -> str:
    """The page in Markdown."""
    parts = [
        OPENING,
        "## By class\n\n" + _by(answered, ("class",), lambda a: (a.fact.kind,)),
        "## By class and card, grade A\n\n"
        + _by([a for a in answered if a.fact.grade == "A"], ("class", "card"), lambda a: (_class(a), _card(a))),
        "## Failures of ours\n\nFigures of grade A that are off by a quarter or more: the same thing was measured.\n\n"
        + _failures(answered),
        "## Set-ups that are not described\n\nFigures of grade B and C by what the simulator does not know "
        "of them. Where the\nbias is negative the engine is slower than its kernels.\n\n" + _set_ups(answered),
        "## What rivals claim\n\nOn figures and splits of their own: no two of these numbers, nor ours, are of one "
        "set.\n\n" + table(("rival", "claims", "how"), RIVALS, left=3),
        "## Sources\n\n" + _sources(answered),
    ]
    if unanswered:
        parts.append(
            f"{len(unanswered)} figures without an answer: " + "; ".join(sorted({why for _, why in unanswered}))
        )
    return "\n\n".join(parts) + "\n"


def _class(answer: Answer) -> str:
    return "collectives" if answer.fact.kind in COLLECTIVES else answer.fact.kind


def _card(answer: Answer) -> str:
    return load_profile(answer.fact.machine).device.name.removeprefix("NVIDIA ")


def _by(some: Iterable[Answer], labels: tuple[str, ...], key: Callable[[Answer], tuple[str, ...]]) -> str:
    """A table of errors by a key, and where the key is the class alone by grade too."""
    groups: dict[tuple[str, ...], list[Answer]] = defaultdict(list)
    graded = len(labels) == 1
    for one in some:
        groups[(*key(one), one.fact.grade) if graded else key(one)].append(one)
    order = {name: index for index, name in enumerate((*CLASSES, "collectives"))}
    ordered = sorted(groups.items(), key=lambda item: (order.get(item[0][0], 99), *item[0][1:]))
    header = (*labels, *(["grade"] if graded else []), *ERRORS)
    return table(header, [(*name, *_errors(found)) for name, found in ordered], left=len(header) - len(ERRORS))


ERRORS: Final = ("figures", "bias, %", "median, %", "mean, %", "worst, %", "inside, %")


def _errors(found: Sequence[Answer]) -> tuple[str, ...]:
    errors = [100.0 * one.error for one in found]
    sizes = [abs(error) for error in errors]
    inside = 100.0 * fmean([one.inside for one in found])
    return (
        str(len(found)),
        f"{median(errors):+.0f}",
        f"{median(sizes):.1f}",
        f"{fmean(sizes):.1f}",
        f"{max(errors, key=abs):+.0f}",
        f"{inside:.0f}",
    )


def _failures(answered: Sequence[Answer]) -> str:
    groups: dict[tuple[str, str, str], list[Answer]] = defaultdict(list)
    for one in answered:
        if one.fact.grade == "A" and abs(one.error) >= LARGE_ERROR:
            groups[_class(one), _card(one), repository(one.fact.source)].append(one)
    rows = [
        (*name, str(len(found)), f"{100 * max((a.error for a in found), key=abs):+.0f}", _worst(found))
        for name, found in sorted(groups.items())
    ]
    return table(("class", "card", "published in", "figures", "worst, %", "of"), rows, left=3) if rows else "None."


def _worst(found: Sequence[Answer]) -> str:
    fact = max(found, key=lambda one: abs(one.error)).fact
    shape = f"{fact.shape}, batch {fact.batch}, {fact.tokens_in} tokens" if fact.tokens_in else fact.shape
    return f"{shape}, {fact.num_devices} GPUs" if fact.num_devices > 1 else shape


def _set_ups(answered: Sequence[Answer]) -> str:
    groups: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for one in answered:
        if one.fact.grade != "A":
            groups[one.fact.reason or "not said", _class(one)].append(one)
    rows = [
        (reason, kind, str(len(found)), f"{100 * median(one.error for one in found):+.0f}")
        for (reason, kind), found in sorted(groups.items(), key=lambda item: (item[0][1], -len(item[1]), item[0][0]))
    ]
    return table(("set-up", "class", "figures", "bias, %"), rows, left=2)


def repository(source: str) -> str:
    """The first word of a source that names a repository or a page, without its path."""
    words = source.split()
    found = re.match(r"[\w.-]+/[\w.-]+", words[0])
    return found[0] if found else words[0].rstrip(",")


def _sources(answered: Sequence[Answer]) -> str:
    counts: dict[str, int] = defaultdict(int)
    for one in answered:
        counts[repository(one.fact.source)] += 1
    return ",\n".join(f"{name} ({count})" for name, count in sorted(counts.items(), key=lambda item: -item[1])) + "."


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, or print it; 2 on bad input."""
    parser = argparse.ArgumentParser(prog="validation.public_truth", description=__doc__)
    parser.add_argument("facts", type=Path, metavar="FACTS", help="a CSV file of published figures")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page there (default: print it)")
    parser.add_argument("--grade", default=GRADES, metavar="ABC", help="only figures of these grades")
    args = parser.parse_args(argv)
    try:
        facts = [fact for fact in read_facts(args.facts) if fact.grade in args.grade]
        text = page(*answers(facts))
    except KrakenSimError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.markdown is None:
        print(text, end="")
    else:
        args.markdown.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
