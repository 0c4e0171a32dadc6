"""The next token, from logits."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """`temperature` divides the logits, and 0 takes the likeliest token; `top_k` leaves so many of the likeliest."""

    temperature: float = 0.8
    top_k: int | None = None
    seed: int = 0

    def generator(self) -> torch.Generator:
        """On the CPU, where every machine draws the same."""
        return torch.Generator().manual_seed(self.seed)

    def choose(self, logits_BV: Tensor, generator: torch.Generator) -> Tensor:
        """Token ids `[B]`."""
        if self.temperature == 0:
            return logits_BV.argmax(-1).cpu()
        scaled_BV = logits_BV.double().cpu() / self.temperature
        if self.top_k is not None and self.top_k < scaled_BV.shape[-1]:
            least_B1 = scaled_BV.topk(self.top_k).values[:, -1:]
            scaled_BV = scaled_BV.masked_fill(scaled_BV < least_B1, float("-inf"))
        return torch.multinomial(scaled_BV.softmax(-1), 1, generator=generator).squeeze(-1)
