"""Published tables: found by option, by environment or beside the checkout, and named where they lack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kraken_sim.errors import InputError
from validation import collective_accuracy, refit
from validation.public_data import BESIDE_CHECKOUT, VARIABLE, folder_of_option, public_data_folder, rows_of

if TYPE_CHECKING:
    from pathlib import Path


def test_an_option_goes_before_the_environment_and_that_before_the_folder_beside_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, other = tmp_path / "named", tmp_path / "other"
    named.mkdir()
    other.mkdir()
    monkeypatch.setenv(VARIABLE, str(other))
    assert folder_of_option(named) == named
    assert folder_of_option(None) == other
    monkeypatch.delenv(VARIABLE)
    assert public_data_folder().parts[-len(BESIDE_CHECKOUT.parts) :] == BESIDE_CHECKOUT.parts


def test_a_named_folder_that_does_not_exist_is_an_error_and_not_a_silent_skip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="--public-data"):
        folder_of_option(tmp_path / "nowhere")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=VARIABLE):
        public_data_folder()


def test_comments_are_no_rows_and_a_table_that_is_not_there_has_none(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("# from somewhere\nm,latency_ms\n# half\n1,0.5\n", encoding="utf-8")
    assert rows_of(path) == [{"m": "1", "latency_ms": "0.5"}]
    assert rows_of(tmp_path / "nowhere.csv") == []


def test_commands_that_cannot_do_without_tables_say_which_they_lack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collective_accuracy.main(["--public-data", str(tmp_path)]) == 2
    assert "lacks nccl_all_reduce.csv" in capsys.readouterr().err
    assert refit.main(["--public-data", str(tmp_path), "--dry-run"]) == 2
    assert "gemm_bf16_l40s_pcie_trtllm.csv" in capsys.readouterr().err


def test_collectives_are_compared_with_their_own_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = "system,nccl_version,op,num_gpus,message_bytes,latency_ms\n"
    rows = {
        "nccl_all_reduce.csv": "h100_sxm,2.29.2,all_reduce,2,1048576,0.02\n",
        "nccl_other_collectives.csv": "h100_sxm,2.29.2,all_gather,4,1048576,0.03\n",
        "nccl_b200.csv": "",
    }
    for name, text in rows.items():
        (tmp_path / name).write_text(head + text, encoding="utf-8")
    custom = "system,framework_version,kernel_source,num_gpus,message_bytes,latency_ms\n"
    kernels = ("h100_sxm,0.14,vLLM_custom_graph,2,4096,0.005", "h100_sxm,0.14,another,2,4096,0.005")
    (tmp_path / "custom_all_reduce.csv").write_text(custom + "\n".join(kernels), encoding="utf-8")
    assert collective_accuracy.main(["--public-data", str(tmp_path)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "h100_sxm" in line]
    assert [line.split(" | ")[0] for line in lines] == ["| all_reduce", "| all_gather", "| all_reduce"]
    cells = [line.split(" | ")[2:] for line in lines]
    assert [[cell != "-" for cell in row[:3]] for row in cells] == [
        [True, False, False],
        [False, True, False],
        [True, False, False],
    ]
