"""Text files as two memory-mapped arrays of tokens, one to train on and one to validate with.

    python -m validation.quality.corpus DIRECTORY_OR_FILE... --out out/corpus --vocabulary 8192 --suffix .py .md

A document is a file, or a part of one between two separators. Documents of equal content count once, and a document's
content alone (its hash) says on which side it comes, so nothing is on both. The tokenizer is a byte-level BPE trained
on the training side, or plain bytes. Nothing is ever downloaded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kraken_sim.errors import InputError
from kraken_sim.files.whole import write_whole
from validation.command import check_positive, exit_code
from validation.progress import say
from validation.quality.tokenizer import END_OF_TEXT, ByteTokenizer, Tokenizer, read_tokenizer, train_bpe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

META = "corpus.json"
SPLITS = ("train", "validation")
MAX_DOCUMENT_BYTES = 1 << 20
"""Longer documents are left out by default: as a rule they are tables and generated code. A choice of ours."""
MAX_FILE_BYTES = 1 << 32
"""A limit of ours: a file is read as a whole."""
SAMPLE_BYTES = 32 << 20
"""Bytes of the training side that a BPE is trained on; a choice of ours: more changes hardly a merge."""
BATCH_BYTES = 8 << 20
"""Bytes that are encoded at once."""


@dataclass(frozen=True, slots=True)
class Document:
    """A place in a file, and the hash of what is there."""

    path: Path
    start: int
    length: int
    digest: str


@dataclass(frozen=True, slots=True)
class Corpus:
    """A corpus on the disk: its folder and what `corpus.json` says of it."""

    folder: Path
    vocab_size: int
    digest: str
    num_tokens: dict[str, int]
    num_bytes: dict[str, int]
    num_documents: dict[str, int]

    def tokens(self, split: str) -> np.ndarray[Any, np.dtype[Any]]:
        """All tokens of a side, memory-mapped: [T]."""
        return np.memmap(self.folder / f"{split}.bin", dtype=_dtype(self.vocab_size), mode="r")

    def tokenizer(self) -> Tokenizer:
        """What made tokens of the text."""
        return read_tokenizer(self.folder)


def _dtype(vocab_size: int) -> type[np.uint16 | np.uint32]:
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def open_corpus(folder: Path) -> Corpus:
    """A corpus that `prepare` wrote.

    Raises:
        InputError: there is none, or its files are not whole.
    """
    try:
        data = json.loads((folder / META).read_text())
        corpus = Corpus(
            folder,
            data["vocab_size"],
            data["digest"],
            *({split: int(data[part][split]) for split in SPLITS} for part in ("tokens", "bytes", "documents")),
        )
        for split in SPLITS:
            expected = corpus.num_tokens[split] * _dtype(corpus.vocab_size)().itemsize
            if (folder / f"{split}.bin").stat().st_size != expected:
                message = f"{split}.bin is not whole; prepare the corpus anew"
                raise InputError.single("--data", message, str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = "is no corpus; make one with python -m validation.quality.corpus"
        raise InputError.single("--data", f"{message} ({type(error).__name__})", str(folder)) from None
    return corpus


def find_files(paths: Iterable[Path], suffixes: Sequence[str]) -> list[Path]:
    """All files of the given ones and of the directories among them, sorted; links are not followed.

    Raises:
        InputError: a path that does not exist; all of them at once.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            for root, folders, names in os.walk(path):
                folders.sort()
                places = (Path(root, name) for name in sorted(names))
                found += [place for place in places if not suffixes or place.suffix in suffixes]
        elif path.is_file():
            found.append(path)
        else:
            raise InputError.single("PATH", "there is no file or directory of this name", str(path))
    return [path for path in dict.fromkeys(found) if not path.is_symlink()]


def find_documents(files: Iterable[Path], separator: str | None, max_bytes: int) -> list[Document]:
    """Documents of UTF-8 text, each content once, in the order of the files."""
    found: dict[str, Document] = {}
    for path in files:
        for start, part in _parts(path, separator):
            if not 0 < len(part) <= max_bytes:
                continue
            digest = hashlib.blake2b(part, digest_size=16).hexdigest()
            found.setdefault(digest, Document(path, start, len(part), digest))
    return list(found.values())


def _parts(path: Path, separator: str | None) -> Iterator[tuple[int, bytes]]:
    """Where each document of a file begins, and what it says; nothing of a file that is no text."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return
        data = path.read_bytes()
        data.decode()
    except (OSError, UnicodeDecodeError):
        return
    if b"\0" in data:
        return
    start, between = 0, (separator or "").encode()
    for part in data.split(between) if between else (data,):
        yield start, part
        start += len(part) + len(between)


def side_of(document: Document, validation_share: float) -> str:
    """Which of the two sides, by the content alone."""
    return SPLITS[int(document.digest[:12], 16) < validation_share * 16**12]


def _text(document: Document) -> str:
    with document.path.open("rb") as file:
        file.seek(document.start)
        return file.read(document.length).decode()


def _drawn(documents: Sequence[Document], max_bytes: int) -> list[Document]:
    """Those whose hashes begin low: by other digits than those that choose the side."""
    share = max_bytes / max(1, sum(one.length for one in documents))
    return [one for one in documents if int(one.digest[-12:], 16) < share * 16**12]


def _sample(documents: Sequence[Document], max_bytes: int) -> Iterator[str]:
    size = 0
    for document in random.Random(0).sample(documents, len(documents)):
        if size >= max_bytes:
            return
        size += document.length
        yield _text(document)


def _batches(documents: Iterable[Document]) -> Iterator[list[str]]:
    batch, size = [], 0
    for document in documents:
        batch.append(_text(document))
        size += document.length
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def prepare(
    paths: Iterable[Path],
    out: Path,
    *,
    vocab_size: int | None,
    suffixes: Sequence[str] = (),
    separator: str | None = None,
    validation_share: float = 0.02,
    max_document_bytes: int = MAX_DOCUMENT_BYTES,
    max_bytes: int | None = None,
) -> Corpus:
    """Makes a corpus of text files.

    Args:
        paths: files and directories.
        out: the folder to write; `corpus.json` comes last, so a folder without it is not whole.
        vocab_size: of the BPE, which may find fewer; None for plain bytes.
        suffixes: of the files that count; empty for all.
        separator: what stands between two documents of a file; default: a file is a document.
        validation_share: part of the documents that validate.
        max_document_bytes: longer documents are left out.
        max_bytes: of a larger text take about so much, documents drawn by their hashes.

    Raises:
        InputError: there is no text, or too little of it for both sides.
    """
    documents = find_documents(find_files(paths, suffixes), separator, max_document_bytes)
    if max_bytes is not None:
        documents = _drawn(documents, max_bytes)
    # By their hashes: an order that says nothing of where they came from, always the same.
    documents = sorted(documents, key=lambda document: document.digest)
    sides = {split: [one for one in documents if side_of(one, validation_share) == split] for split in SPLITS}
    for split in SPLITS:
        if not sides[split]:
            message = f"too little text: of {len(documents)} documents none is left for the {split} side"
            raise InputError.single("PATH", message, example="a directory with some hundred text files")
    out.mkdir(parents=True, exist_ok=True)
    (out / META).unlink(missing_ok=True)
    tokenizer: Tokenizer = ByteTokenizer()
    if vocab_size is not None:
        tokenizer = train_bpe(_sample(sides["train"], SAMPLE_BYTES), vocab_size)
    tokenizer.save(out)
    counts = {split: _write_tokens(sides[split], tokenizer, out / f"{split}.bin") for split in SPLITS}
    digest = hashlib.blake2b(digest_size=16)
    for split in SPLITS:
        for document in sides[split]:
            digest.update(f"{split} {document.digest}\n".encode())
    digest.update(tokenizer.identity().encode())
    data = {
        "vocab_size": tokenizer.vocab_size,
        "digest": digest.hexdigest(),
        "tokens": counts,
        "bytes": {split: sum(one.length for one in sides[split]) for split in SPLITS},
        "documents": {split: len(sides[split]) for split in SPLITS},
        "suffixes": list(suffixes),
        "max_document_bytes": max_document_bytes,
        "validation_share": validation_share,
    }
    write_whole(out / META, json.dumps(data, indent=1).encode())
    return open_corpus(out)


def _write_tokens(documents: Iterable[Document], tokenizer: Tokenizer, path: Path) -> int:
    """Each document's tokens and an end-of-text token; how many these are."""
    count = 0
    with path.open("wb") as file:
        for texts in _batches(documents):
            for tokens in tokenizer.encode_all(texts):
                ids = np.asarray([*tokens, tokenizer.end_of_text], dtype=_dtype(tokenizer.vocab_size))
                file.write(ids.tobytes())
                count += len(ids)
    return count


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 where the input is wrong."""
    parser = argparse.ArgumentParser(prog="validation.quality.corpus", description="Makes a corpus of text files.")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="text files and directories of them")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--vocabulary", type=int, default=16_384, metavar="SIZE", help="of the BPE (default: 16384)")
    parser.add_argument("--bytes", action="store_true", help="plain bytes instead of a BPE")
    parser.add_argument("--suffix", nargs="*", default=[], metavar=".EXT", help="only files of these names' ends")
    parser.add_argument("--separator", help=f"between documents of a file, such as {END_OF_TEXT!r}")
    parser.add_argument("--validation-share", type=float, default=0.02, help="of the documents (default: 0.02)")
    parser.add_argument("--max-document-bytes", type=int, default=MAX_DOCUMENT_BYTES, help="longer ones are left out")
    parser.add_argument("--max-bytes", type=int, help="of a larger text take about so much, drawn by chance")
    given = parser.parse_args(argv)
    return exit_code(lambda: _prepare(given), given.out, "the same command begins anew")


def _prepare(given: argparse.Namespace) -> None:
    check_positive(given, "--vocabulary", "--max-document-bytes", "--max-bytes")
    if not 0 < given.validation_share < 1:
        raise InputError.single("--validation-share", "must lie between 0 and 1", given.validation_share, "0.02")
    corpus = prepare(
        given.paths,
        given.out,
        vocab_size=None if given.bytes else given.vocabulary,
        suffixes=given.suffix,
        separator=given.separator,
        validation_share=given.validation_share,
        max_document_bytes=given.max_document_bytes,
        max_bytes=given.max_bytes,
    )
    for split in SPLITS:
        documents, size, tokens = corpus.num_documents[split], corpus.num_bytes[split], corpus.num_tokens[split]
        say(f"{split}: {documents:,} documents, {size / 1e6:,.1f} MB, {tokens / 1e6:,.2f} M tokens")


if __name__ == "__main__":
    sys.exit(main())
