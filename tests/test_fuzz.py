"""Whatever file comes in: an answer that can be one, or an error in our words, and soon."""

from __future__ import annotations

import pytest
from fuzz_files import READERS, TREES, ask, drawn_of, examples_of, measurement_lines, schema_of, tree
from fuzz_promise import check_words
from fuzz_settings import examples
from fuzz_trees import RAW_YAML, mutated, torn, written
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize("kind", READERS)
def test_a_right_file_is_answered(kind: str) -> None:
    for text in examples_of()[kind]:
        ask(kind, text.encode())


@pytest.mark.parametrize("kind", [kind for kind in TREES if schema_of(kind) is not None])
@given(data=st.data())
@examples(12)
def test_a_file_drawn_from_its_schema_is_answered_or_explained(kind: str, data: st.DataObject) -> None:
    ask(kind, written(data.draw(drawn_of(kind))).encode())


@pytest.mark.parametrize("kind", TREES)
@given(data=st.data())
@examples(32)
def test_a_file_with_mistakes_is_answered_or_explained(kind: str, data: st.DataObject) -> None:
    right = tree(data.draw(st.sampled_from(examples_of()[kind])))
    ask(kind, written(data.draw(mutated(right))).encode("utf-8", "surrogatepass"))


@given(data=st.data())
@examples(32)
def test_a_measurement_with_mistakes_is_read_or_explained(data: st.DataObject) -> None:
    lines = measurement_lines()
    at = data.draw(st.integers(0, len(lines) - 1))
    lines[at] = written(data.draw(mutated(tree(lines[at])))).replace("\n", " ")
    ask("measurements", "\n".join(lines).encode())


@pytest.mark.parametrize("kind", READERS)
@given(data=st.data())
@examples(20)
def test_a_torn_file_is_answered_or_explained(kind: str, data: st.DataObject) -> None:
    ask(kind, data.draw(torn(data.draw(st.sampled_from(examples_of()[kind])))))


@pytest.mark.parametrize("kind", READERS)
@given(data=st.data())
@examples(8)
def test_any_other_file_is_answered_or_explained(kind: str, data: st.DataObject) -> None:
    others = [text.encode() for texts in examples_of().values() for text in texts]
    raw = [one.text.encode() for one in RAW_YAML]
    ask(
        kind,
        data.draw(
            st.sampled_from(others)
            | st.sampled_from(raw)
            | st.binary(max_size=200)
            | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass"))
        ),
    )


def test_words_of_libraries_are_noticed() -> None:
    with pytest.raises(AssertionError):
        check_words("1 validation error for Scenario: pydantic")
