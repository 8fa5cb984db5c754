from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from kraken_sim.errors import InputError, KrakenSimError
from kraken_sim.files.shipped import data_dir
from kraken_sim.files.strict_yaml import YamlDocument, read_yaml
from kraken_sim.hardware.topology.graph import LinkKind
from kraken_sim.profiles.load import check_profile, list_profiles, load_profile
from kraken_sim.profiles.profile import HardwareProfile
from kraken_sim.profiles.schema import BLOCKS, OPTIONAL_BLOCKS, parse_profile, profile_json_schema
from kraken_sim.program.ops import DType
from kraken_sim.report.profiles import profile_numbers, profile_text, profiles_table
from kraken_sim.units import Dimension

if TYPE_CHECKING:
    from pathlib import Path

SHIPPED = [
    "a100-sxm4-40gb-x8",
    "a100-sxm4-80gb-x8",
    "h100-sxm-x8",
    "h200-sxm-x2",
    "h200-sxm-x8",
    "l40s-x8",
]


def document_of(name: str) -> dict[str, Any]:
    data = read_yaml(data_dir("hardware_profiles") / f"{name}.yaml").data
    assert isinstance(data, dict)
    return data


def problems_in(data: object) -> list[str]:
    with pytest.raises(InputError) as caught:
        parse_profile(YamlDocument(data, {}, "profile.yaml"))
    return [str(problem) for problem in caught.value.problems]


# Shipped profiles -----------------------------------------------------------------------------------------


def test_the_documented_profiles_ship() -> None:
    assert set(SHIPPED) <= set(list_profiles())


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_profile_has_no_problems(name: str) -> None:
    assert check_profile(name) == []


@pytest.mark.parametrize("name", SHIPPED)
def test_every_number_of_a_shipped_profile_says_where_it_is_from(name: str) -> None:
    profile = load_profile(name)
    numbers = [path for path, _ in profile_numbers(profile)]
    assert len(numbers) > 40
    assert set(numbers) <= set(profile.provenance)
    links = [path for path in profile.provenance if path.startswith("topology.")]
    assert len(links) >= 4
    assert all(len(provenance.source) > 5 for provenance in profile.provenance.values())


@pytest.mark.parametrize(
    ("name", "sms", "tflops", "terabytes_per_s", "gigabytes"),
    [
        ("h200-sxm-x8", 132, 1070.5, 4.8, 141),
        ("h100-sxm-x8", 132, 1070.5, 3.35, 80),
        ("a100-sxm4-80gb-x8", 108, 312, 2.039, 80),
        ("a100-sxm4-40gb-x8", 108, 312, 1.555, 40),
        ("l40s-x8", 142, 362.05, 0.864, 48),
    ],
)
def test_device_is_its_datasheet(name: str, sms: int, tflops: float, terabytes_per_s: float, gigabytes: float) -> None:
    device = load_profile(name).device
    assert device.num_sms == sms
    assert device.peak_flops[DType.FLOAT16] == pytest.approx(tflops * 1e12)
    assert device.hbm_bandwidth_bytes_per_s == pytest.approx(terabytes_per_s * 1e12)
    assert device.hbm_capacity_bytes == pytest.approx(gigabytes * 1e9)


@pytest.mark.parametrize("name", SHIPPED)
def test_peak_rate_is_a_whole_number_of_operations_per_sm_and_clock(name: str) -> None:
    """Tensor cores do 1024 (Ada), 2048 (Ampere), 4096 (Hopper) FLOP per SM and clock, at a clock below the maximum."""
    device = load_profile(name).device
    per_clock = {"ada": 1024, "ampere": 2048, "hopper": 4096}[device.generation]
    clock_hz = device.peak_flops[DType.FLOAT16] / (device.num_sms * per_clock)
    assert 0.9 * device.boost_clock_hz <= clock_hz <= 1.001 * device.boost_clock_hz


@pytest.mark.parametrize(
    ("name", "size", "kind", "gigabytes_per_s", "num_links"),
    [
        ("h200-sxm-x2", 2, "nvswitch", 450, 18),
        ("h200-sxm-x8", 8, "nvswitch", 450, 18),
        ("h100-sxm-x8", 4, "nvswitch", 450, 18),
        ("a100-sxm4-40gb-x8", 8, "nvswitch", 300, 12),
        ("a100-sxm4-80gb-x8", 4, "nvswitch", 300, 12),
        ("l40s-x8", 4, "pcie", 31.5, 1),
        ("l40s-x8", 8, "pcie", 31.5, 1),
    ],
)
def test_interconnect_is_the_datasheets_line_rate_one_way(
    name: str, size: int, kind: str, gigabytes_per_s: float, num_links: int
) -> None:
    interconnect = load_profile(name).topology.interconnect(size)
    assert interconnect.kind == kind
    assert interconnect.bandwidth_bytes_per_s == pytest.approx(gigabytes_per_s * 1e9)
    assert interconnect.num_links == num_links


def test_l40s_ring_crosses_sockets_only_with_more_than_four_gpus() -> None:
    topology = load_profile("l40s-x8").topology
    assert not topology.interconnect(4).crosses_sockets
    ring = topology.best_ring(8)
    assert sum(link.kind is LinkKind.SOCKET for hop in ring.hops for link in hop.links) == 2


@pytest.mark.parametrize("name", SHIPPED)
def test_text_of_a_profile_shows_every_number(name: str) -> None:
    console = Console(width=250, record=True, file=io.StringIO())
    profile = load_profile(name)
    console.print(profile_text(profile))
    text = console.export_text()
    assert all(path in text for path, _ in profile_numbers(profile))
    assert "gpu0" in text


def test_table_lists_every_profile() -> None:
    assert len(profiles_table().rows) == len(list_profiles())


# Loading --------------------------------------------------------------------------------------------------


def test_profile_is_found_from_any_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_profile("h200-sxm-x2").name == "h200-sxm-x2"


def test_profile_is_read_once_until_its_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    shutil.copy(data_dir("hardware_profiles") / "l40s-x8.yaml", path)
    first = load_profile(path)
    assert load_profile(str(path)) is first
    path.write_text(path.read_text() + "\n# changed\n")
    assert load_profile(path) is not first


def test_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'h200-sxm-x2'"):
        load_profile("h200-sxm2")
    with pytest.raises(InputError, match="no such profile file"):
        load_profile("./h200-sxm-x2.yaml")


def test_broken_profile_reports_all_problems_with_lines(tmp_path: Path) -> None:
    text = (data_dir("hardware_profiles") / "h100-sxm-x8.yaml").read_text()
    text = text.replace("num_sms: {value: 132", "num_sms: {value: 132.5").replace("kind: socket", "kind: sockt")
    text = text.replace("eager_kernel_s: ", "eager_kernl_s: ").replace("value: 3.35 TB/s", "value: 3.35 TB")
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_profile(path)
    report = str(caught.value)
    assert "device.num_sms: line" in report
    assert "launch.values.eager_kernl_s: line" in report
    assert "did you mean 'eager_kernel_s'" in report
    assert "launch.values.eager_kernel_s: line" in report
    assert "TB is a unit of amount of data, but this is a bandwidth" in report
    assert "did you mean 'socket'" in report
    assert check_profile(path) == list(caught.value.problems)


def test_name_that_is_not_the_files_is_doubtful(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    shutil.copy(data_dir("hardware_profiles") / "l40s-x8.yaml", path)
    assert [problem.path for problem in check_profile(path)] == ["name"]


# Strictness -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", ["device", "topology", *(name for name in BLOCKS if name not in OPTIONAL_BLOCKS)])
def test_missing_block_is_named(block: str) -> None:
    data = document_of("h200-sxm-x2")
    del data[block]
    assert any(problem.startswith(f"{block}: is required") for problem in problems_in(data))


def test_unknown_block_gets_a_suggestion() -> None:
    data = document_of("h200-sxm-x2") | {"gemms": {}}
    assert any("gemms" in problem and "did you mean 'gemm'" in problem for problem in problems_in(data))


def test_bare_number_of_a_device_must_say_where_it_is_from() -> None:
    data = document_of("h200-sxm-x2")
    data["device"] = data["device"] | {"num_sms": 132}
    assert any("device.num_sms: every value says where it is from" in p for p in problems_in(data))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"kind": "guessed"}, "gemm.kind"),
        ({"source": ""}, "gemm.source"),
        ({"residual": -0.1}, "gemm.residual"),
        ({"values": []}, "gemm.values"),
        ({"sauce": "x"}, "did you mean 'source'"),
    ],
)
def test_block_must_say_where_it_is_from(change: dict[str, Any], expected: str) -> None:
    data = document_of("h200-sxm-x2")
    data["gemm"] = data["gemm"] | change
    assert any(expected in problem for problem in problems_in(data))


@pytest.mark.parametrize("data", [None, [], "text", 3, {}])
def test_file_that_is_no_profile_is_bad_input(data: object) -> None:
    assert problems_in(data)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_damage_is_accepted_or_reported_but_never_crashes(data: st.DataObject) -> None:
    document: Any = document_of("l40s-x8")
    place = document
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else list(range(len(place)))))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            place[key] = data.draw(PLAIN)
            break
        place = inner
    with contextlib.suppress(KrakenSimError):
        assert isinstance(parse_profile(YamlDocument(document, {}, "damaged.yaml")), HardwareProfile)


# JSON schema ----------------------------------------------------------------------------------------------


def test_json_schema_knows_every_field_of_every_block() -> None:
    schema = json.loads(json.dumps(profile_json_schema()))
    for name, cls in BLOCKS.items():
        values = schema["properties"][name]["properties"]["values"]
        assert set(values["properties"]) == {field.name for field in dataclasses.fields(cls)}
    sourced, named = schema["properties"]["device"]["anyOf"]
    assert sourced["properties"]["num_sms"]["required"] == ["value", "kind", "source"]
    assert named["required"][:2] == ["kind", "source"]
    assert schema["additionalProperties"] is False


def test_json_schema_patterns_accept_the_shipped_values() -> None:
    schema = profile_json_schema()
    pattern = schema["properties"]["launch"]["properties"]["values"]["properties"]["eager_kernel_s"]["anyOf"][0]
    assert re.search(pattern["pattern"], "5.6 us")
    assert not re.search(pattern["pattern"], "5.6 GB")


def test_times_in_the_json_schema_carry_units() -> None:
    values = profile_json_schema()["properties"]["launch"]["properties"]["values"]["properties"]
    assert all(str(Dimension.TIME) in json.dumps(schema) for schema in values.values())
