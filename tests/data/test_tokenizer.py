"""Every text survives the tokenizer, and the tokenizer fits the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from project.data.prepare import prepare
from project.data.text import TextCorpus
from project.data.tokenizer import (
    END_OF_TEXT,
    end_of_text_id,
    open_tokenizer,
    same_tokenizer,
    tokenizer_faults,
    train_tokenizer,
)

TOKENIZER = train_tokenizer(["the cat sat on the mat\n" * 50, "def f(x):\n    return x\n" * 50], 300)


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_a_tokenizer_decodes_what_it_encoded_unchanged(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == text


def test_the_vocabulary_is_bounded_and_starts_with_the_end_of_text() -> None:
    assert 257 < TOKENIZER.get_vocab_size() <= 300
    assert TOKENIZER.token_to_id(END_OF_TEXT) == 0


def test_training_a_tokenizer_is_reproducible() -> None:
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
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    assert "is no tokenizer.json" in tokenizer_faults(str(tmp_path / "tokenizer.json"), 10)[0].message


def test_a_missing_tokenizer_is_a_fault(tmp_path: Path) -> None:
    assert "is no file" in tokenizer_faults(str(tmp_path / "tokenizer.json"), 10)[0].message


# -- what a file may have saved besides its mapping -----------------------------------------------------------------


SAVED = {
    "truncation": lambda made: made.enable_truncation(max_length=4),
    "padding": lambda made: made.enable_padding(length=512),
    "padding to a multiple": lambda made: made.enable_padding(pad_to_multiple_of=64),
    "dropout": lambda made: setattr(made.model, "dropout", 0.9),
}


@pytest.mark.parametrize("change", SAVED.values(), ids=SAVED)
def test_a_tokenizer_file_gives_its_mapping_alone_whatever_else_it_has_saved(change, tmp_path: Path) -> None:
    text = "the cat sat on the mat\n" * 3
    made = Tokenizer.from_str(TOKENIZER.to_str())
    change(made)
    made.save(str(tmp_path / "tokenizer.json"))
    opened = open_tokenizer(tmp_path / "tokenizer.json")
    encodings = opened.encode_batch_fast([text, "the"], add_special_tokens=False)
    assert [encoding.ids for encoding in encodings] == [TOKENIZER.encode(part).ids for part in (text, "the")]
    assert same_tokenizer(tmp_path / "tokenizer.json", tmp_path / "tokenizer.json")


def test_characters_without_a_token_are_a_fault_where_the_library_fails_and_are_said_where_it_leaves_them_out(
    tmp_path: Path,
) -> None:
    content = json.loads(train_tokenizer(["text"], 257).to_str()) | {"added_tokens": [], "pre_tokenizer": None}
    words = {"t": 0, "e": 1, "</s>": 2}
    fails: list[dict[str, object]] = [
        {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
        {"type": "Unigram", "vocab": [[word, -1.0] for word in words], "unk_id": None},
    ]
    file = tmp_path / "tokenizer.json"
    for model in fails:
        file.write_text(json.dumps(content | {"model": model}))
        (fault,) = tokenizer_faults(str(file), 400)
        assert "fails at characters that it has no token for" in fault.message
    file.write_text(json.dumps(content | {"model": {"type": "BPE", "vocab": words, "merges": []}}))
    (tmp_path / "a.txt").write_text("text" * 99)
    with pytest.warns(UserWarning, match="leaves out characters that it has no token for"):
        prepare(TextCorpus(str(tmp_path / "a.txt")), cache_dir=tmp_path / "cache", vocab_size=9, tokenizer=str(file))


def test_tokenizers_written_in_another_order_or_indentation_are_the_same(tmp_path: Path) -> None:
    content = json.loads(TOKENIZER.to_str())
    (tmp_path / "a.json").write_text(json.dumps(content, indent=3))
    (tmp_path / "b.json").write_text(json.dumps(dict(reversed(content.items()))))
    (tmp_path / "c.json").write_text("{}")
    assert same_tokenizer(tmp_path / "a.json", tmp_path / "b.json")
    assert not same_tokenizer(tmp_path / "a.json", tmp_path / "c.json")


@pytest.mark.parametrize(("key", "value"), [("version", "2.0"), ("pre_tokenizer", {"type": "Newer"})])
def test_a_file_of_a_newer_library_is_a_fault_with_the_library_s_words(key: str, value: object, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(TOKENIZER.to_str()), key: value}))
    (fault,) = tokenizer_faults(str(path), 300)
    assert fault.message.startswith("cannot be read by the installed tokenizers")


def test_a_file_on_which_the_library_panics_is_a_fault(tmp_path: Path) -> None:
    content = json.loads(TOKENIZER.to_str())
    content["model"]["continuing_subword_prefix"] = "x" * 30  # longer than any token of a merge
    (path := tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (fault,) = tokenizer_faults(str(path), 300)
    assert fault.message.startswith("cannot be read by the installed tokenizers")


# -- the token that ends a text -------------------------------------------------------------------------------------


def tokenizer_with(folder: Path, special: list[str], others: tuple[str, ...] = ()) -> Path:
    """Saves a tokenizer with these special tokens, and others that are added and not special."""
    made = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    made.add_special_tokens(special)
    made.add_tokens(list(others))
    made.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def ending(path: Path, named: str | None = None) -> str | None:
    opened = open_tokenizer(path)
    return opened.id_to_token(end_of_text_id(opened, path.parent, named))


@pytest.mark.parametrize("name", ["<｜end▁of▁sentence｜>", "<|return|>", "[EOS]", "<|im_end|>", "<|eot_id|>"])  # noqa: RUF001
@pytest.mark.parametrize("as_saved", [lambda name: name, lambda name: {"content": name, "lstrip": False}])
def test_the_end_of_text_is_what_tokenizer_config_json_names(name: str, as_saved, tmp_path: Path) -> None:
    path = tokenizer_with(tmp_path, ["</s>", name])
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": as_saved(name)}))
    assert ending(path) == name
    assert tokenizer_faults(str(path), 10) == []


@pytest.mark.parametrize("number", [2, [2, 1]])
def test_without_that_it_is_what_config_json_numbers(number: object, tmp_path: Path) -> None:
    path = tokenizer_with(tmp_path, ["</s>", "<|stop|>"])
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": number}))
    assert ending(path) == "<|stop|>"


def test_a_name_that_is_given_comes_before_any_file(tmp_path: Path) -> None:
    path = tokenizer_with(tmp_path, ["</s>", "<|stop|>"])
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    assert ending(path, "<|stop|>") == "<|stop|>"
    (fault,) = tokenizer_faults(str(path), 10, "<|stopp|>")
    assert (fault.key, fault.value) == ("data.end_of_text", "<|stopp|>")
    assert "<|stop|>" in fault.message


def test_a_guess_among_several_prefers_the_special_ones_and_is_said(tmp_path: Path) -> None:
    path = tokenizer_with(tmp_path, ["<pad>", "<eos>"], others=("<s>", "</s>"))
    with pytest.warns(UserWarning, match=r"<eos> is taken, of <eos>, </s>; data.end_of_text= names another"):
        assert ending(path) == "<eos>"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer_config.json", {"eos_token": "<absent>"}),
        ("config.json", {"eos_token_id": 99}),
        ("config.json", {"eos_token_id": -1}),
        ("config.json", {"eos_token_id": 2**40}),
    ],
)
def test_a_file_that_names_a_token_which_is_not_there_is_said_and_passed_over(
    file: str, content: dict, tmp_path: Path
) -> None:
    path = tokenizer_with(tmp_path, ["</s>"])
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=f"{file} names "):
        assert ending(path) == "</s>"
    assert tokenizer_faults(str(path), 10) == []


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 10**5, "null"])
def test_a_config_that_is_none_is_no_hint(content: str, tmp_path: Path) -> None:
    path = tokenizer_with(tmp_path, ["</s>"])
    (tmp_path / "tokenizer_config.json").write_text(content)
    assert ending(path) == "</s>"
