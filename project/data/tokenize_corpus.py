"""Tokenizes a corpus: trains a tokenizer on a sample, then encodes every document into one of two token files, for
training or for validation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy.typing as npt

from project.data.chat_template import ChatTemplate, NoConversation
from project.data.corpus import Corpus, CorpusError, Document
from project.data.token_file import TokenFileWriter
from project.data.tokenizer import END_OF_TEXT, open_tokenizer, train_tokenizer
from project.spec.fault import Fault

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# More text hardly changes a vocabulary of thousands of tokens, and the statistics of a sample have to fit into memory.
SAMPLE_BYTES = 32 * 2**20
# Long documents are encoded in sections, to bound the memory and so that several threads share one document.
SECTION_CHARACTERS = 2**18
BATCH_CHARACTERS = 2**21
PIECE_TOKENS = 2**22


def obtain_tokenizer(
    corpus: Corpus, progress: PreparationProgress, vocab_size: int, path: str | None, val_fraction: float
) -> Tokenizer:
    """The tokenizer in the file `path`, or one trained on the training documents (on a sample of them if they are
    many)."""
    if path is not None:
        return open_tokenizer(Path(path))
    documents = only_texts(corpus, progress.watch("training the tokenizer", corpus.documents()))
    return train_tokenizer(_sample(documents, corpus.size_bytes(), val_fraction), vocab_size)


def only_texts(corpus: Corpus, documents: Iterable[Document]) -> Iterator[Document]:
    """Raises CorpusError for a document of tokens or of messages, which belong to a tokenizer that is there."""
    for document in documents:
        if document.tokens is not None or document.messages is not None:
            what = "tokens" if document.tokens is not None else "messages"
            reason = f"holds {what}, which mean something to their tokenizer alone; give data.tokenizer=PATH of it"
            raise CorpusError(Fault(corpus.key, document.id, reason))
        yield document


def write_token_files(
    corpus: Corpus,
    progress: PreparationProgress,
    tokenizer: Tokenizer,
    folder: Path,
    fingerprint: str,
    val_fraction: float,
    end_of_text: str = END_OF_TEXT,
    template_folder: Path | None = None,
) -> None:
    """Writes the token files `folder/train` and `folder/val`. Each document ends in the token `end_of_text`.
    Conversations become text by the chat template in `template_folder`.

    Raises:
        CorpusError: for a conversation without a template, or that it does not take, and for tokens beyond the
            vocabulary.
    """
    end = tokenizer.token_to_id(end_of_text)
    assert end is not None
    vocab_size = max(tokenizer.get_vocab().values()) + 1
    with (
        TokenFileWriter(folder / "train", vocab_size, fingerprint) as train,
        TokenFileWriter(folder / "val", vocab_size, fingerprint) as val,
    ):
        documents = as_texts(corpus, progress.watch("tokenizing", corpus.documents()), template_folder)
        for batch in _batches(documents):
            first = batch[0]
            if first.tokens is not None:
                split = val if is_validation(first.document, first.document_id, val_fraction) else train
                add_tokens(corpus, split, first, vocab_size, end)
                continue
            encodings = tokenizer.encode_batch_fast([section.text for section in batch], add_special_tokens=False)
            for section, encoding in zip(batch, encodings, strict=True):
                split = val if is_validation(section.document, section.document_id, val_fraction) else train
                split.add([*encoding.ids, end] if section.last else encoding.ids, starts_document=section.first)
        _even_out(train, val, val_fraction)
        train.close()
        val.close()


def as_texts(corpus: Corpus, documents: Iterable[Document], folder: Path | None) -> Iterator[Document]:
    """The documents, conversations written as texts. A template ends them itself, or the end of text does."""
    template: ChatTemplate | None = None
    for document in documents:
        if document.messages is not None:
            try:
                template = template or ChatTemplate(folder or Path())
                document = Document(document.id, template.render(document.messages))
            except NoConversation as error:
                raise CorpusError(Fault(corpus.key, document.id, str(error))) from None
        yield document


def add_tokens(corpus: Corpus, split: TokenFileWriter, section: _Section, vocab_size: int, end: int) -> None:
    """Adds a document of tokens, piece by piece, for it may be a file larger than memory; and one that ends it."""
    tokens = section.tokens
    assert tokens is not None
    for start in range(0, len(tokens), PIECE_TOKENS):
        piece = tokens[start : start + PIECE_TOKENS]
        if piece.min() < 0 or piece.max() >= vocab_size:
            wrong = piece.max() if piece.max() >= vocab_size else piece.min()
            reason = f"has the token {wrong}, where data.tokenizer has {vocab_size}: another made these tokens"
            raise CorpusError(Fault(corpus.key, section.document_id, reason))
        split.add(piece, starts_document=start == 0)
    if tokens[-1] != end:
        split.add([end], starts_document=False)


def _sample(documents: Iterator[Document], size: int | None, val_fraction: float) -> Iterator[str]:
    """Training text to train a tokenizer on: sections from all of the corpus if its size is known, else its start."""
    share = min(1.0, SAMPLE_BYTES / size) if size else 1.0
    taken = 0
    for index, document in enumerate(documents):
        if taken >= SAMPLE_BYTES:
            return
        if is_validation(index, document.id, val_fraction):
            continue
        for number, section in enumerate(_sections(document.text)):
            if share == 1.0 or unit_hash("sample", document.id, str(number)) < share:
                taken += len(section)
                yield section


def _sections(text: str) -> Iterator[str]:
    """Splits `text` into pieces of at most `SECTION_CHARACTERS`, which end at the end of a line if there is one."""
    start = 0
    while len(text) - start > SECTION_CHARACTERS:
        cut = text.rfind("\n", start, start + SECTION_CHARACTERS) + 1
        end = cut if cut > start else start + SECTION_CHARACTERS
        yield text[start:end]
        start = end
    yield text[start:]


class _Section(NamedTuple):
    """A piece of a document."""

    document: int
    """The document's index in the corpus."""
    document_id: str
    text: str
    first: bool
    last: bool
    tokens: npt.NDArray[Any] | None = None


def _batches(documents: Iterator[Document]) -> Iterator[list[_Section]]:
    """Batches of sections, each large enough to keep every thread busy."""
    batch: list[_Section] = []
    characters = 0
    for index, document in enumerate(documents):
        if document.tokens is not None:
            if batch:
                yield batch
            batch, characters = [], 0
            yield [_Section(index, document.id, "", first=True, last=True, tokens=document.tokens)]
            continue
        texts = list(_sections(document.text))
        for number, text in enumerate(texts):
            batch.append(_Section(index, document.id, text, first=number == 0, last=number == len(texts) - 1))
            characters += len(text)
            if characters >= BATCH_CHARACTERS:
                yield batch
                batch, characters = [], 0
    if batch:
        yield batch


def _even_out(train: TokenFileWriter, val: TokenFileWriter, val_fraction: float) -> None:
    """Moves the end of the larger split to the smaller one where few or uneven documents, such as one single file,
    leave the split by name far from `val_fraction`."""
    total = train.num_tokens + val.num_tokens
    wanted = int(total * val_fraction)
    if val.num_tokens < wanted // 2:
        val.add(train.cut_tail(wanted - val.num_tokens))
    elif val.num_tokens > 2 * wanted and train.num_tokens < total // 2:
        train.add(val.cut_tail(val.num_tokens - wanted))


def unit_hash(*parts: str) -> float:
    """A number in [0, 1) that depends on `parts` alone. Python's `hash` would differ from process to process."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def is_validation(index: int, document_id: str, val_fraction: float) -> bool:
    """True for a document that is held out for validation.

    Whole documents are held out, so that a model is not tested on the other half of a file that it was trained on. The
    choice is by name, so that adding files moves none of the others. The corpus's first document (`index` 0) is never
    held out, so that there is always something to train on.
    """
    return index > 0 and unit_hash("validation", document_id) < val_fraction


class PreparationProgress:
    """A bar on standard error that counts characters of text; silent unless `enabled` and standard error is a
    terminal."""

    def __init__(self, enabled: bool, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        self._total = total
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not (enabled and console.is_terminal),
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def watch(self, description: str, documents: Iterable[Document]) -> Iterator[Document]:
        """Yields the documents and advances the bar by their characters."""
        task = self._progress.add_task(description, total=self._total)
        for document in documents:
            yield document
            of_tokens = 0 if document.tokens is None else document.tokens.nbytes
            self._progress.advance(task, len(document.text) + of_tokens)
        # The total is in bytes, of which there are more than characters, or unknown: the bar ends full all the same.
        done = self._progress.tasks[task].completed
        self._progress.update(task, total=done, completed=done)
