"""The files beside a `tokenizer.json` from which `AutoTokenizer` learns what it is."""

from __future__ import annotations

from pathlib import Path

from project.data.tokenizer import end_of_text_id


def end_of_text(tokenizer: Path) -> tuple[int, str | None] | None:
    """The id and the text of the token that ends a text, if the tokenizer has one by a name that is known."""
    from tokenizers import Tokenizer

    opened = Tokenizer.from_file(str(tokenizer))
    try:
        number = end_of_text_id(opened)
    except ValueError:
        return None
    return number, opened.id_to_token(number)


def tokenizer_config(end: str | None, max_seq_len: int) -> dict[str, object]:
    """`tokenizer_config.json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_seq_len,
        **({"eos_token": end} if end else {}),
        "clean_up_tokenization_spaces": False,
    }
