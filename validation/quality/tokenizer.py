"""Text to token ids and back: a byte-level BPE of the `tokenizers` library, or plain bytes."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final

from kraken_sim.errors import InputError
from kraken_sim.files.whole import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

END_OF_TEXT: Final = "<|endoftext|>"
"""What GPT-2 puts between two documents."""

_FILE: Final = "tokenizer.json"
_NUM_BYTES: Final = 256


class Tokenizer(ABC):
    """Token `end_of_text` stands between two documents and for no bytes."""

    vocab_size: int
    end_of_text: int

    @abstractmethod
    def encode_all(self, texts: Sequence[str]) -> Iterable[Sequence[int]]:
        """The tokens of each text."""

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; bytes that are no UTF-8 become replacement characters."""

    @abstractmethod
    def token_bytes(self) -> list[int]:
        """How many bytes each token of the vocabulary stands for."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes it where `read_tokenizer` finds it."""

    @abstractmethod
    def identity(self) -> str:
        """A hash of what it does."""


class ByteTokenizer(Tokenizer):
    """A token is a byte."""

    vocab_size = _NUM_BYTES + 1
    end_of_text = _NUM_BYTES

    def encode_all(self, texts: Sequence[str]) -> Iterable[Sequence[int]]:
        """The UTF-8 bytes of each text."""
        return (text.encode() for text in texts)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text that the bytes are."""
        return bytes(token for token in tokens if token < _NUM_BYTES).decode(errors="replace")

    def token_bytes(self) -> list[int]:
        """One each, and none for the end of a text."""
        return [*([1] * _NUM_BYTES), 0]

    def save(self, folder: Path) -> None:
        """Nothing is to be kept, and no file of another tokenizer is left."""
        (folder / _FILE).unlink(missing_ok=True)

    def identity(self) -> str:
        """Always the same."""
        return "bytes"


class BpeTokenizer(Tokenizer):
    """A byte-level BPE, whose base are the 256 bytes, so that every text has tokens."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.vocab_size = inner.get_vocab_size()
        self.end_of_text = inner.token_to_id(END_OF_TEXT)

    def encode_all(self, texts: Sequence[str]) -> Iterable[Sequence[int]]:
        """All texts at once, on all cores."""
        encode = getattr(self._inner, "encode_batch_fast", self._inner.encode_batch)
        return (encoding.ids for encoding in encode(texts, add_special_tokens=False))

    def decode(self, tokens: Sequence[int]) -> str:
        """Without the ends of texts."""
        return str(self._inner.decode(list(tokens), skip_special_tokens=True))

    def token_bytes(self) -> list[int]:
        """A token is written with one character a byte."""
        sizes = [0] * self.vocab_size
        for token, index in self._inner.get_vocab().items():
            sizes[index] = 0 if index == self.end_of_text else len(token)
        return sizes

    def save(self, folder: Path) -> None:
        """In the format of the library."""
        write_whole(folder / _FILE, self._inner.to_str(pretty=True).encode())

    def identity(self) -> str:
        """Of its whole description."""
        return hashlib.blake2b(self._inner.to_str().encode(), digest_size=16).hexdigest()


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        message = "a BPE needs the library tokenizers: pip install 'kraken_sim[quality]'; --bytes needs nothing"
        raise InputError.single("--vocabulary", message) from None
    return tokenizers


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE of at most `vocab_size` tokens, the end of a text among them.

    Raises:
        InputError: the vocabulary has no room for the 256 bytes, or the library is missing.
    """
    least = _NUM_BYTES + 1
    if vocab_size < least:
        raise InputError.single("--vocabulary", f"must be at least {least}: the bytes and an end", vocab_size, "8192")
    library = _library()
    inner = library.Tokenizer(library.models.BPE())
    inner.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    return BpeTokenizer(inner)


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a corpus or of a run.

    Raises:
        InputError: the library that it needs is missing.
    """
    path = folder / _FILE
    return BpeTokenizer(_library().Tokenizer.from_file(str(path))) if path.exists() else ByteTokenizer()
