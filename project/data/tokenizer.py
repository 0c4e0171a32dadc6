"""Tokenizers: a byte-level BPE trained on the corpus, or the user's `tokenizer.json`.

A `tokenizer.json` is read for its mapping from text to tokens alone. Other settings that may be saved in it are
ignored: truncation and padding would change the length of texts, and dropout would draw other tokens each time.

The package `tokenizers` is imported where it is used, because the check of a config needs this file without it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from project.spec.fault import Fault, legal
from project.spec.untrusted import Unreadable, read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_NAMES = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "[SEP]")
"""Names of the end-of-text token in model families, guessed in this order if no file beside the tokenizer names it."""
TOKENIZER, TOKENIZER_CONFIG, MODEL_CONFIG = "tokenizer.json", "tokenizer_config.json", "config.json"
RARE_CHARACTERS = "\u2603\ue000"
SMALLEST_VOCABULARY = 257  # 256 bytes and the end of text
LARGEST_CONFIG = 2**24  # bytes; chat templates make a tokenizer_config.json long, but not that long


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Trains a byte-level BPE of at most `vocab_size` entries, fewer where the text has fewer pairs.

    The end-of-text token has id 0. Every text can be encoded and is decoded unchanged, since all 256 bytes are in the
    vocabulary.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocab_size < SMALLEST_VOCABULARY:
        raise ValueError(f"vocab_size={vocab_size}: a byte-level tokenizer needs at least {SMALLEST_VOCABULARY}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def open_tokenizer(path: Path) -> Tokenizer:
    """Opens a `tokenizer.json` with truncation, padding and dropout switched off.

    Raises:
        ValueError: for a file that is no `tokenizer.json`, or that the installed `tokenizers` cannot read, with its
            message.
    """
    from tokenizers import Tokenizer

    content = read_json(path.expanduser())
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ValueError(f"{path} is no tokenizer.json of the tokenizers library")
    content |= {"truncation": None, "padding": None}
    if "dropout" in content["model"]:
        content["model"]["dropout"] = None
    try:
        return Tokenizer.from_str(json.dumps(content, ensure_ascii=False))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises nothing more particular, and a panic of Rust's is no Exception
        raise ValueError(str(error).strip().splitlines()[0]) from error


def end_of_text_id(tokenizer: Tokenizer, folder: Path | None = None, named: str | None = None) -> int:
    """The id of the end-of-text token.

    It is `named`; else `eos_token` of the `tokenizer_config.json`, or `eos_token_id` of the `config.json`, in the
    tokenizer's `folder`; else the first of `END_OF_TEXT_NAMES` that the tokenizer has, special tokens before others.
    Choosing among several of these names warns, and so does a file that names a token which the tokenizer has not.

    Raises:
        ValueError: if none of these is a token of the tokenizer.
    """
    if named is not None:
        if (number := tokenizer.token_to_id(named)) is None:
            raise ValueError(f"is no token of the tokenizer; {legal(named, special_tokens(tokenizer))}")
        return int(number)
    declared = _declared(tokenizer, folder) if folder else None
    if declared is not None:
        return declared
    special = special_tokens(tokenizer)
    guesses = [name for name in END_OF_TEXT_NAMES if tokenizer.token_to_id(name) is not None]
    guesses.sort(key=lambda name: name not in special)  # stable; Gemma's </s> is an HTML tag, and not special
    if not guesses:
        raise ValueError(
            f"has no token that ends a text; one of {', '.join(END_OF_TEXT_NAMES)} is needed, or an eos_token in a "
            f"{TOKENIZER_CONFIG} beside it, or data.end_of_text="
        )
    if len(guesses) > 1:
        warnings.warn(
            f"no {TOKENIZER_CONFIG} beside the tokenizer says which token ends a text; {guesses[0]} is taken, of "
            f"{', '.join(guesses)}; data.end_of_text= names another",
            stacklevel=2,
        )
    number = tokenizer.token_to_id(guesses[0])
    assert number is not None
    return int(number)


def ending(tokenizer: Tokenizer, folder: Path, named: str | None = None) -> tuple[int, str]:
    """The id and the text of the end-of-text token; the arguments and errors are those of `end_of_text_id`."""
    number = end_of_text_id(tokenizer, folder, named)
    token = tokenizer.id_to_token(number)
    assert token is not None
    return number, token


def special_tokens(tokenizer: Tokenizer) -> list[str]:
    return [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]


def _declared(tokenizer: Tokenizer, folder: Path) -> int | None:
    """The id of the end-of-text token that a file in `folder` names; None, with a warning, if it is not there."""
    token = _read(folder / TOKENIZER_CONFIG).get("eos_token")
    if isinstance(token, Mapping):  # an AddedToken, as older transformers save it
        token = token.get("content")
    if isinstance(token, str):
        if (number := tokenizer.token_to_id(token)) is not None:
            return int(number)
        warnings.warn(f"{folder / TOKENIZER_CONFIG} names {token!r} as eos_token, which is no token", stacklevel=3)
    number = _read(folder / MODEL_CONFIG).get("eos_token_id")
    if isinstance(number, list):  # the first ends a text, the others end a turn of a conversation
        number = number[0] if number else None
    if type(number) is not int:
        return None
    if 0 <= number < 2**32 and tokenizer.id_to_token(number) is not None:  # the library takes no other numbers
        return number
    warnings.warn(f"{folder / MODEL_CONFIG} names {number} as eos_token_id, which is no token's", stacklevel=3)
    return None


def _read(file: Path) -> Mapping[str, Any]:
    """The JSON object in `file`; an empty one if there is none, because the file is only a hint."""
    try:
        content = read_json(file, file.parent, LARGEST_CONFIG)
    except Unreadable:
        return {}
    return content if isinstance(content, Mapping) else {}


def tokenizer_faults(path: str, vocab_size: int, named: str | None = None) -> list[Fault]:
    """The faults of a `tokenizer.json` for a model with `vocab_size` embedding rows and the end-of-text token
    `named`."""

    def fault(message: str, key: str = "data.tokenizer", value: str = path) -> list[Fault]:
        return [Fault(key, value, message)]

    file = Path(path).expanduser()
    if not file.is_file():
        return fault("is no file; give the tokenizer.json of a Hugging Face tokenizer, or null to train one")
    try:
        ids = _ids(read_json(file))
        rows = max(ids.values()) + 1
    except (ValueError, KeyError, TypeError, AttributeError):
        return fault("is no tokenizer.json of the tokenizers library")
    if isinstance(vocab_size, int) and rows > vocab_size:
        return fault(f"has {rows} tokens, but model.vocab_size={vocab_size} has a row for fewer; raise it to {rows}")
    try:
        tokenizer = open_tokenizer(file)
    except ValueError as error:
        from tokenizers import __version__ as version

        return fault(f"cannot be read by the installed tokenizers {version}: {error}")
    try:
        with warnings.catch_warnings(action="ignore"):  # using the tokenizer warns
            end_of_text_id(tokenizer, file.parent, named)
    except ValueError as error:
        return fault(str(error)) if named is None else fault(str(error), "data.end_of_text", named)
    try:
        knows_all_characters(tokenizer)
    except ValueError as error:
        return fault(str(error))
    return []


def knows_all_characters(tokenizer: Tokenizer) -> bool:
    """False if the tokenizer leaves out characters that it has no token for, and says nothing.

    Raises:
        ValueError: if it fails at them.
    """
    try:
        return bool(tokenizer.encode(RARE_CHARACTERS, add_special_tokens=False).ids)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # as in `open_tokenizer`
        raise ValueError(f"fails at characters that it has no token for: {error}") from None


def same_tokenizer(one: Path, other: Path) -> bool:
    """True if two files map every text to the same tokens, however they are written. A file that cannot be opened
    equals no other."""
    try:
        return open_tokenizer(one).to_str() == open_tokenizer(other).to_str()
    except ValueError:
        return False


def _ids(content: dict[str, Any]) -> dict[str, int]:
    """The id of every token.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: if the content is not that of a `tokenizer.json`.
    """
    vocabulary = content["model"]["vocab"]
    if isinstance(vocabulary, list):  # Unigram: [piece, score] in the order of their ids
        vocabulary = {piece: index for index, (piece, _) in enumerate(vocabulary)}
    ids = {**vocabulary, **{token["content"]: token["id"] for token in content.get("added_tokens") or ()}}
    if not all(type(number) is int and number >= 0 for number in ids.values()):
        raise ValueError("ids must be whole numbers, 0 or more")
    return ids
