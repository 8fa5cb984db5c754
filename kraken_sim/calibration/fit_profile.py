"""A measured machine's profile: every cost model fitted to its microbenchmarks, with the error on held-out ones.

The records of whole passes are what predictions are checked against, so nothing here reads them: each fit takes
the samples of one type of record.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kraken_sim.calibration.fit_blocks import BLOCK_FITS
from kraken_sim.calibration.progress import Calibration, machine_text
from kraken_sim.calibration.result import CalibrationResult, sources_of
from kraken_sim.calibration.samples import too_many_to_fit
from kraken_sim.errors import InputError
from kraken_sim.measurements.machine import machine_warnings
from kraken_sim.measurements.rehearsal import as_on_device, is_rehearsal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kraken_sim.measurements.schema import MeasurementFile
    from kraken_sim.profiles.profile import HardwareProfile


def calibrate(
    measurements: MeasurementFile,
    base: HardwareProfile,
    name: str | None = None,
    *,
    always: bool = False,
    kernels_from: Sequence[MeasurementFile] = (),
) -> CalibrationResult:
    """Fits what a file's microbenchmarks tell; the rest stays as in `base`.

    A refit whose error on held-out shapes is larger than the base's on the same shapes is not taken.

    Args:
        measurements: a file of `validation.measure`; whole passes in it are not read.
        base: the profile of the same kind of device: datasheet, topology, and where fits start.
        name: the new profile's name; default: the base's.
        always: take refits even so, where the base is only where they start.
        kernels_from: files of one such card, whose single kernels and chains are fitted in place of this file's.

    Raises:
        InputError: the file is another machine's, or holds nothing to fit.
    """
    warnings = machine_warnings(measurements, base, rehearse=True) + too_many_to_fit(measurements)
    dry_run, measurements = is_rehearsal(measurements), as_on_device(measurements)
    named = replace(base, name=name or base.name)
    work = Calibration(measurements, base, machine_text(measurements), named, always, tuple(kernels_from))
    for fit in BLOCK_FITS:
        fit(work)
    if not work.blocks and not work.judged:
        message = "holds no microbenchmarks, so there is nothing to fit; measure them with --suite full"
        raise InputError.single("", message, source=measurements.source)
    result = CalibrationResult(
        source=measurements.source,
        base=base,
        profile=work.profile,
        blocks=work.blocks,
        kept=work.kept,
        judged=work.judged,
        records=work.records,
        classes=work.classes,
        warnings=tuple(warnings),
        dry_run=dry_run,
    )
    return replace(result, profile=replace(work.profile, provenance=sources_of(result)))
