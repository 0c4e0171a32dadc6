"""A prompt as tokens, and the text that tokens stand for. No torch: the check of a command reads it."""

from __future__ import annotations

from pathlib import Path

from project.data.tokenizer import end_of_text_id, open_tokenizer


class Prompt:
    """The tokens to be continued; those of no text at all are the end of the one before."""

    def __init__(self, tokenizer: Path, text: str) -> None:
        self.tokenizer = open_tokenizer(tokenizer)
        self.end = end_of_text_id(self.tokenizer, tokenizer.parent)
        self.text = text
        self.tokens: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids or [self.end]

    def continued(self, tokens: list[int]) -> str:
        """The prompt and what follows, up to where it ends."""
        if self.end in tokens:
            tokens = tokens[: tokens.index(self.end)]
        if not self.text:
            return self.tokenizer.decode(tokens)
        return self.tokenizer.decode(self.tokens + tokens)

    def length(self, max_new_tokens: int, tp: int) -> int:
        """Of prompt and continuation, up to the next number that divides over the tensor-parallel ranks."""
        return padded(len(self.tokens) + max_new_tokens, tp)


def padded(length: int, tp: int) -> int:
    """What is right of a token does not concern it."""
    return -(-length // tp) * tp
