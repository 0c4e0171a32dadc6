"""Prepares a corpus: writes its token files once, into a cache folder that many processes and runs share.

The folder's name holds a fingerprint of everything that determines its content. The folder is written under another
name beside it and renamed when complete, so that a reader never sees an incomplete one, and a killed process leaves
only a partial folder, which the next one removes. A file lock, which the kernel releases when its holder dies, lets one
process do the work.
"""

import hashlib
import json
import logging
import os
import shutil
import time
import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from project.data.chat_template import template_source, template_tokens
from project.data.corpus import Corpus, CorpusError
from project.data.token_file import VERSION, TokenFile, checksum_of
from project.data.tokenizer import (
    END_OF_TEXT,
    TOKENIZER,
    TOKENIZER_CONFIG,
    ending,
    knows_all_characters,
    open_tokenizer,
    tokenizer_faults,
)
from project.run_folder import sync
from project.spec.disk import space_left
from project.spec.fault import Fault
from project.spec.untrusted import as_mapping, read_json, regular

CHECKSUMS = "checksums.json"
SEALED = (TOKENIZER, TOKENIZER_CONFIG, "train/header.json", "val/header.json")
"""The files whose checksums are in `CHECKSUMS`; headers hold those of the others."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedCorpus:
    """A corpus as tokens. `vocab_size` is the number of the tokenizer's entries, at most that of the embedding's
    rows."""

    folder: Path
    vocab_size: int
    train_tokens: int
    val_tokens: int
    train_documents: int
    val_documents: int

    @property
    def tokenizer_file(self) -> Path:
        return self.folder / TOKENIZER

    @property
    def train(self) -> TokenFile:
        return TokenFile(self.folder / "train")

    @property
    def val(self) -> TokenFile:
        return TokenFile(self.folder / "val")


def prepare(
    corpus: Corpus,
    *,
    cache_dir: str | Path,
    vocab_size: int,
    tokenizer: str | None = None,
    end_of_text: str | None = None,
    val_fraction: float = 0.05,
    show_progress: bool = True,
) -> PreparedCorpus:
    """Tokenizes `corpus`, unless the cache has it; then this reads the tokens once to compare their checksums, and
    needs no permission to write.

    `vocab_size` is the largest number of tokens; `tokenizer` is the path of a `tokenizer.json`, without which one is
    trained on the training documents. Texts end in the token `end_of_text`, or in the one that the files beside the
    tokenizer name.

    Raises:
        CorpusError: for what the user has to mend.
    """
    _refuse(tokenizer_faults(tokenizer, vocab_size, end_of_text) if tokenizer else [])
    end = END_OF_TEXT
    if tokenizer:
        opened = open_tokenizer(Path(tokenizer))
        _, end = ending(opened, Path(tokenizer).expanduser().parent, end_of_text)
        if not knows_all_characters(opened):
            left_out = "leaves out characters that it has no token for, so that texts lose them"
            warnings.warn(f"data.tokenizer={tokenizer}: {left_out}", stacklevel=2)
    fingerprint = _fingerprint(corpus, vocab_size, tokenizer, end, val_fraction)
    cache = Path(cache_dir).expanduser()
    folder = cache / f"{corpus.name}-{fingerprint[:16]}"
    if (prepared := _open(folder, fingerprint)) is not None:
        return prepared
    _refuse(corpus.faults())
    with _lock(folder, str(cache_dir)):
        if (prepared := _open(folder, fingerprint)) is None:  # else another process made it while this one waited
            _remove_leftovers(folder)
            started = time.monotonic()
            try:
                _write(corpus, folder, fingerprint, vocab_size, tokenizer, end, val_fraction, show_progress)
            except OSError as error:  # what is read has faults of its own
                reason = f"cannot be written: {error.strerror or error}{space_left(folder)}; name another folder"
                raise CorpusError(Fault("data.cache_dir", str(cache_dir), reason)) from None
            log.info("prepared %s in %.1f s: %s", corpus.name, time.monotonic() - started, folder)
            prepared = _open(folder, fingerprint)
    assert prepared is not None
    return prepared


def _refuse(faults: list[Fault]) -> None:
    if faults:
        raise CorpusError(faults[0])


def _lock(folder: Path, cache_dir: str) -> AbstractContextManager[Any]:
    """The lock of `folder`, held when it is returned. Its file lies beside the folder, because the folder is
    renamed."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(folder.with_name(f"{folder.name}.lock")).acquire()
    except OSError as error:
        message = f"cannot be written: {error.strerror or error}; name another folder"
        raise CorpusError(Fault("data.cache_dir", cache_dir, message)) from error


def _fingerprint(corpus: Corpus, vocab_size: int, tokenizer: str | None, end: str, val_fraction: float) -> str:
    given = None
    if tokenizer:
        file = Path(tokenizer).expanduser()
        given = [hashlib.sha256(file.read_bytes()).hexdigest(), end]
        if template := template_source(file.parent):
            given += [*template, *template_tokens(file.parent).values()]
    content = {
        "version": VERSION,
        "corpus": corpus.identity(),
        # The tokens of a given tokenizer do not depend on the number of embedding rows.
        "tokenizer": given or {"byte_level_bpe": vocab_size},
        "val_fraction": val_fraction,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _open(folder: Path, fingerprint: str) -> PreparedCorpus | None:
    """The prepared corpus in `folder`, or None if it is absent or, with a warning, if it is damaged (by a crash of the
    machine, for instance) or another's."""
    if not folder.exists():
        return None
    try:
        written, found = as_mapping(folder / CHECKSUMS, read_json(folder / CHECKSUMS)), _seal(folder, fingerprint)
        if different := [name for name in found if written.get(name) != found[name]]:
            raise ValueError(f"{folder}: {different[0]} is not what was written here")
        train, val = TokenFile(folder / "train"), TokenFile(folder / "val")
        train.verify()
        val.verify()
        rows = max(open_tokenizer(folder / TOKENIZER).get_vocab().values()) + 1
        if rows != train.vocab_size:
            raise ValueError(f"{folder / TOKENIZER}: not the tokenizer of these tokens")
    except (FileNotFoundError, ValueError) as error:
        warnings.warn(f"a prepared corpus is damaged and made again: {error}", stacklevel=3)
        return None
    except OSError as error:  # a disk or a mount that does not answer is no damage: others may be reading there
        reason = f"cannot be read: {error.strerror or error}"
        raise CorpusError(Fault("data.cache_dir", str(folder), reason)) from error
    return PreparedCorpus(
        folder, train.vocab_size, train.num_tokens, val.num_tokens, train.num_documents, val.num_documents
    )


def _seal(folder: Path, fingerprint: str) -> dict[str, str]:
    """The content of `CHECKSUMS`. Raises Unreadable if one of the files is not there."""
    return {"fingerprint": fingerprint} | {name: checksum_of(regular(folder / name)) for name in SEALED}


def _remove_leftovers(folder: Path) -> None:
    """Removes the partial folders of killed processes, and a damaged folder. The caller has to hold the lock."""
    for leftover in (*folder.parent.glob(f"{folder.name}.partial-*"), folder):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _write(
    corpus: Corpus,
    folder: Path,
    fingerprint: str,
    vocab_size: int,
    tokenizer: str | None,
    end: str,
    val_fraction: float,
    show_progress: bool,
) -> None:
    from project.data.tokenize_corpus import PreparationProgress, obtain_tokenizer, write_token_files

    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    partial.mkdir()
    try:
        with PreparationProgress(show_progress, corpus.size_bytes()) as progress:
            made = obtain_tokenizer(corpus, progress, vocab_size, tokenizer, val_fraction)
            (partial / TOKENIZER).write_text(made.to_str(pretty=True), encoding="utf-8")
            (partial / TOKENIZER_CONFIG).write_text(json.dumps({"eos_token": end}) + "\n", encoding="utf-8")
            beside = Path(tokenizer).expanduser().parent if tokenizer else None
            write_token_files(corpus, progress, made, partial, fingerprint, val_fraction, end, beside)
        (partial / CHECKSUMS).write_text(json.dumps(_seal(partial, fingerprint), indent=1) + "\n", encoding="utf-8")
        for path in (*partial.rglob("*"), partial):
            sync(path)  # before the rename, because after a crash a file system may have the new name without content
        partial.rename(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # absent after a success
