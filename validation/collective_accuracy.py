"""Predicted against published collectives, as the tables of docs/collectives.md.

    python -m validation.collective_accuracy [--public-data DIR]

DIR holds nccl_all_reduce.csv, nccl_other_collectives.csv and custom_all_reduce.csv in the columns of
ai-dynamo/aiconfigurator's tables.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kraken_sim import predict_op
from kraken_sim.costs.collectives.kinds import collective_kind
from kraken_sim.errors import InputError
from kraken_sim.profiles.load import load_profile
from kraken_sim.program.ops import CollectiveKind
from validation.public_data import Row, add_public_data_option, folder_of_option, rows_of
from validation.public_tables import CARDS, NCCL_TABLES, OVER_A_BASE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from kraken_sim.profiles.profile import HardwareProfile

NCCL_FILES: Final = NCCL_TABLES
CUSTOM_FILE: Final = "custom_all_reduce.csv"
CUSTOM_LIMITS: Final = {2: 64 << 20, 4: 32 << 20, 8: 64 << 20}
"""Largest messages of the custom tables that custom kernels run; beyond them engines hand over to NCCL."""
NUM_DEVICES: Final = (2, 4, 8)
OUT_OF_LINE: Final = 1.25
"""A row is out of line when its rate lies above that of a larger message by more than this factor."""

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Errors:
    """Predicted / measured - 1 of some rows, each with its size, and how many are out of line."""

    rows: tuple[tuple[int, float], ...]
    num_out_of_line: int

    def cell(self) -> str:
        """Mean and worst, as a table shows them."""
        if not self.rows:
            return "-"
        mean = sum(abs(error) for _, error in self.rows) / len(self.rows)
        size, worst = max(self.rows, key=lambda row: abs(row[1]))
        return f"{100 * mean:.1f} ({100 * worst:+.0f} at {_size(size)})"


def _size(num_bytes: int) -> str:
    power = min(2, (num_bytes.bit_length() - 1) // 10)
    return f"{num_bytes // 1024**power} {('B', 'KiB', 'MiB')[power]}"


def nccl_errors(folder: Path, profiles: Mapping[str, HardwareProfile]) -> dict[Key, dict[int, Errors]]:
    """By collective, system and NCCL version, then by number of GPUs."""
    groups: dict[Key, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for name in NCCL_FILES:
        for row in rows_of(folder / name):
            kind = collective_kind(row.get("op", "all_reduce"))
            groups[kind.value, row["system"], row["nccl_version"]][int(row["num_gpus"])].append(row)
    return {
        key: {n: _errors(rows, profiles[key[1]], {"op": key[0]}) for n, rows in by_n.items()}
        for key, by_n in groups.items()
    }


def custom_errors(folder: Path, profiles: Mapping[str, HardwareProfile]) -> dict[Key, dict[int, Errors]]:
    """AllReduce kernels of vLLM, by system and version, as vLLM's own rule picks them."""
    groups: dict[Key, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows_of(folder / CUSTOM_FILE):
        n = int(row["num_gpus"])
        if row["kernel_source"] == "vLLM_custom_graph" and int(row["message_bytes"]) <= CUSTOM_LIMITS[n]:
            groups["all_reduce", row["system"], row["framework_version"]][n].append(row)
    policy = {"op": "all_reduce", "library": "custom", "selection": "vllm"}
    return {
        key: {n: _errors(rows, profiles[key[1]], policy) for n, rows in by_n.items()} for key, by_n in groups.items()
    }


def _errors(rows: Iterable[Row], profile: HardwareProfile, spec: Mapping[str, str]) -> Errors:
    measured = sorted(
        (int(row["message_bytes"]), float(row["latency_ms"]) * 1e-3, int(row["num_gpus"])) for row in rows
    )
    found = [
        (size, predict_op(profile, {**spec, "bytes": size, "num_devices": n}) / time_s - 1.0)
        for size, time_s, n in measured
    ]
    rates = [size / time_s for size, time_s, _ in measured]
    odd = sum(rate > OUT_OF_LINE * min(rates[index:]) for index, rate in enumerate(rates))
    return Errors(tuple(found), odd)


def markdown(table: Mapping[Key, Mapping[int, Errors]]) -> str:
    """A table of Markdown: mean and worst error in percent for each number of GPUs."""
    head = "".join(f" {n} GPUs |" for n in NUM_DEVICES)
    lines = [f"| collective | measured on |{head} rows out of line |", "| --- | --- | --- | --- | --- | --- |"]
    order = [kind.value for kind in CollectiveKind]
    for key in sorted(table, key=lambda key: (order.index(key[0]), key[1:])):
        cells = "".join(f" {table[key][n].cell() if n in table[key] else '-'} |" for n in NUM_DEVICES)
        odd = sum(errors.num_out_of_line for errors in table[key].values())
        lines.append(f"| {key[0]} | {key[1]}, {key[2]} |{cells} {odd} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints both tables; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add_public_data_option(parser)
    try:
        folder = folder_of_option(parser.parse_args(arguments).public_data)
        paths = [folder / name for name in (*NCCL_FILES, CUSTOM_FILE)]
        if missing := [path.name for path in paths if not path.is_file()]:
            raise InputError.single("--public-data", f"lacks {', '.join(missing)}", str(folder), "/data/public_tables")
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    profiles = {card.system: load_profile(card.machine) for card in (*CARDS, *OVER_A_BASE)}
    sys.stdout.write("NCCL\n\n" + markdown(nccl_errors(folder, profiles)) + "\n\n")
    sys.stdout.write("vLLM's choice of custom kernels\n\n" + markdown(custom_errors(folder, profiles)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
