from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_sim.errors import InputError
from kraken_sim.files.strict_yaml import parse_yaml, read_yaml
from kraken_sim.units import (
    EXAMPLES,
    UNITS,
    Dimension,
    dimension_of_field,
    format_bandwidth,
    format_bytes,
    format_flops,
    format_quantity,
    format_seconds,
    format_watts,
    parse_quantity,
)

WITH_UNITS = [dimension for dimension in Dimension if UNITS[dimension]]


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("900 GB/s", Dimension.BANDWIDTH, 900e9),
        ("4.8TB/s", Dimension.BANDWIDTH, 4.8e12),
        ("40 GiB", Dimension.BYTES, 40 * 2**30),
        ("141 GB", Dimension.BYTES, 141e9),
        ("3.4 us", Dimension.TIME, 3.4e-6),
        ("3.4 µs", Dimension.TIME, 3.4e-6),
        ("0 s", Dimension.TIME, 0.0),
        ("1.98 GHz", Dimension.FREQUENCY, 1.98e9),
        ("989 TFLOP/s", Dimension.FLOPS, 989e12),
        ("1e3 GFLOP/s", Dimension.FLOPS, 1e12),
        ("700 W", Dimension.POWER, 700.0),
        (0.85, Dimension.DIMENSIONLESS, 0.85),
        (3, Dimension.DIMENSIONLESS, 3.0),
    ],
)
def test_quantity_is_read_in_si_units(text: object, dimension: Dimension, value: float) -> None:
    assert parse_quantity(text, dimension) == value


def test_400_gigabits_per_second_are_50_gigabytes_per_second() -> None:
    assert parse_quantity("400 Gb/s", Dimension.BANDWIDTH) == parse_quantity("50 GB/s", Dimension.BANDWIDTH)


def test_binary_prefix_is_larger_than_decimal_prefix() -> None:
    assert parse_quantity("1 MiB", Dimension.BYTES) == 1_048_576
    assert parse_quantity("1 MB", Dimension.BYTES) == 1_000_000


@pytest.mark.parametrize("dimension", WITH_UNITS)
def test_examples_in_errors_are_right_values(dimension: Dimension) -> None:
    assert parse_quantity(EXAMPLES[dimension].strip('"'), dimension) > 0


@pytest.mark.parametrize(
    ("value", "dimension", "expected"),
    [
        ("900 GB", Dimension.BANDWIDTH, "GB is a unit of amount of data, but this is a bandwidth"),
        ("3.4 us", Dimension.BANDWIDTH, "us is a unit of time, but this is a bandwidth"),
        ("900 gbps", Dimension.BANDWIDTH, "did you mean '900 Gb/s'?"),
        ("900 GBps", Dimension.BANDWIDTH, "did you mean '900 GB/s'?"),
        ("40 gib", Dimension.BYTES, "did you mean '40 GiB'?"),
        ("989 TFLOPS", Dimension.FLOPS, "did you mean '989 TFLOP/s'?"),
        ("1.98 ghz", Dimension.FREQUENCY, "did you mean '1.98 GHz'?"),
        ("700", Dimension.POWER, "a power needs a unit"),
        (700, Dimension.POWER, "a power needs a number and a unit"),
        (None, Dimension.TIME, "a time needs a number and a unit"),
        ("fast", Dimension.TIME, "is not a time"),
        ("inf s", Dimension.TIME, "is not a time"),
        ("1e999 s", Dimension.TIME, "is not a finite number"),
        ("0.85", Dimension.DIMENSIONLESS, "must be a plain number"),
        ("3 us", Dimension.DIMENSIONLESS, "must be a plain number"),
        (True, Dimension.DIMENSIONLESS, "must be a plain number"),
        (math.nan, Dimension.DIMENSIONLESS, "is not a finite number"),
    ],
)
def test_wrong_quantity_is_named_with_path_value_and_example(
    value: object, dimension: Dimension, expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        parse_quantity(value, dimension, "device.some_field")
    problem = caught.value.problems[0]
    assert problem.path == "device.some_field"
    assert problem.value == value or value is math.nan
    assert problem.example == EXAMPLES[dimension]
    assert expected in str(problem)


@given(st.sampled_from(WITH_UNITS), st.floats(1e-11, 1e17))
def test_formatted_quantity_reads_back_to_the_digits_shown(dimension: Dimension, value: float) -> None:
    read = parse_quantity(format_quantity(value, dimension, digits=6), dimension)
    assert math.isclose(read, value, rel_tol=1e-5)


@given(st.text(max_size=30), st.sampled_from(list(Dimension)))
def test_any_text_is_a_quantity_or_a_clear_error(text: str, dimension: Dimension) -> None:
    with contextlib.suppress(InputError):
        assert math.isfinite(parse_quantity(text, dimension, "field"))


def test_people_read_round_numbers() -> None:
    assert format_seconds(3.4e-6) == "3.4 us"
    assert format_seconds(0.9999999) == "1 s"
    assert format_seconds(0.0) == "0 s"
    assert format_bytes(141e9) == "141 GB"
    assert format_bandwidth(4.8e12) == "4.8 TB/s"
    assert format_flops(989.4e12) == "989.4 TFLOP/s"
    assert format_watts(700.0) == "700 W"


@pytest.mark.parametrize(
    ("name", "dimension"),
    [
        ("launch_s", Dimension.TIME),
        ("hbm_bandwidth_bytes_per_s", Dimension.BANDWIDTH),
        ("l2_capacity_bytes", Dimension.BYTES),
        ("peak_flops", Dimension.FLOPS),
        ("boost_clock_hz", Dimension.FREQUENCY),
        ("tdp_w", Dimension.POWER),
        ("num_sms", Dimension.DIMENSIONLESS),
        ("tile_efficiency", Dimension.DIMENSIONLESS),
    ],
)
def test_suffix_of_a_name_says_the_unit(name: str, dimension: Dimension) -> None:
    assert dimension_of_field(name) is dimension


def test_yaml_numbers_are_numbers_and_words_are_words() -> None:
    data = parse_yaml("a: 1e9\nb: on\nc: 010\nd: 1:30\ne: 2020-01-01\nf: 2.5\ng: true\nh: ~\n1: x\ni: -.inf").data
    assert data == {
        "a": 1e9, "b": "on", "c": 10, "d": "1:30", "e": "2020-01-01",
        "f": 2.5, "g": True, "h": None, "1": "x", "i": -math.inf,
    }  # fmt: skip


def test_yaml_aliases_are_followed() -> None:
    assert parse_yaml("a: &x {b: 1}\nc: *x").data == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:\n  b: 1\n  b: 2", "a.b: line 3: the key appears twice, first on line 2"),
        ("a: [1", "line 2, column 1: not valid YAML"),
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("a: &x [*x]", "a.0: line 1: an alias that contains itself"),
        ("a: !!python/object:os.system x", "tags such as"),
        ("a: 1\n---\nb: 2", "another document"),
        ("? [1, 2]\n: 3", "a key must be plain text"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_ambiguous_yaml_is_an_error_with_its_place(text: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_yaml(text, "some.yaml")
    assert expected in str(caught.value)
    assert "some.yaml" in str(caught.value)


def test_exploding_aliases_are_an_error() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    with pytest.raises(InputError, match="expands to more than"):
        parse_yaml("\n".join(lines))


def test_missing_file_is_an_input_error(tmp_path: object) -> None:
    with pytest.raises(InputError, match="there is no file"):
        read_yaml(f"{tmp_path}/nothing.yaml")


def test_line_of_a_missing_field_is_its_parents() -> None:
    document = parse_yaml("a:\n  b:\n    c: 1\n")
    assert document.line_of("a.b.c") == 3
    assert document.line_of("a.b.missing") == 2
    assert document.line_of("nowhere") is None
