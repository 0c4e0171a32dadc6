"""A byte-level BPE of the corpus's own, or the user's `tokenizer.json`. `tokenizers` is imported where it is used."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from project.spec.fault import Fault

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
# What other families call the token that ends a text; the first that a tokenizer knows is taken.
END_OF_TEXT_NAMES = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "[SEP]")
SMALLEST_VOCABULARY = 257  # 256 bytes and the end of text


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE of at most `vocab_size` entries, fewer where the text has fewer pairs; the end of text is id 0.

    Every text can be encoded and comes back unchanged, since all 256 bytes are in the vocabulary.
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


def end_of_text_id(tokenizer: Tokenizer) -> int:
    """Raises `ValueError` for a tokenizer that has none of `END_OF_TEXT_NAMES`."""
    for name in END_OF_TEXT_NAMES:
        token = tokenizer.token_to_id(name)
        if token is not None:
            return int(token)
    raise ValueError(f"the tokenizer has no token that ends a text; one of {', '.join(END_OF_TEXT_NAMES)} is needed")


def tokenizer_faults(path: str, vocab_size: int) -> list[Fault]:
    """What is wrong with a `tokenizer.json` for a model of `vocab_size` embedding rows, read as mere JSON."""

    def fault(message: str) -> list[Fault]:
        return [Fault("data.tokenizer", path, message)]

    file = Path(path).expanduser()
    if not file.is_file():
        return fault("is no file; give the tokenizer.json of a Hugging Face tokenizer, or null to train one")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        ids = _ids(content)
    except (ValueError, KeyError, TypeError, AttributeError):
        return fault("is no tokenizer.json of the tokenizers library")
    if not any(name in ids for name in END_OF_TEXT_NAMES):
        return fault(f"has no token that ends a text; one of {', '.join(END_OF_TEXT_NAMES)} is needed")
    rows = max(ids.values()) + 1
    if isinstance(vocab_size, int) and rows > vocab_size:
        return fault(f"has {rows} tokens, but model.vocab_size={vocab_size} has a row for fewer; raise it to {rows}")
    return []


def _ids(content: dict[str, Any]) -> dict[str, int]:
    vocabulary = content["model"]["vocab"]
    if isinstance(vocabulary, list):  # Unigram: [piece, score] in the order of their ids
        vocabulary = {piece: index for index, (piece, _) in enumerate(vocabulary)}
    return {**vocabulary, **{token["content"]: token["id"] for token in content.get("added_tokens", ())}}
