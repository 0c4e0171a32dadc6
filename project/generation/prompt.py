"""A prompt as tokens, and the text that tokens stand for."""

from pathlib import Path

from project.data.tokenizer import end_of_text_id, open_tokenizer


class Prompt:
    """The tokens to be continued; an empty text has one, the end of the text before."""

    def __init__(self, tokenizer: Path, text: str) -> None:
        self.tokenizer = open_tokenizer(tokenizer)
        self.end = end_of_text_id(self.tokenizer, tokenizer.parent)
        self.text = text
        self.tokens: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids or [self.end]

    def continued(self, tokens: list[int]) -> str:
        """The text of the prompt and its continuation, up to the end-of-text token."""
        if self.end in tokens:
            tokens = tokens[: tokens.index(self.end)]
        if not self.text:
            return self.tokenizer.decode(tokens)
        return self.tokenizer.decode(self.tokens + tokens)

    def length(self, max_new_tokens: int, tp: int) -> int:
        """Tokens of prompt and continuation together, rounded up to a multiple of tp."""
        return padded(len(self.tokens) + max_new_tokens, tp)


def padded(length: int, tp: int) -> int:
    """Rounded up to a multiple of tp: attention is causal, so that padding on the right changes nothing."""
    return -(-length // tp) * tp
