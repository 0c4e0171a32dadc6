"""The decoder, or a contiguous part of it. A part without the embedding takes activations, one without the head returns
activations, and its modules have the names that they have in the whole model.

Shapes: B batch, S sequence, D d_model, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from project.model.balance import Balancing
from project.model.block import Block
from project.model.norm import RMSNorm
from project.spec.model import ModelConfig


class Transformer(nn.Module):
    """The layers with global indices `layers` (by default all), the embedding if `first`, norm and head if `last`."""

    def __init__(
        self, config: ModelConfig, layers: Sequence[int] | None = None, *, first: bool = True, last: bool = True
    ) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model) if first else None
        indices = range(config.num_layers) if layers is None else layers
        self.layers = nn.ModuleDict({str(index): Block(config, index) for index in indices})
        self.norm = RMSNorm(config.d_model, config.norm_eps) if last else None
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False) if last else None
        # The position tables are filled by `init.reset_buffers`; they are no weights, so they are not in the state
        # dict.
        for name in ("rope_cos", "rope_sin"):
            self.register_buffer(name, torch.empty(config.max_seq_len, config.head_dim), persistent=False)

    rope_cos: Tensor
    rope_sin: Tensor

    def forward(self, inputs: Tensor, balancing: Balancing | None = None) -> Tensor:
        """Computes logits `[B, S, V]`, or activations `[B, S, D]` for the next part, from tokens `[B, S]`, or from the
        previous part's activations `[B, S, D]`."""
        balancing = balancing or Balancing()
        x_BSD = inputs if self.embedding is None else self.embedding(inputs)
        for index, block in self.layers.items():
            x_BSD, sums_BK = block(x_BSD, self.rope_cos, self.rope_sin, balancing)
            if sums_BK is not None:
                balancing.note(int(index), sums_BK)
        return x_BSD if self.head is None or self.norm is None else self.head(self.norm(x_BSD))
