"""Figures that others published, each with its source: a CSV file, read strictly.

Columns, of which those in brackets may be empty: class, machine, model_or_shape, [batch], [tokens_in],
[tokens_out], tp, dtype, library, value, unit, source, comparability. `machine` is a profile's name, or a machine
file beside the CSV.
`comparability` begins with a grade: A the same thing was measured; B an engine, a clock or a topology that the
simulator does not describe; C another kernel or set-up. What follows the grade and a colon says why.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kraken_sim.costs.collectives.kinds import bus_factor
from kraken_sim.errors import InputError, Problem, closest
from kraken_sim.program.ops import CollectiveKind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

COLUMNS: Final = (
    *("class", "machine", "model_or_shape", "batch", "tokens_in", "tokens_out", "tp", "dtype", "library"),
    *("value", "unit", "source", "comparability"),
)
COLLECTIVES: Final = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast")
PASSES: Final = ("prefill", "decode", "generate", "layer_prefill", "layer_decode")
CLASSES: Final = ("gemm", "attention", *COLLECTIVES, *PASSES)
UNITS: Final[Mapping[str, float]] = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
RATES: Final = ("TFLOPS", "busbw GB/s")
GRADES: Final = "ABC"


@dataclass(frozen=True, slots=True)
class Fact:
    """One published figure: `measured_s` for what `question` (its class), `machine` and the shape say.

    Attributes:
        kind: One of `CLASSES`.
        machine: A profile's name, or the path of a machine file.
        shape: `m=.. n=.. k=..` of a GEMM, `b=.. q=.. kv=.. h=.. hkv=.. d=.. causal=..` of an attention, bytes of a
            collective, a model's name of a pass.
        batch: Sequences of a pass.
        tokens_in: Prompt, or cache before a decode step.
        tokens_out: Tokens that were generated.
        num_devices: GPUs.
        dtype: Type of the elements.
        library: What ran.
        measured_s: The published time, rates turned into times.
        source: Who published it, and where.
        grade: A, B or C.
        reason: Why it is not A, or what to know about it.
    """

    kind: str
    machine: str
    shape: str
    batch: int
    tokens_in: int
    tokens_out: int
    num_devices: int
    dtype: str
    library: str
    measured_s: float
    source: str
    grade: str
    reason: str

    @property
    def fields(self) -> dict[str, int]:
        """The numbers of a shape, by their names."""
        return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", self.shape)}


def read_facts(path: Path) -> list[Fact]:
    """The figures of a file, in its order; lines that begin with # are comments.

    Raises:
        InputError: There is no such file, a column is missing, or a row is wrong: every problem with its line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        raise InputError.single("FACTS", "no file of this name", str(path), "facts.csv") from None
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    header = next(csv.reader([numbered[0][1]])) if numbered else []
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        example = ",".join(COLUMNS)
        raise InputError.single("line 1", f"lacks the columns {', '.join(missing)}", None, example, source=str(path))
    facts, problems = [], list[Problem]()
    for number, line in numbered[1:]:
        row = dict(zip(header, next(csv.reader([line])), strict=False))
        try:
            facts.append(_fact(row, path.parent))
        except InputError as error:
            problems += [Problem(f"line {number}, {p.path}", p.message, p.value, p.example) for p in error.problems]
    if problems:
        raise InputError(problems, source=str(path))
    return facts


def _fact(row: Mapping[str, str], folder: Path) -> Fact:
    kind, grade = row.get("class", ""), row.get("comparability", "")[:1]
    if kind not in CLASSES:
        message = f"must be one of {', '.join(CLASSES)}"
        raise InputError.single("class", message, kind, CLASSES[0], closest(kind, CLASSES))
    if grade not in GRADES or not grade:
        raise InputError.single("comparability", "must begin with A, B or C", row.get("comparability"), "A")
    if not row.get("source"):
        raise InputError.single("source", "must say who published it", None, "owner/repository path")
    machine = row["machine"]
    num_devices = _number(row, "tp", 1)
    return Fact(
        kind=kind,
        machine=str(folder / machine) if "/" in machine else machine,
        shape=row["model_or_shape"],
        batch=_number(row, "batch", 1),
        tokens_in=_number(row, "tokens_in", 0),
        tokens_out=_number(row, "tokens_out", 1),
        num_devices=num_devices,
        dtype=row["dtype"],
        library=row["library"],
        measured_s=_seconds(row, kind, num_devices),
        source=row["source"],
        grade=grade,
        reason=row["comparability"][1:].lstrip(": ").strip(),
    )


def _number(row: Mapping[str, str], name: str, otherwise: int) -> int:
    text = row.get(name, "")
    if text and not text.isdigit():
        raise InputError.single(name, "must be a whole number, or nothing", text, "8")
    return int(text) if text else otherwise


def _seconds(row: Mapping[str, str], kind: str, num_devices: int) -> float:
    try:
        value = float(row["value"])
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise InputError.single("value", "must be a number above 0", row["value"], "12.5")
    unit, fields = row["unit"], {name: int(n) for name, n in re.findall(r"(\w+)=(\d+)", row["model_or_shape"])}
    if unit in UNITS:
        return value * UNITS[unit]
    if unit == "TFLOPS" and kind == "gemm" and fields.keys() >= {"m", "n", "k"}:
        return 2.0 * fields["m"] * fields["n"] * fields["k"] / value / 1e12
    if unit == "TFLOPS" and kind == "attention" and fields.keys() >= {"b", "q", "kv", "h", "d"}:
        flops = 4.0 * fields["b"] * fields["q"] * fields["kv"] * fields["h"] * fields["d"]
        return flops / (2.0 if fields.get("causal") else 1.0) / value / 1e12
    if unit == "busbw GB/s" and kind in COLLECTIVES and row["model_or_shape"].isdigit():
        return int(row["model_or_shape"]) * bus_factor(CollectiveKind(kind), num_devices) / value / 1e9
    message = f"must be one of {', '.join((*UNITS, *RATES))}, with a shape that gives its time"
    raise InputError.single("unit", message, unit, "us")
