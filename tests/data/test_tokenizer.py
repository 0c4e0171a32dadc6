"""Every text survives the tokenizer, and the tokenizer fits the model."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from project.data.tokenizer import END_OF_TEXT, end_of_text_id, tokenizer_faults, train_tokenizer

TOKENIZER = train_tokenizer(["the cat sat on the mat\n" * 50, "def f(x):\n    return x\n" * 50], 300)


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_text_comes_back_unchanged(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text


def test_the_vocabulary_is_bounded_and_starts_with_the_end_of_text() -> None:
    assert 257 < TOKENIZER.get_vocab_size() <= 300
    assert end_of_text_id(TOKENIZER) == TOKENIZER.token_to_id(END_OF_TEXT) == 0


def test_training_is_reproducible() -> None:
    texts = ["abc abd abe\n" * 20]
    assert train_tokenizer(texts, 280).to_str() == train_tokenizer(texts, 280).to_str()


def test_a_vocabulary_below_the_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="vocab_size=200"):
        train_tokenizer(["a"], 200)


def test_a_given_tokenizer_must_fit_the_embedding(tmp_path: Path) -> None:
    path = str(tmp_path / "tokenizer.json")
    TOKENIZER.save(path)
    size = TOKENIZER.get_vocab_size()
    assert tokenizer_faults(path, size) == []
    (fault,) = tokenizer_faults(path, size - 1)
    assert fault.key == "data.tokenizer"
    assert f"raise it to {size}" in fault.message


def test_a_given_tokenizer_must_end_texts(tmp_path: Path) -> None:
    path = str(tmp_path / "tokenizer.json")
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    tokenizer.save(path)
    assert "ends a text" in tokenizer_faults(path, 10)[0].message
    with pytest.raises(ValueError, match="ends a text"):
        end_of_text_id(tokenizer)


@pytest.mark.parametrize("content", ["{}", "[]", "no json", '{"model": {"vocab": 3}}'])
def test_another_file_is_no_tokenizer(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    assert "is no tokenizer.json" in tokenizer_faults(str(tmp_path / "tokenizer.json"), 10)[0].message


def test_a_missing_tokenizer_is_a_fault(tmp_path: Path) -> None:
    assert "is no file" in tokenizer_faults(str(tmp_path / "tokenizer.json"), 10)[0].message
