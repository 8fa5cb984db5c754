"""Fits how AllGather, ReduceScatter and AllToAll differ from AllReduce, and prints the lines for a profile.

    python -m validation.fit_collectives --system h100_sxm --version 2.29.2 --hardware h100-sxm-x8 [--public-data DIR]

The table is DIR/nccl_other_collectives.csv; it has the columns of ai-dynamo/aiconfigurator's NCCL tables: system,
nccl_version, op, num_gpus, message_bytes, latency_ms.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from kraken_sim.calibration.collective_kinds import CollectiveSample, fit_kind
from kraken_sim.calibration.fit_profile import held_out_text
from kraken_sim.costs.collectives.kinds import collective_kind
from kraken_sim.errors import InputError
from kraken_sim.profiles.load import load_profile
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.profiles.write import BlockText, block_yaml
from kraken_sim.program.ops import CollectiveKind
from validation.public_data import add_public_data_option, folder_of_option, rows_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TABLE: Final = "nccl_other_collectives.csv"


def read_samples(path: Path, system: str, version: str) -> list[CollectiveSample]:
    """The rows of one system and NCCL version; lines that start with # are comments."""
    return [
        CollectiveSample(
            collective_kind(row["op"]), int(row["message_bytes"]), int(row["num_gpus"]), float(row["latency_ms"]) * 1e-3
        )
        for row in rows_of(path)
        if row["system"] == system and row["nccl_version"] == version
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Fits every collective of the table and prints errors and profile lines; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--system", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--hardware", required=True)
    add_public_data_option(parser)
    args = parser.parse_args(arguments)
    try:
        samples = read_samples(folder_of_option(args.public_data) / TABLE, args.system, args.version)
        if not samples:
            problem = f"{TABLE} has no rows of {args.system} with NCCL {args.version}"
            raise InputError.single("--public-data", problem, args.public_data, "/data/public_tables")
        profile = load_profile(args.hardware)
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    constants = replace(profile.collectives, kind_factors={}, kind_link_correction={})
    profile = replace(profile, collectives=constants)
    for kind in sorted({sample.kind for sample in samples} - {CollectiveKind.ALL_REDUCE}):
        fit = fit_kind([sample for sample in samples if sample.kind is kind], profile)
        profile = replace(profile, collectives=fit.constants)
        sys.stderr.write(f"{kind}: {len(fit.fitted)} rows fitted{held_out_text(fit)}\n")
    text = block_yaml("collectives", BlockText(profile.collectives, Provenance(ProvenanceKind.FITTED, "a fit")))
    sys.stdout.write(text[text.index("    kind_factors:") :])
    return 0


if __name__ == "__main__":
    sys.exit(main())
