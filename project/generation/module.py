"""Generates text under any layout, by Lightning's `predict`.

The whole text passes through the model again for each new token, without a cache of keys and values, for which
training's schedules have no place: enough to look at what a run has learned, not to serve it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from project.generation.prompt import padded
from project.state.weights.weights import Weights
from project.training.module import MoEModule
from project.training.optimizer import OptimizerConfig


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


class Generator(MoEModule):
    """Continues prompts. It drops no token, whatever capacity the experts were trained with: which one is dropped would
    depend on the tokens after it."""

    def __init__(self, weights: Weights, sampling: Sampling, max_new_tokens: int, end: int) -> None:
        super().__init__(replace(weights.config, capacity_factor=None), OptimizerConfig(), weights=weights)
        self.sampling, self.max_new_tokens, self.end = sampling, max_new_tokens, end

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int) -> list[list[int]]:
        """Returns the tokens that follow each row of `tokens` `[B, S]`: at most `max_new_tokens`, the end of the text
        among them."""
        prompt_BS, draws = batch["tokens"], self.sampling.generator()
        begin = prompt_BS.shape[1]
        length = padded(begin + self.max_new_tokens, self.strategy.layout.tp)
        text_BL = prompt_BS.new_zeros(len(prompt_BS), length)
        text_BL[:, :begin] = prompt_BS
        ended_B = torch.zeros(len(prompt_BS), dtype=torch.bool)
        place = begin
        for place in self.watched(range(begin, begin + self.max_new_tokens)):
            logits_BV = self.strategy.predict_batch(text_BL)[:, place - 1]
            # One rank's choice for all: replicas may differ in a last bit, and must not in when to stop.
            chosen_B = self.strategy.broadcast(self.sampling.choose(logits_BV, draws))
            text_BL[:, place] = chosen_B.to(text_BL.device)
            ended_B |= chosen_B == self.end
            if ended_B.all():
                break
        return text_BL[:, begin : place + 1].tolist()

    def watched(self, steps: Iterable[int]) -> Iterable[int]:
        console = Console(stderr=True)
        watched = self.strategy.is_global_zero and console.is_terminal
        return track(steps, "tokens", console=console, transient=True, disable=not watched)


def prompts(tokens: list[int], samples: int) -> DataLoader:
    """Returns one batch, in which every row is the prompt."""
    rows = torch.tensor(tokens).repeat(samples, 1)
    return DataLoader([{"tokens": rows}], batch_size=None)  # type: ignore[arg-type]
