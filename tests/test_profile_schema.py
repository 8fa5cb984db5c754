"""What a profile's schema says of every constant, and what happens to a profile whose constants are wrong."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from functools import cache, lru_cache, partial
from itertools import product, takewhile
from math import inf, isfinite
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

from kraken_sim import predict_op
from kraken_sim.errors import InputError
from kraken_sim.files.meaning import SI_UNITS, Meaning, Said, Table, Words, meanings_of
from kraken_sim.files.strict_yaml import YamlDocument, read_yaml
from kraken_sim.hardware.device import Device
from kraken_sim.hardware.topology.graph import Link
from kraken_sim.predict.pipeline import Predictor
from kraken_sim.profiles.blocks import Reading, field_types, read_fields
from kraken_sim.profiles.calibrated import calibrated_profiles, list_profiles, profile_path
from kraken_sim.profiles.datasheet import datasheet_json_schema, is_datasheet
from kraken_sim.profiles.from_datasheet import profile_from_datasheet, profile_of
from kraken_sim.profiles.load import load_profile
from kraken_sim.profiles.profile import HardwareProfile, Provenance, ProvenanceKind
from kraken_sim.profiles.schema import BLOCKS, OPTIONAL_BLOCKS, parse_profile, profile_json_schema
from kraken_sim.profiles.write import numbers_of
from kraken_sim.scenario.spec import Scenario
from kraken_sim.units import Dimension, dimension_of_field, format_quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

CLASSES = (Device, *dict.fromkeys(BLOCKS.values()))
SOURCE = Provenance(ProvenanceKind.FITTED, "a test")

# What the schema says -------------------------------------------------------------------------------------


def numbers_said(name: str, expected: Any, said: Said | None, path: str) -> Iterator[tuple[str, str, Meaning | None]]:
    """Path, name (whose suffix is the unit) and meaning of every number that a field may hold."""
    if expected is str:
        assert isinstance(said, Words), path
        assert said.text, path
    elif expected in (int, float):
        yield path, name, said if isinstance(said, Meaning) else None
    else:
        assert isinstance(said, Table), path
        assert said.text, path
        inner = field_types_of_mapping(expected)
        unit_says = dimension_of_field(name) is not Dimension.DIMENSIONLESS
        for key in said.own:
            yield from numbers_said(name if unit_says else str(key), inner, said.under(key), f"{path}.{key}")
        if said.keys is not None:
            yield from numbers_said(name, inner, said.each, f"{path}.*")


def field_types_of_mapping(expected: Any) -> Any:
    return expected.__args__[1]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_constant_says_what_it_means_its_unit_and_its_range(cls: type) -> None:
    meanings = meanings_of(cls)
    for field, expected in field_types(cls).items():
        for path, name, meaning in numbers_said(field, expected, meanings[field], field):
            assert meaning is not None, path
            assert len(meaning.text) > 4, path
            assert meaning.text.endswith("."), path
            assert 0.0 <= meaning.low <= meaning.typical <= meaning.high < inf, path
            assert bool(meaning.unit) == (dimension_of_field(name) is Dimension.DIMENSIONLESS), path


def test_links_say_what_their_numbers_mean() -> None:
    assert {name for name, said in meanings_of(Link).items() if said} == {"bandwidth_bytes_per_s", "latency_s"}


def test_what_is_called_typical_is_the_size_of_what_ships() -> None:
    """Errors give it as an example of a right value."""
    found: dict[tuple[str, Meaning], list[float]] = defaultdict(list)
    for profile in map(load_profile, calibrated_profiles()):
        for block, cls in {"device": Device, **BLOCKS}.items():
            constants = getattr(profile, block)
            for path, value in numbers_of(constants) if constants is not None else ():
                said: Said | None = meanings_of(cls).get(path.split(".")[0])
                for key in path.split(".")[1:]:
                    said = said.under(key) if isinstance(said, Table) else said
                if isinstance(said, Meaning) and value > 0.0 and said.typical > 0.0:
                    assert said.low <= value <= said.high, f"{block}.{path}"
                    found[f"{cls.__name__}.{path.split('.')[0]}", said].append(value)
    assert len(found) > 100
    for (path, meaning), values in found.items():
        assert 1 / 40 < median(values) / meaning.typical < 40, path


def test_the_schema_has_meaning_unit_and_range_of_a_plain_number_and_of_one_with_a_unit() -> None:
    gemm = profile_json_schema()["properties"]["gemm"]["properties"]["values"]["properties"]
    efficiency, launch = gemm["mma_efficiency"], gemm["launch_s"]
    assert "tensor-core rate" in efficiency["description"]
    assert (efficiency["unit"], efficiency["minimum"], efficiency["maximum"]) == ("share", 0.01, 1.0)
    assert "0 s to 1 ms" in launch["description"]
    assert (launch["unit"], launch["minimum"], launch["maximum"]) == ("s", 0.0, 1e-3)
    link = profile_json_schema()["$defs"]["LinkEntry"]["properties"]["bandwidth"]
    assert (link["unit"], link["minimum"]) == (SI_UNITS[Dimension.BANDWIDTH], 1e6)


def invalid(value: Any, schema: dict[str, Any], root: dict[str, Any], path: str = "") -> Iterator[str]:
    """What a JSON schema says against a value, for the keywords that ours have."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]] | {k: v for k, v in schema.items() if k != "$ref"}
    if "anyOf" in schema:
        errors = [list(invalid(value, option, root, path)) for option in schema["anyOf"]]
        yield from () if [] in errors else min(errors, key=len)
    types: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "null": type(None),
    }
    if "type" in schema and not isinstance(value, types[schema["type"]]):
        yield f"{path}: {value!r} is no {schema['type']}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield f"{path}: {value!r} is no {schema['pattern']}"
    if isinstance(value, int | float) and not schema.get("minimum", -inf) <= value <= schema.get("maximum", inf):
        yield f"{path}: {value!r} is out of range"
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from invalid(item, schema.get("items", {}), root, f"{path}.{index}")
    if isinstance(value, dict):
        yield from invalid_keys(value, schema, root, path)


def invalid_keys(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], path: str) -> Iterator[str]:
    yield from (f"{path}.{key} is missing" for key in schema.get("required", ()) if key not in value)
    for key, item in value.items():
        patterns = [inner for pattern, inner in schema.get("patternProperties", {}).items() if re.search(pattern, key)]
        known = [schema["properties"][key]] if key in schema.get("properties", {}) else patterns
        further = schema.get("additionalProperties", True)
        if not known and further is False:
            yield f"{path}.{key} is unknown"
        for inner in known or ([further] if isinstance(further, dict) else []):
            yield from invalid(item, inner, root, f"{path}.{key}")


@pytest.mark.parametrize("name", list_profiles())
def test_the_schema_is_that_of_every_shipped_profile(name: str) -> None:
    data: Any = data_of(name)
    schema = datasheet_json_schema() if is_datasheet(data) else profile_json_schema()
    assert list(invalid(data, schema, schema)) == []
    if not is_datasheet(data):
        wrong = changed(data, ("gemm", "values", "mma_efficiency"), -0.7)
        assert any("mma_efficiency" in error for error in invalid(wrong, schema, schema))
        wrong = changed(data, ("memory_bound", "values", "kernels", "norm"))
        assert any("norm is missing" in error for error in invalid(wrong, schema, schema))


# What happens to wrong ones -------------------------------------------------------------------------------


@lru_cache
def data_of(name: str) -> Any:
    return read_yaml(profile_path(name)).data


def changed(data: Any, path: tuple[Any, ...], new: Any = None) -> Any:
    """Plain data with the value at a path replaced, or without its key for None."""
    copy = dict(data) if isinstance(data, dict) else list(data)
    if len(path) > 1:
        copy[path[0]] = changed(data[path[0]], path[1:], new)
    elif new is None:
        del copy[path[0]]
    else:
        copy[path[0]] = new
    return copy


def keys_in(data: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield (*at, key)
        yield from keys_in(value, (*at, key))


def loaded(data: Any) -> HardwareProfile:
    document = YamlDocument(data, {}, "mine.yaml")
    return profile_of(document) if is_datasheet(data) else parse_profile(document)


def with_block(name: str, block: str, values: Any) -> HardwareProfile:
    """A shipped profile with other values in one block, read as its file is."""
    reading, cls = Reading(), BLOCKS[block]
    fields = read_fields(cls, values, f"{block}.values", reading, SOURCE)
    if reading.problems:
        raise InputError(reading.problems)
    constants: Any = {block: cls(**fields)}
    return dataclasses.replace(load_profile(name), **constants)


def refusal(read: Callable[[], HardwareProfile], block: str = "", *, ask: bool = False) -> str:
    """What is said against a profile, when it is read or when it is asked; nothing where it is good."""
    try:
        profile = read()
        if ask:
            assert_answers(profile, block)
    except InputError as error:
        return str(error)
    return ""


def assert_answers(profile: HardwareProfile, block: str) -> None:
    """A finite positive prediction that needs the block."""
    devices = min(2, len(profile.topology.gpus))
    asked: dict[str, Any] = {"hardware": "mine", "model": {"preset": "125M", "num_hidden_layers": 2}}
    asked |= {"num_devices": devices, "context_length": 64, "dtype": "float16"}
    heads = {"op": "attention", "kv_len": 512, "num_heads": 8}
    ops: dict[str, list[dict[str, Any]]] = {
        "gemm": [{"op": "gemm", "m": m, "n": n, "k": 1024} for m, n in ((1, 1024), (64, 1023), (512, 4096))],
        "attention": [{**heads, "q_len": q, "serving": False} for q in (1, 512)],
        "serving_attention": [{**heads, "q_len": q} for q in (1, 512)],
        "memory_bound": [{"op": "norm", "num_tokens": 8, "hidden_size": 512}, {"op": "copy", "bytes": 2**20}],
        "collectives": [
            {"op": "all_reduce", "bytes": num_bytes, "num_devices": devices, "library": library}
            for num_bytes, library in product((256, 2**24), ("nccl", "custom"))
        ],
    }
    found = [predict_op(profile, op) for op in ops.get(block, ())]
    if not found:
        asked |= {"architecture": {"kind": "kraken"}, "runtime": {"launch": "eager" if block == "launch" else "graph"}}
        found = [Predictor(profile).predict(Scenario.model_validate(asked)).latency_s]
    assert all(isfinite(value) and value > 0.0 for value in found), found


def without_grids(values: Any) -> Any:
    return values | {grid: {} for grid in ("correction", "decode_correction") if grid in values}


def block_keys(name: str, every: int) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Block, its values and the path of a key in them; of grids' cells only every so many-th.

    The large grids stay away while another key is looked at.
    """
    for block in BLOCKS:
        values = data_of(name).get(block, {}).get("values", {})
        small = without_grids(values)
        yield from ((block, small, path) for path in keys_in(small))
        cells = [path for path in keys_in(values) if small.get(path[0]) == {} != values[path[0]]]
        yield from ((block, values, path) for path in cells[1::every])


def of_each_kind(names: Sequence[str]) -> list[str]:
    """The first file of each set of blocks and of fields of a device: the others break in the same ways."""
    kinds: dict[tuple[frozenset[str], frozenset[str]], str] = {}
    for name in names:
        data = data_of(name)
        kinds.setdefault((frozenset(data), frozenset(data.get("device", {}))), name)
    return list(kinds.values())


@cache
def new_block_keys(name: str, every: int) -> list[tuple[str, Any, tuple[Any, ...]]]:
    """Those of `block_keys` that no calibrated profile before this one has: a constant is read alike in all of them."""
    others = list(takewhile(lambda other: other != name, of_each_kind(calibrated_profiles())))
    seen = {(block, path) for other in others for block, _, path in block_keys(other, every)}
    return [key for key in block_keys(name, every) if (key[0], key[2]) not in seen]


@pytest.mark.parametrize("name", of_each_kind(calibrated_profiles()))
def test_a_constant_that_is_missing_is_named_or_not_needed(name: str) -> None:
    accepted = 0
    for block, values, path in new_block_keys(name, every=19):
        without = partial(with_block, name, block, changed(values, path))
        said = refusal(without)
        if not said:
            accepted += 1
            said = refusal(without, block, ask=True) if accepted % 6 == 0 else ""
        assert not said or str(path[-1]) in said, (block, path)
    assert accepted > 2


def wrong_sizes(value: Any) -> list[Any]:
    """A number negated, zero, and 1e300 times itself, as a file would have it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [-value, 0, value * 1e300]
    parts = value.split() if isinstance(value, str) else []
    if len(parts) == 2 and re.fullmatch(r"[\d.e-]+", parts[0]):
        return [f"-{value}", f"0 {parts[1]}", f"{parts[0]}e300 {parts[1]}"]
    return []


def at(data: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        data = data[key]
    return data


@pytest.mark.parametrize("name", of_each_kind(calibrated_profiles()))
def test_a_constant_of_a_wrong_size_is_refused_with_its_range_or_gives_an_answer(name: str) -> None:
    accepted = 0
    for block, values, path in new_block_keys(name, every=59):
        for size in wrong_sizes(at(values, path)):
            wrong = partial(with_block, name, block, changed(values, path, size))
            said = refusal(wrong)
            if not said:
                accepted += 1
                assert accepted % 8 or refusal(wrong, block, ask=True) == "", (block, path, size)
                continue
            where = ".".join(str(key) for key in path if key != "value")
            assert f"{block}.values.{where}: " in said, (path, size)
            ranges = ("plausible is", "must not be negative", "must be a relative error")
            assert any(words in said for words in ranges), (block, path, size)
            assert "for example" in said, (block, path, size)
    assert accepted > 2


@pytest.mark.parametrize("block", sorted(OPTIONAL_BLOCKS))
def test_an_optional_block_given_as_null_is_one_that_is_left_out(block: str) -> None:
    document = read_yaml(profile_path("h200-sxm-x2"))
    assert isinstance(document.data, dict)
    profile = parse_profile(dataclasses.replace(document, data={**document.data, block: None}))
    assert block not in {path.partition(".")[0] for path in profile.provenance}


def small_data_of(name: str) -> dict[str, Any]:
    return {
        key: part | {"values": without_grids(part["values"])} if key in BLOCKS else part
        for key, part in data_of(name).items()
    }


def keys_but_of_blocks(name: str) -> set[tuple[Any, ...]]:
    return {path for path in keys_in(small_data_of(name)) if "values" not in path[:-1]}


@pytest.mark.parametrize("name", of_each_kind(list_profiles()))
def test_a_file_without_one_of_its_keys_is_refused_or_answers(name: str) -> None:
    data = small_data_of(name)
    # A key is read alike in all files that are calibrated, and in all that have a base, and in all that have none.
    kind = (name in calibrated_profiles(), "base" in data)
    before = takewhile(lambda other: other != name, of_each_kind(list_profiles()))
    alike = [other for other in before if (other in calibrated_profiles(), "base" in data_of(other)) == kind]
    for path in sorted(keys_but_of_blocks(name).difference(*map(keys_but_of_blocks, alike)), key=str):
        ask = path[0] == "device" and not calibrated_profiles().count(name)
        said = refusal(partial(loaded, changed(data, path)), "contention", ask=ask)
        # What a graph lacks is named by what it then is not, and a base by what it gave.
        elsewhere = (path[0] == "topology" and len(path) > 1) or path == ("base",)
        assert not said or elsewhere or str(path[-1]) in said, path


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("hbm_bandwidth_bytes_per_s", "1e-300 GB/s", "1 GB/s to 1 PB/s"),
        ("num_sms", 10**400, "1 to 4096 (SMs)"),
        ("tdp_w", "1 mW", "1 W to 100 kW"),
        ("boost_clock_hz", "1.98 kHz", "100 MHz to 10 GHz"),
        ("l2_capacity_bytes", "1e30 GB", "100 kB to 100 GB"),
        ("hbm_capacity_bytes", "0 GB", "must be more than zero"),
        ("generation", "rubin", "must be one of volta, turing, ampere, ada, hopper, blackwell"),
        ("peak_flops", {"float16": "989 FLOP/s"}, "10 GFLOP/s to 1000 PFLOP/s"),
    ],
)
def test_a_datasheet_that_cannot_be_is_refused_with_what_could(field: str, value: Any, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        loaded(changed(data_of("b200-sxm-x8"), ("device", field), value))
    (problem,) = caught.value.problems
    assert problem.path.startswith(f"device.{field}")
    assert expected in str(problem)
    assert len(str(problem)) < 400


def test_a_machine_at_the_edges_of_what_is_plausible_answers_and_can_be_written(tmp_path: Path) -> None:
    for field, said in meanings_of(Device).items():
        for value in (said.low, said.high) if isinstance(said, Meaning) else ():
            dimension = dimension_of_field(field)
            given = int(value) if dimension is Dimension.DIMENSIONLESS else format_quantity(value, dimension)
            data = changed(data_of("b200-sxm-x8"), ("device", field), given)
            assert_answers(loaded(data), "contention")
    text = profile_path("b200-sxm-x8").read_text(encoding="utf-8").replace("148", "4096").replace("1.965 GHz", "10 GHz")
    sheet, full = tmp_path / "sheet.yaml", tmp_path / "full.yaml"
    sheet.write_text(text, encoding="utf-8")
    full.write_text(profile_from_datasheet(sheet, "full").text, encoding="utf-8")
    assert load_profile(full).device.num_sms == 4096


@pytest.mark.parametrize(
    ("block", "path", "new", "expected"),
    [
        ("gemm", ("correction", "1x256"), None, "gemm.values.correction.1x256: is required: a grid has every"),
        ("gemm", ("correction", "1x256", "1024"), None, "gemm.values.correction.1x256.1024: is required: a grid"),
        ("gemm", ("misaligned_efficiency", "value", "4"), None, "gemm.values.misaligned_efficiency.4: is required"),
        ("memory_bound", ("kernels", "copy"), None, "memory_bound.values.kernels.copy: is required"),
        ("memory_bound", ("kernels", "nrom"), {}, "known are norm, elementwise, copy, embedding, gelu"),
        (
            "memory_bound",
            ("kernels", "norm", "value", "cta_s"),
            None,
            "memory_bound.values.kernels.norm.cta_s: is required",
        ),
        ("attention", ("decode", "packed", "l2_width"), None, "attention.values.decode.packed.l2_width: is required"),
        ("attention", ("prefill",), {}, "attention.values.prefill: must not be empty"),
        (
            "launch",
            ("kernel_switch_s",),
            "1 us",
            "launch.values.kernel_switch_s: is no constant any more",
        ),
        ("attention", ("prefill", "wide"), {}, "attention.values.prefill.wide: no such key is known"),
        (
            "collectives",
            ("step_s", "nvlink", "ll"),
            None,
            "step_s.nvlink.ll: is required, as collectives.values.base_s",
        ),
        ("collectives", ("link_latency_s", "host"), None, "collectives.values.link_latency_s.host: is required, as"),
        ("collectives", ("custom_ctas", "multimem"), None, "collectives.values.custom_ctas.multimem: is required, as"),
        ("collectives", ("link_correction", "ll"), {"20": 1, "18": 1}, "link_correction.ll: knots must ascend"),
        ("collectives", ("ring_pair_loss", "ll"), None, "collectives.values.ring_pair_loss.ll: is required"),
    ],
)
def test_what_a_mapping_lacks_is_named(block: str, path: tuple[str, ...], new: Any, expected: str) -> None:
    data = data_of("h200-sxm-x8")
    with pytest.raises(InputError) as caught:
        loaded(changed(data, (block, "values", *path), new))
    assert any(expected in str(problem) for problem in caught.value.problems)


def test_a_value_that_says_where_it_is_from_and_nothing_else_lacks_its_value() -> None:
    with pytest.raises(InputError) as caught:
        loaded(changed(data_of("h200-sxm-x8"), ("device", "num_sms", "value")))
    (problem,) = caught.value.problems
    assert str(problem) == "device.num_sms.value: is required; for example 132"
