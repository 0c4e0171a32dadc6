"""A file of the user's is read by its kind, and what is no text is refused by name and reason, never tokenized."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from project.data.corpus import CorpusError
from project.data.text import TextCorpus

ROWS = ["first", "second, with a comma", 'third "in quotes"\nof two lines']


def texts(*files: Path, text_key: str = "text") -> list[str]:
    return [document.text for document in TextCorpus([str(file) for file in files], text_key).documents()]


def refusal(file: Path) -> str:
    """The one reason that the check gives, which is that of reading too."""
    (fault,) = TextCorpus(str(file)).faults()
    with pytest.raises(CorpusError) as error:
        texts(file)
    assert error.value.fault == fault
    assert str(fault.value).startswith(str(file))
    return fault.message


def json_lines(rows: list[str]) -> bytes:
    return "\n".join(json.dumps({"text": row, "url": "x"}) for row in rows).encode()


def table(rows: list[str], delimiter: str = ",") -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([["id", "text"], *([n, row] for n, row in enumerate(rows))])
    return text.getvalue().encode()


RECORDS: dict[str, Callable[[list[str]], bytes]] = {
    "a.jsonl": json_lines,
    "a.JSONL": json_lines,
    "a.ndjson": json_lines,
    "a.json": json_lines,
    "a.txt": json_lines,
    "a": json_lines,
    "list.json": lambda rows: json.dumps([{"text": row} for row in rows]).encode(),
    "a.csv": table,
    "a.CSV": lambda rows: b"\xef\xbb\xbf" + table(rows),
    "a.tsv": lambda rows: table(rows, "\t"),
    "a.tab": lambda rows: table(rows, "\t"),
    "list.txt": lambda rows: json.dumps([{"text": row} for row in rows], indent=1).encode(),
    "mark.txt": lambda rows: b"\xef\xbb\xbf" + json_lines(rows),
    "after blanks.txt": lambda rows: b"\n" * 9 + json_lines(rows),
    "a.jsonl.gz": lambda rows: gzip.compress(json_lines(rows)),
    "a.csv.gz": lambda rows: gzip.compress(table(rows)),
}


@pytest.mark.parametrize("name", RECORDS)
def test_each_row_of_a_file_of_records_is_a_document(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(RECORDS[name](ROWS))
    assert texts(tmp_path / name) == ROWS
    assert TextCorpus(str(tmp_path / name)).faults() == []


def test_files_compressed_by_zstd_are_read(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra 'hf' is not installed")
    with pyarrow.output_stream(str(tmp_path / "a.jsonl.zst"), compression="zstd") as file:
        file.write(json_lines(ROWS))
    assert texts(tmp_path / "a.jsonl.zst") == ROWS


def test_a_text_that_is_one_json_object_is_prose_unless_its_name_says_json(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text('{"text": "kept as it stands"}\nand prose after it')
    assert texts(tmp_path / "a.md") == ['{"text": "kept as it stands"}\nand prose after it']
    (tmp_path / "a.json").write_text('{"text": "one document"}')
    assert texts(tmp_path / "a.json") == ["one document"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.txt"])
def test_records_without_the_text_key_are_refused_whatever_the_file_is_called(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b'{"body": "a"}\n{"body": "b"}\n')
    assert "has no text under data.text_key=text; it has ['body']" in refusal(tmp_path / name)


def test_a_row_of_null_is_an_empty_document_as_in_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{"text": null}\n')
    assert texts(tmp_path / "a.jsonl") == ["x"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1, "2"], "a list under data.text_key=text, which must be a text, messages or tokens"),
        ([{"role": "user", "said": "x"}], "a list under data.text_key=text, which must be a text, messages or tokens"),
        ({"a": 1}, "an object under data.text_key=text"),
        (3, "a number under data.text_key=text"),
        (True, "a truth value under data.text_key=text"),
    ],
)
def test_a_value_that_is_no_text_is_refused_by_its_row(value: object, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "x"}) + "\n" + json.dumps({"text": value}))
    (fault,) = TextCorpus(str(tmp_path / "a.jsonl")).faults()
    assert fault.value == f"{tmp_path / 'a.jsonl'}:2"
    assert reason in fault.message


@pytest.mark.parametrize("kind", ["struct", "int64", "binary", "list"])
def test_a_column_that_holds_no_strings_is_refused_by_its_type(kind: str, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra 'hf' is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra 'hf' is not installed")
    columns = {"struct": [{"a": "x"}], "int64": [1], "binary": [b"x"], "list": [["x"]]}
    parquet.write_table(pyarrow.table({"text": columns[kind]}), tmp_path / "a.parquet")
    assert f"has {kind}" in refusal(tmp_path / "a.parquet")


def test_halves_of_surrogate_pairs_are_joined_or_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"text": "half \\ud83d"}\n{"text": "whole \\ud83d\\ude00"}\n{"text": "\\ude00\\ud83d"}'
    )
    read = texts(tmp_path / "a.jsonl")
    assert read == ["half \ufffd", "whole \U0001f600", "\ufffd\ufffd"]
    assert all(text.encode("utf-8") for text in read)


NO_TEXT = {
    "tokens of two bytes": b"".join(number.to_bytes(2, "little") for number in range(1, 65)) * 50,
    "tokens of one byte": bytes(range(1, 65)) * 50,
    "UTF-16 without a mark": "plain English".encode("utf-16-le") * 50,
    "a NUL in a text": b"text\0text" * 3,
    "a program": b"\x7fELF\x02\x01\x01" + bytes(64),
}


@pytest.mark.parametrize("content", NO_TEXT.values(), ids=NO_TEXT)
@pytest.mark.parametrize("name", ["train.dat", "a.txt", "a.txt.gz"])
def test_bytes_that_happen_to_be_utf_8_and_are_no_text_are_refused(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert "no text (byte 0x" in refusal(tmp_path / name)


def test_a_stray_control_character_does_not_make_a_text_binary(tmp_path: Path) -> None:
    text = "a page of the web\x08 with one stray character\f\n" + "and more of it\n" * 100
    (tmp_path / "a.txt").write_text(text)
    assert texts(tmp_path / "a.txt") == [text]


def test_one_file_is_read_once_however_many_links_lead_to_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("once")
    (tmp_path / "b.txt").symlink_to("a.txt")
    os.link(tmp_path / "a.txt", tmp_path / "c.txt")
    (tmp_path / "folder").mkdir()
    (tmp_path / "again").symlink_to("folder")
    (tmp_path / "folder" / "d.txt").write_text("and once more")
    assert texts(tmp_path / "**" / "*.txt") == ["once", "and once more"]


def test_empty_files_among_others_are_no_fault_and_nothing_but_them_is_one(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.txt").touch()
    (fault,) = TextCorpus(str(tmp_path / "*.txt")).faults()
    assert "20 files, none of which holds any text" in fault.message
    (tmp_path / "full.txt").write_text("text")
    assert TextCorpus(str(tmp_path / "*.txt")).faults() == []


def zip_of(name: str) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, bytes(range(256)))
    return archive.getvalue()


def tar_of(content: bytes) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as file:
        entry = tarfile.TarInfo("a.txt")
        entry.size = len(content)
        file.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt.gz", b"no gzip", "is damaged, or not compressed as its name says"),
        ("a.txt.gz", gzip.compress(bytes(range(256)) * 9)[:-20], "is damaged, or not compressed as its name says"),
        ("a.txt.zst", b"no zstd", "is damaged, or not compressed as its name says"),
        ("a.csv", b"id,body\n1,x\n", "has no column data.text_key=text; it has ['id', 'body']"),
        ("a.json", b'{"text": ', "is not JSON"),
        ("a.json", b"[" * 100_000, "is not JSON"),
        ("a.json", b"[1, 2]", "is no object but a number"),
        ("utf16.txt", "text".encode("utf-16"), "is not UTF-8"),
        ("utf32.txt", "text".encode("utf-32"), "is not UTF-8, but UTF-32"),
        ("iso2022.txt", "漢字 in mail".encode("iso2022_jp"), "is ISO-2022, not UTF-8"),
        ("a.zip", zip_of("a.txt"), "is not UTF-8, but a ZIP archive; unpack it"),
        ("a.txt.bz2", bz2.compress(bytes(range(256))), "is not UTF-8, but compressed by bzip2"),
        ("a.tar", tar_of(bytes(range(256))), "is not UTF-8, but a tar archive; unpack it"),
        ("comma.csv", b"text\nhello, world\n", ":2: has 2 values, where the first row names 1; a text that holds ','"),
        ("short.csv", b"id,text\n1,one\n2\n", ":3: has 1 values, where the first row names 2"),
        ("quote.csv", b'text\n"not closed\nsecond\n', "is no table of values separated by ',': line 3"),
        ("quote.tsv", b'text\tn\n"Hello" he said\t1\n', "is no table of values separated by '\\t': line 2"),
        ("twice.csv", b"text,text\na,b\n", "has several columns data.text_key=text"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(
    name: str, content: bytes, reason: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    refusal(tmp_path / name)
    assert reason in str(TextCorpus(str(tmp_path / name)).faults()[0])


def test_a_pipe_and_a_name_that_no_file_can_have_are_refused_by_what_they_are(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    for path, reason in (
        (str(tmp_path / "a.txt"), "is a pipe or a device"),
        ("/dev/null", "is a pipe or a device"),
        ("a" * 5000, "does not exist"),
    ):
        (fault,) = TextCorpus(path).faults()
        assert reason in fault.message


@pytest.mark.parametrize("kind", ["bytes that are not UTF-8", "the column twice"])
def test_a_column_of_parquet_that_cannot_be_read_is_refused(kind: str, tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    if kind == "the column twice":
        table = pyarrow.Table.from_arrays([pyarrow.array(["x"]), pyarrow.array(["y"])], names=["text", "text"])
    else:
        ends, content = pyarrow.array([0, 2], pyarrow.int32()).buffers()[1], pyarrow.py_buffer(b"\xff\xfe")
        table = pyarrow.table({"text": pyarrow.Array.from_buffers(pyarrow.string(), 1, [None, ends, content])})
    parquet.write_table(table, tmp_path / "a.parquet")
    reason = "has several columns data.text_key=text" if "twice" in kind else "is not UTF-8 under data.text_key=text"
    assert reason in refusal(tmp_path / "a.parquet")
