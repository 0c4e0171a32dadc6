"""Plain text is a document a file; JSON lines and Parquet are a document a row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from project.data.corpus import CorpusError
from project.data.text import TextCorpus


def texts(corpus: TextCorpus) -> list[str]:
    return [document.text for document in corpus.documents()]


def test_globs_of_text_files_reach_into_folders_and_count_no_file_twice(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.txt").write_text("b")
    (tmp_path / "a.md").write_text("a")
    corpus = TextCorpus([str(tmp_path / "**" / "*"), str(tmp_path / "a.md")])
    assert texts(corpus) == ["a", "b"]


def test_text_file_names_with_brackets_are_taken_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "notes[1].txt").write_text("bracketed")
    assert texts(TextCorpus(str(tmp_path / "notes[1].txt"))) == ["bracketed"]


def test_document_names_do_not_depend_on_where_the_corpus_lies(tmp_path: Path) -> None:
    names = []
    for place in ("here", "there"):
        (tmp_path / place / "sub").mkdir(parents=True)
        (tmp_path / place / "sub" / "a.txt").write_text("a")
        (tmp_path / place / "b.txt").write_text("b")
        names.append([document.id for document in TextCorpus(str(tmp_path / place / "**" / "*.txt")).documents()])
    assert names[0] == names[1]


def test_a_byte_order_mark_is_left_out_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfabc")
    assert texts(TextCorpus(str(tmp_path / "a.txt"))) == ["abc"]


def test_lines_of_a_jsonl_file_are_documents(tmp_path: Path) -> None:
    rows = ["first", "second\nof two lines", ""]
    content = "\n\n".join(json.dumps({"body": row, "n": 1}) for row in rows)
    (tmp_path / "a.jsonl").write_text(content)
    assert texts(TextCorpus(str(tmp_path / "a.jsonl"), text_key="body")) == rows[:2]


def test_rows_of_a_parquet_file_are_documents(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra 'hf' is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra 'hf' is not installed")
    table = pyarrow.table({"body": ["first", None, "second"], "n": [1, 2, 3]})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert texts(TextCorpus(str(tmp_path / "a.parquet"), text_key="body")) == ["first", "second"]
    (fault,) = TextCorpus(str(tmp_path / "a.parquet")).faults()
    assert "it has ['body', 'n']" in fault.message


def test_a_file_that_is_no_parquet_is_a_fault(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the extra 'hf' is not installed")
    (tmp_path / "a.parquet").write_text("no table")
    (fault,) = TextCorpus(str(tmp_path / "a.parquet")).faults()
    assert "is not Parquet" in fault.message


def test_reading_a_text_corpus_stops_at_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"data.files=.*absent.txt: does not exist"):
        texts(TextCorpus(str(tmp_path / "absent.txt")))
