"""Text to tokens: what counts, on which side it comes, and in which windows it is read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kraken_sim.errors import InputError

pytest.importorskip("torch")

from quality_support import byte_corpus, write_texts

from validation.quality.batches import Windows, in_order
from validation.quality.corpus import find_documents, find_files, main, open_corpus, prepare, side_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.torch


def texts_of(corpus_folder: Path, split: str) -> set[str]:
    corpus = open_corpus(corpus_folder)
    tokenizer, tokens = corpus.tokenizer(), corpus.tokens(split)
    ends = np.flatnonzero(tokens == tokenizer.end_of_text)
    starts = [0, *(ends[:-1] + 1)]
    return {tokenizer.decode(tokens[a:b].tolist()) for a, b in zip(starts, ends, strict=True)}


@pytest.mark.parametrize("vocab_size", [None, 300])
def test_both_sides_together_are_the_texts_and_share_none(tmp_path: Path, vocab_size: int | None) -> None:
    if vocab_size is not None:
        pytest.importorskip("tokenizers")
    texts = write_texts(tmp_path / "texts", 30)
    (texts / "accents.txt").write_text("naïve café, 東京\r\n\ttab")
    corpus = prepare([texts], tmp_path / "corpus", vocab_size=vocab_size, validation_share=0.3)
    train, validation = texts_of(corpus.folder, "train"), texts_of(corpus.folder, "validation")
    assert train.isdisjoint(validation)
    assert train | validation == {path.read_bytes().decode() for path in texts.iterdir()}
    sizes = np.array(corpus.tokenizer().token_bytes())
    for split in ("train", "validation"):
        assert sizes[corpus.tokens(split)].sum() == corpus.num_bytes[split]


def test_a_text_counts_once_and_its_content_alone_decides_its_side(tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts")
    before = {one.digest: side_of(one, 0.3) for one in find_documents(find_files([texts], ()), None, 10_000)}
    (texts / "copy.txt").write_bytes((texts / "0.txt").read_bytes())
    (texts / "1.txt").rename(texts / "another.txt")
    after = {one.digest: side_of(one, 0.3) for one in find_documents(find_files([texts], ()), None, 10_000)}
    assert after == before
    assert set(after.values()) == {"train", "validation"}


def test_what_is_no_text_or_too_long_is_left_out(tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts", 5)
    (texts / "image.txt").write_bytes(b"\x89PNG\xff\xfe")
    (texts / "zeros.txt").write_bytes(b"text\0text")
    (texts / "empty.txt").write_bytes(b"")
    (texts / "long.txt").write_text("x" * 2000)
    (texts / "code.py").write_text("print()")
    (texts / "link.txt").symlink_to(texts / "0.txt")
    names = {one.path.name for one in find_documents(find_files([texts], [".txt"]), None, 1000)}
    assert names == {f"{index}.txt" for index in range(5)}


def test_a_separator_parts_a_file_into_documents(tmp_path: Path) -> None:
    path = tmp_path / "all.txt"
    path.write_text("äins<|end|>zwei<|end|>äins<|end|>")
    found = find_documents([path], "<|end|>", 100)
    assert [path.read_bytes()[one.start : one.start + one.length].decode() for one in found] == ["äins", "zwei"]


def test_too_little_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("alone")
    with pytest.raises(InputError, match="too little text: of 1 documents none is left"):
        prepare([tmp_path / "one.txt"], tmp_path / "corpus", vocab_size=None)
    assert not (tmp_path / "corpus").exists()
    with pytest.raises(InputError, match="it has 3 sequences of 16 tokens, a step needs 4"):
        Windows(np.arange(70), 16, 0, 4)
    with pytest.raises(InputError, match="validation side has 60 tokens, one batch needs 65"):
        next(in_order(np.arange(60), 16, 4, 1000))


def test_a_corpus_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    corpus = byte_corpus(tmp_path)
    data = (corpus.folder / "train.bin").read_bytes()
    (corpus.folder / "train.bin").write_bytes(data[:-2])
    with pytest.raises(InputError, match=r"train\.bin is not whole"):
        open_corpus(corpus.folder)
    (corpus.folder / "corpus.json").write_text("{")
    with pytest.raises(InputError, match="is no corpus"):
        open_corpus(corpus.folder)


def test_the_command_says_what_is_wrong_and_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "corpus")
    assert main([str(tmp_path / "nothing"), "--out", out]) == 2
    assert "there is no file or directory of this name" in capsys.readouterr().err
    texts = str(write_texts(tmp_path / "texts"))
    assert main([texts, "--out", out, "--bytes", "--validation-share", "1.5"]) == 2
    assert "must lie between 0 and 1" in capsys.readouterr().err
    assert main([texts, "--out", out, "--bytes", "--validation-share", "0.2"]) == 0
    assert "M tokens" in capsys.readouterr().err
    assert json.loads((tmp_path / "corpus" / "corpus.json").read_text())["vocab_size"] == 257


def test_an_epoch_reads_every_window_once_and_any_step_can_be_read_alone() -> None:
    windows = Windows(np.arange(1000), 10, seed=3, least=4)
    epoch = [windows.read(index, 1) for index in range(windows.per_epoch)]
    starts = sorted(int(inputs[0, 0]) for inputs, _ in epoch)
    assert np.diff(starts).tolist() == [10] * (windows.per_epoch - 1)
    for inputs, targets in epoch:
        assert (targets - inputs == 1).all()
    # A fresh reader that begins at the end of the epoch reads on across it as the first one does.
    first = windows.per_epoch - 2
    both = [reader.read(first, 4)[0].tolist() for reader in (windows, Windows(np.arange(1000), 10, 3, 4))]
    assert both[0] == both[1]
    assert both[0][:2] == [epoch[first][0][0].tolist(), epoch[first + 1][0][0].tolist()]
    assert Windows(np.arange(1000), 10, 4, 4).read(0, 4)[0].tolist() != windows.read(0, 4)[0].tolist()


def test_validation_reads_side_by_side_and_no_more_than_asked() -> None:
    batches = list(in_order(np.arange(1000), 10, 4, 100))
    assert len(batches) == 2
    assert [int(x) for inputs, _ in batches for x in inputs.flatten()] == list(range(80))
    assert all((targets - inputs == 1).all() for inputs, targets in batches)
