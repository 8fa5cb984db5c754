"""Numbers that nobody measured say so, and a prediction is no surer for it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kraken_sim import simulate
from kraken_sim.files.strict_yaml import parse_yaml
from kraken_sim.predict.uncertainty import UNKNOWN_RESIDUAL, block_residuals
from kraken_sim.profiles.calibrated import calibrated_profiles
from kraken_sim.profiles.carried_errors import MEASURED_ERRORS
from kraken_sim.profiles.from_datasheet import complete_text
from kraken_sim.profiles.load import list_profiles, load_profile
from kraken_sim.profiles.profile import Provenance, ProvenanceKind
from kraken_sim.profiles.schema import parse_profile
from kraken_sim.profiles.write import BlockText, block_yaml, numbers_of, with_sections

if TYPE_CHECKING:
    from pathlib import Path

GUESSES = ("taken as", "taken alike", "assum", "as on ", "usual value", "judgement", "placeholder", "starting value")
FITTED = Provenance(ProvenanceKind.FITTED, "a fit", 0.05)
ASSUMED = Provenance(ProvenanceKind.ASSUMED, "as on another card")


@pytest.mark.parametrize("name", list_profiles())
def test_what_was_taken_from_elsewhere_or_guessed_says_that_it_is_assumed(name: str) -> None:
    for path, where in load_profile(name).provenance.items():
        guessed = any(guess in where.source for guess in GUESSES)
        assert where.kind is ProvenanceKind.ASSUMED or not guessed, f"{path}: {where.kind}: {where.source}"


def test_an_assumed_number_has_no_say_beside_a_fit_of_its_block_wherever_it_stands() -> None:
    fit = {"gemm.launch_s": FITTED, "gemm.tile_s": replace(FITTED, residual=0.03)}
    for numbers in ({"gemm.k_fill": ASSUMED, **fit}, {**fit, "gemm.k_fill": ASSUMED}):
        assert block_residuals(numbers) == {"gemm": 0.05}


def test_a_block_of_assumptions_alone_is_as_uncertain_as_it_says_or_as_one_that_says_nothing() -> None:
    assert block_residuals({"gemm.k_fill": ASSUMED}) == {"gemm": UNKNOWN_RESIDUAL}
    assert block_residuals({"gemm.k_fill": replace(ASSUMED, residual=0.4)}) == {"gemm": 0.4}


@pytest.mark.parametrize("name", calibrated_profiles())
def test_calling_a_fitted_number_assumed_does_not_narrow_the_interval(name: str) -> None:
    question = {"hardware": name, "model": {"preset": "1.3B"}, "num_devices": 2, "context_length": 128}
    prediction = simulate({**question, "dtype": "float16"})
    called = {
        path: replace(where, kind=ProvenanceKind.ASSUMED) if where.kind is ProvenanceKind.FITTED else where
        for path, where in prediction.provenance.items()
    }
    assert prediction.interval_with(block_residuals(called)) == prediction.interval


def test_what_is_carried_over_to_another_card_is_fitted_only_where_its_error_was_measured() -> None:
    profile, base = load_profile("h20-sxm-x8"), load_profile("h100-sxm-x8")
    for path, where in profile.provenance.items():
        block = path.split(".")[0]
        if block in ("device", "topology"):
            continue
        known = base.provenance.get(path)  # what a file leaves out is as the code says
        measured = block in MEASURED_ERRORS and (known is None or known.kind is not ProvenanceKind.ASSUMED)
        assert where.kind is (ProvenanceKind.FITTED if measured else ProvenanceKind.ASSUMED), path


def test_a_network_that_nobody_measured_is_assumed_and_as_uncertain_as_before() -> None:
    provenance = load_profile("h100-sxm-2x8").provenance
    assert provenance["collectives.base_s.network.ll"].kind is ProvenanceKind.ASSUMED
    assert provenance["collectives.base_s.nvlink.ll"].kind is ProvenanceKind.FITTED
    assert block_residuals(provenance)["collectives"] == 0.5


def test_parts_of_a_mapping_keep_their_own_source_when_a_profile_is_written() -> None:
    profile = load_profile("h100-sxm-x8")
    rows = {"base_s.network": ASSUMED, "step_s.network.ll": ASSUMED, "nvls_enabled": ASSUMED, "kind_factors": ASSUMED}
    written = block_yaml("collectives", BlockText(profile.collectives, FITTED, rows))
    text = with_sections(complete_text("h100-sxm-x8"), {"collectives": written})
    read = parse_profile(parse_yaml(text))
    for path, value in numbers_of(profile.collectives):
        assert dict(numbers_of(read.collectives))[path] == pytest.approx(value, rel=1e-3)
        assumed = any(f"{path}.".startswith(f"{row}.") for row in rows)
        assert read.provenance[f"collectives.{path}"] == (ASSUMED if assumed else FITTED), path


def test_a_mapping_that_says_where_it_is_from_is_checked_as_a_number_is(tmp_path: Path) -> None:
    text = complete_text("h100-sxm-x8").replace('kind: assumed, source: "not in the data of the fit"', "kind: assumd")
    path = tmp_path / "h100-sxm-x8.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(Exception, match=r"misaligned_efficiency\.kind: .*did you mean 'assumed'"):
        load_profile(path)
