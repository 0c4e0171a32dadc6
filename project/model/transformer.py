"""The decoder, or a contiguous part of it: without the embedding it takes activations, without the head it returns
them. A part keeps the names that its modules have in the whole.

Shapes: B batch, S sequence, D d_model, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from project.model.balance import BalanceReport
from project.model.block import Block
from project.model.norm import RMSNorm
from project.spec.model import ModelConfig


class Balancing:
    """What one pass hands in and takes away about balance: the factor on every penalty (the same that divides the
    loss), and each layer's reports, one per microbatch. No dataclass: what wraps a module may copy those on their way
    in, and the reports would be the copy's."""

    def __init__(self, penalty_scale: float = 1.0) -> None:
        self.penalty_scale = penalty_scale
        self.reports: dict[int, list[BalanceReport]] = {}

    def note(self, layer: int, report: BalanceReport) -> None:
        """Without the penalty's graph, which the stream has by now: the reports live as long as the batch."""
        self.reports.setdefault(layer, []).append(report._replace(penalty=report.penalty.detach()))


class Transformer(nn.Module):
    """`layers` are global indices; the names of a part's parameters are those of the whole model."""

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
        # Tables for `Attention`, filled by `init`: not weights, so not in the state dict.
        for name in ("rope_cos", "rope_sin"):
            self.register_buffer(name, torch.empty(config.max_seq_len, config.head_dim), persistent=False)

    rope_cos: Tensor
    rope_sin: Tensor

    def forward(self, inputs: Tensor, balancing: Balancing | None = None) -> Tensor:
        """Tokens `[B, S]`, or the previous part's activations; returns logits `[B, S, V]` or activations."""
        balancing = balancing or Balancing()
        x_BSD = inputs if self.embedding is None else self.embedding(inputs)
        for index, block in self.layers.items():
            x_BSD, report = block(x_BSD, self.rope_cos, self.rope_sin, balancing.penalty_scale)
            if report is not None:
                balancing.note(int(index), report)
        return x_BSD if self.head is None or self.norm is None else self.head(self.norm(x_BSD))
