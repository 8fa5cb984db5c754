"""Fits every block of the shipped profiles anew, from the committed measurements and from published tables.

    python -m validation.refit --public-data DIR [--only PROFILE] [--dry-run]

What was never fitted stays as it stands in the files: datasheets, topologies, comments, measured and assumed values.
The tables are described in `validation.public_tables`. A refit depends on nothing that was fitted before, so running
it twice changes nothing the second time. It prints, block by block, the error on held-out shapes before and after.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kraken_sim.errors import InputError, KrakenSimError, closest
from kraken_sim.files.whole import write_whole
from kraken_sim.profiles.load import profile_path
from validation.public_data import add_public_data_option, folder_of_option
from validation.public_tables import CARDS, OVER_A_BASE
from validation.refit_attention import bare_attention, published_attention, published_float8_cache
from validation.refit_carried import (
    OTHER_CARD,
    carried,
    contention_of_another_card,
    float16_of_same_chip,
    kernels_of_another_card,
    launch_of_published,
    of_same_chip,
)
from validation.refit_collectives import published_collectives
from validation.refit_measured import (
    measured,
    measured_composed,
    measured_quantised,
    measured_quantising,
    nodes_of_measured,
)
from validation.refit_published import published_gemm, published_quantised_gemms
from validation.refit_shipped import Shipped, said
from validation.refit_wires import host_links, unmeasured_wires, wires_of_box

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kraken_sim.profiles.profile import HardwareProfile

MEASUREMENTS: Final = Path(__file__).resolve().parent / "measurements"
L40S, BOX, A100, A100_40, H200, H100, PAIR = (
    "l40s-x8", "l40s-x8-slow-host", "a100-sxm4-80gb-x8", "a100-sxm4-40gb-x8", "h200-sxm-x8", "h100-sxm-x8",
    "h200-sxm-x2",
)  # fmt: skip
SAME_CHIP: Final = "H200, the same chip with other memory"
OTHERS: Final = tuple(card.profile for card in OVER_A_BASE)
WITH_NVLINK: Final = (A100, A100_40, PAIR, H200, H100)
PUBLISHED: Final = (H200, H100, A100, A100_40, L40S)
FP8_ROWS: Final = "gemm_fp8_rows"
"""Torch's products with a scale a row, which no published table has."""
FROM_PAIR: Final = ("attention", "memory_bound", "contention")


def steps(tables: Path) -> list[tuple[str, Callable[[Shipped], None]]]:
    """What makes each profile's blocks, in an order in which each finds what it starts from."""
    fits = (published_gemm, published_quantised_gemms, published_attention, published_float8_cache)
    blocks = ("gemm", "attention", "serving_attention", "collectives")
    flash = {card.profile: card for card in CARDS if card.flash}
    return [
        *((name, partial(nodes_of_measured, name=name, source=PAIR, folder=MEASUREMENTS)) for name in PUBLISHED),
        *((card.profile, partial(fit, card=card, folder=tables)) for card in CARDS for fit in fits),
        *((card.machine, partial(published_collectives, card=card, folder=tables)) for card in CARDS),
        *(
            (card.profile, partial(fit, card=card, folder=tables))
            for card in OVER_A_BASE
            for fit in (*fits, published_collectives)
        ),
        *((name, partial(bare_attention, name=name, flash=flash[A100], folder=tables)) for name in (A100, L40S)),
        (A100_40, partial(carried, name=A100_40, source=A100, blocks=blocks, how="the 80 GB card")),
        (PAIR, partial(measured, name=PAIR, public=H200, folder=MEASUREMENTS)),
        (PAIR, partial(of_same_chip, name=PAIR, source=H200, block="attention_float8", how=H200)),
        (PAIR, partial(measured_quantised, name=PAIR, folder=MEASUREMENTS)),
        (PAIR, partial(measured_quantising, name=PAIR, folder=MEASUREMENTS)),
        (PAIR, partial(measured_composed, name=PAIR, folder=MEASUREMENTS)),
        *((name, partial(float16_of_same_chip, name=name, source=PAIR)) for name in (H200, H100)),
        (H200, partial(of_same_chip, name=H200, source=PAIR, block=FP8_ROWS, how="one H200")),
        (
            H100,
            partial(of_same_chip, name=H100, source=PAIR, block=FP8_ROWS, how=f"one {SAME_CHIP}", factor=OTHER_CARD),
        ),
        (H200, partial(launch_of_published, name=H200, source=PAIR, how="two H200")),
        (H100, partial(launch_of_published, name=H100, source=PAIR, how=f"two {SAME_CHIP}")),
        (H200, partial(carried, name=H200, source=PAIR, blocks=FROM_PAIR, how="two H200")),
        (H200, partial(carried, name=H200, source=PAIR, blocks=("power",), how="one H200")),
        (H100, partial(carried, name=H100, source=PAIR, blocks=FROM_PAIR, how=f"two {SAME_CHIP}", factor=OTHER_CARD)),
        (H100, partial(carried, name=H100, source=PAIR, blocks=("power",), how=f"one {SAME_CHIP}", factor=OTHER_CARD)),
        *((name, partial(bare_attention, name=name, flash=flash[H100], folder=tables, decode=H200)) for name in OTHERS),
        *((name, partial(contention_of_another_card, name=name, source=PAIR)) for name in (A100, A100_40, L40S)),
        *((name, partial(kernels_of_another_card, name=name, chip=PAIR)) for name in (A100, A100_40, L40S)),
        (BOX, partial(wires_of_box, name=BOX)),
        (L40S, partial(host_links, name=L40S, box=BOX, host=PAIR)),
        *((name, partial(unmeasured_wires, name=name, pcie=L40S, host=PAIR)) for name in (*WITH_NVLINK, *OTHERS)),
    ]


def refit(tables: Path, only: str | None = None) -> dict[str, str]:
    """The new text of each profile's file, by its name.

    Raises:
        InputError: `only` is no profile that is fitted, or a table is missing.
    """
    recipe = steps(tables)
    names = list(dict.fromkeys(name for name, _ in recipe))
    if only is not None and only not in names:
        message = f"no profile that is fitted; these are {', '.join(names)}"
        raise InputError.single("--only", message, only, suggestion=closest(only, names))
    wanted = [card for card in CARDS if only in (None, card.profile, card.machine)]
    if missing := [card for card in wanted if not (tables / f"gemm_bf16_{card.tables}.csv").exists()]:
        message = "holds no published tables of this card"
        raise InputError.single("--public-data", message, f"{tables}: gemm_bf16_{missing[0].tables}.csv")
    shipped = Shipped({name: profile_path(name).read_text(encoding="utf-8") for name in names})
    before = dict(shipped.profiles)
    for name, step in recipe:
        if only in (None, name):
            step(shipped)
    report(before, shipped)
    return {name: shipped.texts[name] for name in shipped.refitted}


def report(before: Mapping[str, HardwareProfile], shipped: Shipped) -> None:
    """Errors on held-out shapes, as the files say and as they will."""
    for name, blocks in shipped.refitted.items():
        for block in blocks:
            old, new = (said(profiles[name], block).residual for profiles in (before, shipped.profiles))
            if new is not None:
                sys.stdout.write(f"{name:20} {block:18} {_percent(old):>8} -> {_percent(new):>8}\n")


def _percent(error: float | None) -> str:
    return "none" if error is None else f"{100 * error:.2f} %"


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the profiles; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m validation.refit", description="Fit all shipped profiles anew.")
    add_public_data_option(parser)
    parser.add_argument("--only", metavar="PROFILE", help="this profile, with the others as they stand")
    parser.add_argument("--dry-run", action="store_true", help="print the errors, write nothing")
    options = parser.parse_args(arguments)
    try:
        texts = refit(folder_of_option(options.public_data), options.only)
        for name, text in texts.items():
            if not options.dry_run:
                write_whole(profile_path(name), text.encode())
    except KrakenSimError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
