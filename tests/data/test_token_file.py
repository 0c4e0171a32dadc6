"""A token file is read back as it was written, and an incomplete one is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from project.data.token_file import TokenFile, TokenFileWriter, TokenWindows


def write(folder: Path, *documents: list[int], vocab_size: int = 1000) -> TokenFile:
    writer = TokenFileWriter(folder, vocab_size, "fingerprint")
    for document in documents:
        writer.add(document)
    writer.close()
    return TokenFile(folder)


def test_documents_lie_end_to_end_in_a_token_file(tmp_path: Path) -> None:
    tokens = write(tmp_path / "t", [5, 6, 0], [7, 0], [8, 9, 1, 0])
    assert tokens.tokens.tolist() == [5, 6, 0, 7, 0, 8, 9, 1, 0]
    assert tokens.document_offsets.tolist() == [0, 3, 5, 9]
    assert (tokens.num_tokens, tokens.num_documents) == (9, 3)


@pytest.mark.parametrize(("vocab_size", "width"), [(2**16, 2), (2**16 + 1, 4)])
def test_a_token_takes_two_bytes_where_the_vocabulary_fits(tmp_path: Path, vocab_size: int, width: int) -> None:
    tokens = write(tmp_path / "t", [vocab_size - 1], vocab_size=vocab_size)
    assert (tmp_path / "t" / "tokens.bin").stat().st_size == width
    assert tokens.tokens.tolist() == [vocab_size - 1]


def test_windows_of_a_token_file_share_only_the_token_between_them(tmp_path: Path) -> None:
    windows = TokenWindows(write(tmp_path / "t", list(range(10))), seq_len=4)
    assert len(windows) == 2
    assert windows[0].tolist() == [0, 1, 2, 3, 4]
    assert windows[1].tolist() == [4, 5, 6, 7, 8]
    assert windows[1].dtype == np.int64


@pytest.mark.parametrize(("count", "windows"), [(0, 0), (1, 0), (4, 0), (5, 1), (8, 1), (9, 2)])
def test_a_window_needs_one_token_more_for_its_last_target(tmp_path: Path, count: int, windows: int) -> None:
    tokens = write(tmp_path / "t", list(range(count)))
    assert len(TokenWindows(tokens, seq_len=4)) == windows


def test_the_tail_of_a_token_file_can_be_taken_away_again(tmp_path: Path) -> None:
    writer = TokenFileWriter(tmp_path / "t", 1000, "fingerprint")
    writer.add([1, 2, 3])
    writer.add([4, 5])
    assert writer.cut_tail(3).tolist() == [3, 4, 5]
    writer.add([6])
    writer.close()
    tokens = TokenFile(tmp_path / "t")
    assert tokens.tokens.tolist() == [1, 2, 6]
    assert tokens.document_offsets.tolist() == [0, 2, 3]


def test_a_truncated_token_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "t", [1, 2, 3])
    (tmp_path / "t" / "tokens.bin").write_bytes(b"\0\0")
    with pytest.raises(ValueError, match="2 bytes, where 6 were written"):
        TokenFile(tmp_path / "t")


def test_a_token_file_of_another_version_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "t", [1])
    header = tmp_path / "t" / "header.json"
    header.write_text(json.dumps(json.loads(header.read_text()) | {"version": 0}))
    with pytest.raises(ValueError, match="version 0"):
        TokenFile(tmp_path / "t")


def test_a_token_file_with_a_damaged_header_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "t", [1])
    (tmp_path / "t" / "header.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        TokenFile(tmp_path / "t")


@pytest.mark.parametrize("name", ["tokens.bin", "documents.bin"])
def test_bytes_that_were_not_written_fail_the_checksum(name: str, tmp_path: Path) -> None:
    tokens = write(tmp_path / "t", [1, 2, 3])
    tokens.verify()
    content = (tmp_path / "t" / name).read_bytes()
    (tmp_path / "t" / name).write_bytes(bytes(len(content)))
    with pytest.raises(ValueError, match=f"{name}: its bytes are not those that were written"):
        tokens.verify()


def test_a_token_beyond_the_vocabulary_is_refused_where_it_is_read(tmp_path: Path) -> None:
    windows = TokenWindows(write(tmp_path / "t", [1, 2, 3, 4, 5, 6], vocab_size=7), seq_len=2)
    (tmp_path / "t" / "tokens.bin").write_bytes(np.array([1, 2, 3, 4, 7, 6], dtype="<u2").tobytes())
    assert windows[0].tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="token 7 at 4 is beyond the vocabulary of 7"):
        windows[1]
