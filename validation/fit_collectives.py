"""Fits how AllGather, ReduceScatter and AllToAll differ from AllReduce, and prints the lines for a profile.

    python -m validation.fit_collectives nccl_other_collectives.csv --system h100_sxm --version 2.29.2 \
        --hardware h100-sxm-x8

The CSV has the columns of ai-dynamo/aiconfigurator's NCCL tables: system, nccl_version, op, num_gpus,
message_bytes, latency_ms.
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import replace
from pathlib import Path

from kraken_sim.calibration.collective_kinds import CollectiveSample, fit_kind
from kraken_sim.costs.collectives.kinds import CollectiveKind, collective_kind
from kraken_sim.profiles.load import load_profile
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.profiles.write import BlockText, block_yaml


def read_samples(path: Path, system: str, version: str) -> list[CollectiveSample]:
    """The rows of one system and NCCL version; lines that start with # are comments."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    return [
        CollectiveSample(
            collective_kind(row["op"]), int(row["message_bytes"]), int(row["num_gpus"]), float(row["latency_ms"]) * 1e-3
        )
        for row in rows
        if row["system"] == system and row["nccl_version"] == version
    ]


def main() -> None:
    """Fit every collective of the table and print errors and profile lines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--system", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--hardware", required=True)
    args = parser.parse_args()
    samples = read_samples(args.table, args.system, args.version)
    profile = load_profile(args.hardware)
    constants = replace(profile.collectives, kind_factors={}, kind_link_correction={})
    profile = replace(profile, collectives=constants)
    for kind in sorted({sample.kind for sample in samples} - {CollectiveKind.ALL_REDUCE}):
        fit = fit_kind([sample for sample in samples if sample.kind is kind], profile)
        profile = replace(profile, collectives=fit.constants)
        sys.stderr.write(
            f"{kind}: mean error {100 * fit.fitted_error:.1f} % on {fit.num_fitted} fitted rows, "
            f"{100 * fit.held_out_error:.1f} % on {fit.num_held_out} held out\n"
        )
    text = block_yaml("collectives", BlockText(profile.collectives, Provenance(ProvenanceKind.FITTED, "a fit")))
    sys.stdout.write(text[text.index("    kind_factors:") :])


if __name__ == "__main__":
    main()
