"""The `tokenizer_config.json` that `AutoTokenizer` needs beside a `tokenizer.json`."""

from __future__ import annotations

from pathlib import Path

from project.data.tokenizer import end_of_text_id, open_tokenizer


def ending(tokenizer: Path) -> tuple[int, str] | None:
    """The id and the text of the end-of-text token, or None if the tokenizer has none that is known."""
    opened = open_tokenizer(tokenizer)
    try:
        number = end_of_text_id(opened, tokenizer.parent)
    except ValueError:
        return None
    token = opened.id_to_token(number)
    assert token is not None
    return number, token


def tokenizer_config(end: str | None, max_seq_len: int) -> dict[str, object]:
    """The content of `tokenizer_config.json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_seq_len,
        **({"eos_token": end} if end else {}),
        "clean_up_tokenization_spaces": False,
    }
