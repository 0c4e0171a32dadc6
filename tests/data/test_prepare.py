"""A corpus is prepared once, also by several processes at the same time, and however one of them ends."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from project.data.corpus import CorpusError, Document
from project.data.prepare import PreparedCorpus, prepare
from project.data.text import TextCorpus
from project.data.tokenizer import train_tokenizer

# Not forked: the tokenizer of this process may have threads by now.
spawn = multiprocessing.get_context("spawn")


class CountingCorpus(TextCorpus):
    """A corpus that appends a line to a file whenever its documents are read."""

    def documents(self) -> Iterator[Document]:
        with open(os.environ["READS"], "a") as reads:
            reads.write(f"{os.getpid()}\n")
        yield from super().documents()


class StuckCorpus(TextCorpus):
    """A corpus that waits forever after its tenth document."""

    def documents(self) -> Iterator[Document]:
        for number, document in enumerate(super().documents()):
            if number == 10:
                Path(os.environ["READS"]).touch()
                time.sleep(600)
            yield document


def prepare_counted(pattern: str, cache: str, start: Any) -> None:
    start.wait()
    prepare(CountingCorpus(pattern), cache_dir=cache, vocab_size=300)


def prepare_stuck(pattern: str, cache: str) -> None:
    prepare(StuckCorpus(pattern), cache_dir=cache, vocab_size=300)


def prepared(pattern: object, cache: Path, **options: Any) -> PreparedCorpus:
    return prepare(TextCorpus(str(pattern)), cache_dir=cache, **({"vocab_size": 300} | options))


def documents(corpus: PreparedCorpus, split: str) -> set[str]:
    """The documents, decoded from the token file."""
    tokenizer = Tokenizer.from_file(str(corpus.tokenizer_file))
    file = getattr(corpus, split)
    bounds = zip(file.document_offsets[:-1], file.document_offsets[1:], strict=True)
    return {tokenizer.decode(file.tokens[a:b].tolist(), skip_special_tokens=False) for a, b in bounds}


def test_every_document_is_in_one_split_and_ends_in_the_end_of_text(text_files: Path, tmp_path: Path) -> None:
    corpus = prepared(text_files / "*.txt", tmp_path / "cache", val_fraction=0.2)
    train, val = documents(corpus, "train"), documents(corpus, "val")
    assert train | val == {path.read_text() + "<|endoftext|>" for path in text_files.iterdir()}
    assert not train & val
    assert 4 <= len(val) <= 20
    assert (corpus.train_documents, corpus.val_documents) == (len(train), len(val))
    assert corpus.vocab_size <= 300


def test_preparing_a_second_time_reads_nothing(
    text_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepared(text_files / "*.txt", tmp_path / "cache")
    monkeypatch.setattr(TextCorpus, "documents", None)
    assert prepared(text_files / "*.txt", tmp_path / "cache") == first


def test_each_setting_that_shapes_the_tokens_has_a_cache_folder_of_its_own(text_files: Path, tmp_path: Path) -> None:
    pattern, cache = text_files / "*.txt", tmp_path / "cache"
    folders = [prepared(pattern, cache).folder]
    folders.append(prepared(pattern, cache, vocab_size=310).folder)
    folders.append(prepared(pattern, cache, val_fraction=0.3).folder)
    (text_files / "00.txt").write_text("changed")
    folders.append(prepared(pattern, cache).folder)
    assert len(set(folders)) == 4


def test_a_corpus_of_one_file_is_split_at_its_end(tmp_path: Path, text_files: Path) -> None:
    text = "".join(path.read_text() for path in sorted(text_files.iterdir()))
    (tmp_path / "all.txt").write_text(text)
    corpus = prepared(tmp_path / "all.txt", tmp_path / "cache", val_fraction=0.1)
    assert corpus.val_tokens == int(0.1 * (corpus.train_tokens + corpus.val_tokens))
    (train,), (val,) = documents(corpus, "train"), documents(corpus, "val")
    assert train + val == text + "<|endoftext|>"


def test_long_documents_are_encoded_in_sections_and_stay_whole(
    text_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("project.data.tokenize_corpus.SECTION_CHARACTERS", 50)
    monkeypatch.setattr("project.data.tokenize_corpus.BATCH_CHARACTERS", 333)
    corpus = prepared(text_files / "*.txt", tmp_path / "cache", val_fraction=0.2)
    texts = documents(corpus, "train") | documents(corpus, "val")
    assert texts == {path.read_text() + "<|endoftext|>" for path in text_files.iterdir()}


def test_preparing_uses_a_given_tokenizer_which_must_fit(text_files: Path, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["of another corpus " * 20], 270)
    path = str(tmp_path / "tokenizer.json")
    tokenizer.save(path)
    corpus = prepared(text_files / "*.txt", tmp_path / "cache", tokenizer=path)
    assert Tokenizer.from_file(str(corpus.tokenizer_file)).get_vocab() == tokenizer.get_vocab()
    with pytest.raises(CorpusError, match=r"data.tokenizer=.*model.vocab_size=260"):
        prepared(text_files / "*.txt", tmp_path / "cache", tokenizer=path, vocab_size=260)


def test_processes_that_start_at_once_prepare_the_data_once(
    text_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("READS", str(tmp_path / "reads"))
    start = spawn.Event()
    arguments = (str(text_files / "*.txt"), str(tmp_path / "cache"), start)
    processes = [spawn.Process(target=prepare_counted, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    # Once for the tokenizer and once for the tokens, by the same process.
    reads = (tmp_path / "reads").read_text().split()
    assert len(reads) == 2
    assert len(set(reads)) == 1


def test_preparing_that_is_killed_leaves_nothing_broken(
    text_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, cache = tmp_path / "reads", tmp_path / "cache"
    monkeypatch.setenv("READS", str(reads))
    process = spawn.Process(target=prepare_stuck, args=(str(text_files / "*.txt"), str(cache)))
    process.start()
    deadline = time.monotonic() + 60
    while not reads.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert list(cache.glob("*.partial-*"))
    assert prepared(text_files / "*.txt", cache).train_tokens > 0
    assert not list(cache.glob("*.partial-*"))


DAMAGE = {
    "cut": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "ones": lambda content: b"\xff" * len(content),
    "one bit": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
}
"""Damage as a crash of the machine leaves it in a file that was not flushed, and as a failing disk does."""


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize(
    "name",
    [
        *("train/tokens.bin", "val/tokens.bin", "train/documents.bin"),
        *("train/header.json", "tokenizer.json", "tokenizer_config.json", "checksums.json"),
    ],
)
def test_a_damaged_data_cache_is_made_again(name: str, damage, text_files: Path, tmp_path: Path) -> None:
    first = prepared(text_files / "*.txt", tmp_path / "cache")
    file = first.folder / name
    sound = file.read_bytes()
    file.write_bytes(damage(sound))
    with pytest.warns(UserWarning, match="a prepared corpus is damaged and made again"):
        assert prepared(text_files / "*.txt", tmp_path / "cache") == first
    assert file.read_bytes() == sound


def swapped(first: Path, second: Path) -> None:
    first.rename(aside := first.with_name("aside"))
    second.rename(first)
    aside.rename(second)


@pytest.mark.parametrize("what", ["the caches of two corpora", "training and validation", "a sound other tokenizer"])
def test_what_belongs_to_another_cache_is_not_trained_on(what: str, text_files: Path, tmp_path: Path) -> None:
    def tokens() -> list[int]:
        return prepared(text_files / "*.txt", tmp_path / "cache").train.tokens.tolist()

    (tmp_path / "other.txt").write_text("another text, of as many words as are needed\n" * 200)
    first, sound = prepared(text_files / "*.txt", tmp_path / "cache"), tokens()
    other = prepared(tmp_path / "other.txt", tmp_path / "cache")
    written = first.tokenizer_file.read_text()
    if "caches" in what:
        swapped(first.folder, other.folder)
    elif "training" in what:
        swapped(first.folder / "train", first.folder / "val")
    else:
        content = json.loads(written)
        vocabulary = content["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
        first.tokenizer_file.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="a prepared corpus is damaged and made again"):
        assert tokens() == sound
    assert first.tokenizer_file.read_text() == written


@pytest.mark.parametrize("content", ["", "{}", "no json"])
def test_a_cache_whose_tokenizer_is_none_is_made_again(content: str, text_files: Path, tmp_path: Path) -> None:
    first = prepared(text_files / "*.txt", tmp_path / "cache")
    sound = first.tokenizer_file.read_text()
    first.tokenizer_file.write_text(content)
    with pytest.warns(UserWarning, match="a prepared corpus is damaged and made again"):
        prepared(text_files / "*.txt", tmp_path / "cache")
    assert first.tokenizer_file.read_text() == sound


def test_texts_end_in_the_token_that_is_named_and_the_cache_says_which(text_files: Path, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["of another corpus " * 20], 270)
    tokenizer.add_special_tokens(["<|stop|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    corpus = prepared(
        text_files / "*.txt",
        tmp_path / "cache",
        tokenizer=str(tmp_path / "tokenizer.json"),
        end_of_text="<|stop|>",
        val_fraction=0.2,
    )
    assert all(text.endswith("<|stop|>") for text in documents(corpus, "train"))
    assert json.loads((corpus.folder / "tokenizer_config.json").read_text()) == {"eos_token": "<|stop|>"}


def test_preparing_that_fails_leaves_nothing(text_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("project.data.tokenize_corpus.TokenFileWriter", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepared(text_files / "*.txt", tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]


def test_a_data_cache_that_cannot_be_written_is_a_fault_of_the_config(text_files: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CorpusError, match=r"data\.cache_dir"):
        prepared(text_files / "*.txt", tmp_path / "file" / "cache")


def test_preparing_shows_no_progress_where_nobody_watches(
    text_files: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prepared(text_files / "*.txt", tmp_path / "cache")
    assert capfd.readouterr() == ("", "")
