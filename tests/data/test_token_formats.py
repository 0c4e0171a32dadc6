"""Data that are tokens or conversations already: Megatron's, nanoGPT's and llm.c's files, `input_ids`, `messages`."""

import json
import os
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from project.data.corpus import CorpusError
from project.data.prepare import PreparedCorpus, prepare
from project.data.text import TextCorpus
from project.data.tokenizer import train_tokenizer

DOCUMENTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13]] * 40
END = 0
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{{ eos_token }}"


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    train_tokenizer(["alpha beta gamma"], 300).save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def prepared(tmp_path: Path, files: list[Path], tokenizer: Path | None, text_key: str = "text") -> PreparedCorpus:
    return prepare(
        TextCorpus([str(file) for file in files], text_key),
        cache_dir=tmp_path / "cache",
        vocab_size=400,
        tokenizer=tokenizer and str(tokenizer),
        val_fraction=0.1,
        show_progress=False,
    )


def documents_of(corpus: PreparedCorpus) -> list[list[int]]:
    """All documents, sorted: which split has one is chosen by its name."""
    found = []
    for file in (corpus.train, corpus.val):
        offsets = file.document_offsets.tolist()
        found += [file.tokens[a:b].tolist() for a, b in pairwise(offsets)]
    return sorted(found)


def megatron(path: Path, documents: list[list[int]], dtype: str = "<u2", sequences_each: int = 1) -> None:
    """As Megatron's `IndexedDatasetBuilder` writes them; a document may be several sequences."""
    sequences, ends = [], [0]
    for document in documents:
        sequences += [part.tolist() for part in np.array_split(document, sequences_each)]
        ends.append(len(sequences))
    flat = np.array([token for sequence in sequences for token in sequence], dtype)
    path.write_bytes(flat.tobytes())
    sizes = np.array([len(sequence) for sequence in sequences], "<i4")
    places = (np.concatenate(([0], np.cumsum(sizes)[:-1])) * flat.itemsize).astype("<i8")
    code = {"<i4": 4, "<u2": 8}[dtype]
    head = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, len(sequences), len(ends))
    index = head + sizes.tobytes() + places.tobytes() + np.array(ends, "<i8").tobytes()
    path.with_suffix(".idx").write_bytes(index)


@pytest.mark.parametrize(("dtype", "sequences_each"), [("<u2", 1), ("<i4", 1), ("<i4", 2)])
@pytest.mark.parametrize("named", [("a.bin",), ("a.idx",), ("a.bin", "a.idx")])
def test_megatron_s_documents_are_taken_as_they_are(
    tmp_path: Path, tokenizer: Path, dtype: str, sequences_each: int, named: tuple[str, ...]
) -> None:
    megatron(tmp_path / "a.bin", DOCUMENTS, dtype, sequences_each)
    found = prepared(tmp_path, [tmp_path / name for name in named], tokenizer)
    assert found.train_documents + found.val_documents == len(DOCUMENTS)
    assert documents_of(found) == sorted([*document, END] for document in DOCUMENTS)


def test_a_document_that_ends_already_is_not_ended_twice(tmp_path: Path, tokenizer: Path) -> None:
    megatron(tmp_path / "a.bin", [[*document, END] for document in DOCUMENTS])
    assert documents_of(prepared(tmp_path, [tmp_path / "a.bin"], tokenizer)) == sorted([*d, END] for d in DOCUMENTS)


def test_names_in_capitals_are_the_same_and_a_change_of_either_file_is_another_corpus(
    tmp_path: Path, tokenizer: Path
) -> None:
    file, index = tmp_path / "A.BIN", tmp_path / "A.IDX"
    megatron(tmp_path / "a.bin", DOCUMENTS)
    (tmp_path / "a.bin").rename(file)
    (tmp_path / "a.idx").rename(index)
    assert documents_of(prepared(tmp_path, [file, index], tokenizer)) == sorted([*d, END] for d in DOCUMENTS)
    for changed in (file, index):
        for named in (file, index):
            before = TextCorpus([str(named)]).identity()
            os.utime(changed, (len(named.name), changed.stat().st_mtime + 1))
            assert TextCorpus([str(named)]).identity() != before


@pytest.mark.parametrize("form", ["<u2", "<u4", "llm.c"])
def test_a_stream_of_tokens_is_one_document(tmp_path: Path, tokenizer: Path, form: str) -> None:
    stream = [token for document in DOCUMENTS for token in (*document, 255)]
    head = np.zeros(256, "<i4")
    head[:3] = 20240520, 1, len(stream)
    content = np.array(stream, "<u2" if form == "llm.c" else form).tobytes()
    (tmp_path / "train.bin").write_bytes((head.tobytes() if form == "llm.c" else b"") + content)
    found = prepared(tmp_path, [tmp_path / "train.bin"], tokenizer)
    assert [*found.train.tokens.tolist(), *found.val.tokens.tolist()] == [*stream, END]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_column_of_ids_is_taken_as_it_is(tmp_path: Path, tokenizer: Path, kind: str) -> None:
    file = tmp_path / f"a.{kind}"
    if kind == "jsonl":
        file.write_text("".join(json.dumps({"input_ids": document}) + "\n" for document in DOCUMENTS))
    else:
        parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is optional")
        parquet.write_table(pytest.importorskip("pyarrow").table({"input_ids": DOCUMENTS}), file)
    found = documents_of(prepared(tmp_path, [file], tokenizer, "input_ids"))
    assert found == sorted([*document, END] for document in DOCUMENTS)


def conversations(file: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"alpha {n}"}, {"role": "assistant", "content": "beta"}]}
        for n in range(60)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.jinja"])
def test_messages_are_text_by_the_chat_template(tmp_path: Path, tokenizer: Path, place: str) -> None:
    config: dict[str, Any] = {"eos_token": "<|endoftext|>"}
    if place == "chat_template.jinja":
        (tokenizer.parent / place).write_text(TEMPLATE)
    else:
        config["chat_template"] = [{"name": "default", "template": TEMPLATE}]
    (tokenizer.parent / "tokenizer_config.json").write_text(json.dumps(config))
    conversations(tmp_path / "chat.jsonl")
    found = prepared(tmp_path, [tmp_path / "chat.jsonl"], tokenizer, "messages")
    from project.data.tokenizer import open_tokenizer

    decoded = open_tokenizer(tokenizer).decode(found.train.tokens.tolist(), skip_special_tokens=False)
    assert decoded.startswith("<user>alpha 0<assistant>beta<|endoftext|>")


def hostile(tmp_path: Path, kind: str) -> tuple[Path, str]:
    """A file, and its text key."""
    file = tmp_path / "a.bin"
    match kind:
        case "beyond the vocabulary":
            megatron(file, [[5, 399, 6]])
        case "index cut off":
            megatron(file, DOCUMENTS)
            file.with_suffix(".idx").write_bytes(file.with_suffix(".idx").read_bytes()[:60])
        case "tokens cut off":
            megatron(file, DOCUMENTS)
            file.write_bytes(file.read_bytes()[:20])
        case "another index":
            file.write_bytes(b"\1\0")
            file.with_suffix(".idx").write_bytes(b"PK\3\4" + bytes(60))
        case "an index alone":
            megatron(file, DOCUMENTS)
            file.unlink()
            file = file.with_suffix(".idx")
        case "an index of other tokens":
            megatron(file, DOCUMENTS)
            file.write_bytes(file.read_bytes() + b"\1\0")
        case "places between tokens":
            megatron(file, DOCUMENTS)
            index = bytearray(file.with_suffix(".idx").read_bytes())
            index[34 + 4 * len(DOCUMENTS) + 8] += 1  # that of the second sequence
            file.with_suffix(".idx").write_bytes(index)
        case "a header of more tokens":
            header = np.zeros(256, "<i4")
            header[:3] = 20240520, 1, 50
            file.write_bytes(header.tobytes() + np.arange(1, 41, dtype="<u2").tobytes())
        case "a text":
            file.write_text("A text that lies within the numbers of two bytes. " * 4)
        case "an archive":
            file.write_bytes(b"PK\3\4" + bytes(60))
        case "a compressed file":
            (file := tmp_path / "a.bin.gz").write_bytes(b"\x1f\x8b" + bytes(60))
        case "an odd number of bytes":
            file.write_bytes(b"\1\0\2")
        case "no template":
            conversations(file := tmp_path / "chat.jsonl")
            return file, "messages"
        case "a negative id":
            (file := tmp_path / "a.jsonl").write_text('{"input_ids": [4, -1]}\n')
            return file, "input_ids"
    return file, "text"


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("beyond the vocabulary", "has the token 399, where data.tokenizer has"),
        ("index cut off", "has a.idx beside it, which is cut off"),
        ("tokens cut off", "it is cut off"),
        ("another index", "does not begin as Megatron's index does"),
        ("an index alone", "is an index without a.bin beside it"),
        ("an index of other tokens", "are not those that a.idx speaks of"),
        ("places between tokens", "are not those that a.idx speaks of"),
        ("a header of more tokens", "has 40 tokens, and its header speaks of 50"),
        ("a text", "holds no tokens, but text"),
        ("an archive", "holds no tokens, but is a ZIP archive"),
        ("a compressed file", "is compressed, and tokens are mapped from their file; unpack it"),
        ("an odd number of bytes", "has an odd number of bytes"),
        ("no template", "needs a chat template to be text"),
        ("a negative id", "which must be a text, messages or tokens"),
    ],
)
def test_what_is_no_such_file_is_named(tmp_path: Path, tokenizer: Path, kind: str, said: str) -> None:
    file, text_key = hostile(tmp_path, kind)
    with pytest.raises(CorpusError, match=said):
        prepared(tmp_path, [file], tokenizer, text_key)


@pytest.mark.parametrize("text_key", ["input_ids", "messages"])
def test_tokens_and_messages_without_their_tokenizer_are_refused(tmp_path: Path, text_key: str) -> None:
    file = tmp_path / "a.jsonl"
    if text_key == "messages":
        conversations(file)
    else:
        file.write_text("".join(json.dumps({"input_ids": document}) + "\n" for document in DOCUMENTS))
    with pytest.raises(CorpusError, match="to their tokenizer alone; give"):
        prepared(tmp_path, [file], None, text_key)


def test_a_special_token_that_the_template_writes_is_part_of_the_corpus_s_identity(
    tmp_path: Path, tokenizer: Path
) -> None:
    conversations(file := tmp_path / "chat.jsonl")
    (tokenizer.parent / "chat_template.jinja").write_text("{{ bos_token }}" + TEMPLATE)
    found = []
    for begin in ("alpha", "gamma"):
        (tokenizer.parent / "tokenizer_config.json").write_text(json.dumps({"bos_token": begin}))
        found.append(documents_of(prepared(tmp_path, [file], tokenizer, "messages")))
    assert found[0] != found[1]


def test_a_template_that_refuses_or_escapes_is_an_error_with_its_words(tmp_path: Path, tokenizer: Path) -> None:
    conversations(tmp_path / "chat.jsonl")
    for template, said in (
        ("{{ raise_exception('no system role') }}", "no system role"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{% for %}", "cannot be read"),
    ):
        (tokenizer.parent / "chat_template.jinja").write_text(template)
        with pytest.raises(CorpusError, match=said):
            prepared(tmp_path, [tmp_path / "chat.jsonl"], tokenizer, "messages")
