"""The contract of a corpus, and its faults as far as they can be found before it is tokenized.

The check of a config imports this file, so it imports nothing heavy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from project.data.tokenizer import END_OF_TEXT, SMALLEST_VOCABULARY, tokenizer_faults
from project.spec.fault import Fault

if TYPE_CHECKING:
    import numpy.typing as npt

Value: TypeAlias = "str | list[Mapping[str, Any]] | npt.NDArray[Any]"
"""What a row of a file holds: a text, messages, tokens."""


MOST_WORKERS = 1024  # processes of each rank


@dataclass(frozen=True)
class Document:
    """One text that is tokenized by itself; or the messages of a conversation, which the tokenizer's chat template
    makes a text; or tokens that are there already.

    `id` is the same on every machine (it has no absolute path), because the split into training and validation is a
    hash of it.
    """

    id: str
    text: str = ""
    messages: Sequence[Mapping[str, Any]] | None = None
    tokens: npt.NDArray[Any] | None = None

    @classmethod
    def of(cls, id: str, value: Value) -> Document:
        if isinstance(value, str):
            return cls(id, value)
        return cls(id, messages=value) if isinstance(value, list) else cls(id, tokens=value)


@runtime_checkable
class Corpus(Protocol):
    """A source of documents, in an order that depends on nothing but the corpus."""

    name: str
    """The beginning of the cache folder's name."""

    key: str
    """The config key that messages name."""

    value: Any
    """The value that the user gave for `key`."""

    def identity(self) -> dict[str, Any]:
        """The entries, as JSON, by which this corpus differs from others and from older versions of itself. Every start
        computes them, so they have to be cheap."""
        ...

    def size_bytes(self) -> int | None:
        """The bytes of text, or None if that is not known without reading it."""
        ...

    def documents(self) -> Iterator[Document]:
        """Yields the documents, reading each when it is asked for.

        Raises:
            CorpusError: at the first document that cannot be read.
        """
        ...

    def faults(self) -> list[Fault]:
        """The faults that can be found within about a second."""
        ...


class CorpusError(ValueError):
    """A fault of the corpus that the user has to mend; `fault` is the same, for a list of faults."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would pass the message to __init__ when the error is unpickled in another process.
        return type(self), (self.fault,)


def corpus_faults(data: Mapping[str, Any], corpus: Any) -> list[Fault]:
    """The faults of a resolved `data` config group that can be found without tokenizing. `corpus` is the object that
    `data["corpus"]` describes.

    A corpus can still turn out to be shorter than one batch, or damaged far inside a large file: then
    `TokenDataModule.prepare` raises `CorpusError`, and the training script calls it before it starts any process.
    """
    faults = [*_number_faults(data), *corpus.faults()]
    if isinstance(corpus, Corpus):
        faults += _cache_faults(data.get("cache_dir"), corpus.name)
        faults += _vocabulary_faults(data)
        if not faults:
            faults += _length_faults(data, corpus)
    return faults


def tokens_needed(batch_size: int, seq_len: int) -> int:
    """The number of tokens that fill one batch: its windows end to end, and one token more, the last target."""
    return batch_size * seq_len + 1


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _number_faults(data: Mapping[str, Any]) -> Iterator[Fault]:
    for key in ("seq_len", "batch_size", "vocab_size"):
        if not _is_count(data.get(key)):
            yield Fault(f"data.{key}", data.get(key), "must be a whole number of at least 1")
    fraction = data.get("val_fraction", 0.05)
    if not isinstance(fraction, int | float) or not 0 < fraction < 1:
        yield Fault("data.val_fraction", fraction, "must lie between 0 and 1, both excluded; 0.05 is usual")
    workers = data.get("num_workers", 0)
    if workers != 0 and not (_is_count(workers) and workers <= MOST_WORKERS):
        yield Fault("data.num_workers", workers, f"must be a whole number, 0 or more, of at most {MOST_WORKERS}")


def _vocabulary_faults(data: Mapping[str, Any]) -> Iterator[Fault]:
    vocab_size = data.get("vocab_size")
    if data.get("tokenizer") is not None:
        rows = vocab_size if isinstance(vocab_size, int) else 0
        yield from tokenizer_faults(data["tokenizer"], rows, data.get("end_of_text"))
    elif data.get("end_of_text") not in (None, END_OF_TEXT):
        message = (
            f"names a token of data.tokenizer, which is null; a tokenizer that is trained ends texts in {END_OF_TEXT}"
        )
        yield Fault("data.end_of_text", data["end_of_text"], message)
    if data.get("tokenizer") is None and isinstance(vocab_size, int) and 1 <= vocab_size < SMALLEST_VOCABULARY:
        message = f"a byte-level tokenizer needs at least {SMALLEST_VOCABULARY}: 256 bytes and the end of text"
        yield Fault("model.vocab_size", vocab_size, message)


def _cache_faults(cache_dir: str | None, corpus_name: str) -> Iterator[Fault]:
    if cache_dir is None:
        return
    folder = Path(cache_dir).expanduser().absolute()
    if any(folder.glob(f"{corpus_name}-*/tokenizer.json")):
        return  # the cache may be read-only if it is filled
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        yield Fault("data.cache_dir", cache_dir, f"cannot be created, because {folder} is a file")
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield Fault("data.cache_dir", cache_dir, f"cannot be written: no permission for {folder}; name another folder")


def _length_faults(data: Mapping[str, Any], corpus: Corpus) -> Iterator[Fault]:
    size = corpus.size_bytes()
    needed = tokens_needed(data["batch_size"], data["seq_len"])
    # A byte makes at most one token and a document's end one more, so this refuses no corpus that is long enough.
    if size is not None and size + len(getattr(corpus, "files", ())) < 2 * needed:
        message = (
            f"holds {size} bytes of text, but one batch for training and one for validation need {2 * needed} tokens "
            f"(data.batch_size={data['batch_size']} x data.seq_len={data['seq_len']} + 1, twice): give more text, or "
            "lower data.batch_size or data.seq_len"
        )
        yield Fault(corpus.key, corpus.value, message)
