"""A dense GPT, and the module by which `HybridParallelStrategy` trains it."""

import zlib
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, PrepareModuleInput, RowwiseParallel

from project.engine.plan import Plan, ReplicatedWeights
from project.spec.layout import ParallelLayout
from project.spec.partition import Costs, Part
from project.strategy.module import HybridModule

LAYERS, WIDTH, HEAD, LENGTH, VOCABULARY = 4, 32, 8, 16, 62


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.key = nn.Linear(WIDTH, WIDTH, bias=False)  # one would cancel in the softmax

    def forward(self, x: Tensor) -> Tensor:
        heads = (linear(x).unflatten(-1, (-1, HEAD)).transpose(1, 2) for linear in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A layer. A rank may hold a part of the heads and of the hidden units, and a part of the sequence between them."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(WIDTH), Attention()
        self.mlp_norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x))))


class GPT(nn.Module):
    """A part of the model: some of the layers, and its first or last part if it has them."""

    def __init__(self, layers: Iterable[int] = range(LAYERS), first: bool = True, last: bool = True) -> None:
        super().__init__()
        self.first, self.last = first, last
        if first:
            self.tokens, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.layers = nn.ModuleDict({str(layer): Block() for layer in layers})
        if last:
            self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            x = self.tokens(x) + self.positions(torch.arange(x.shape[1], device=x.device))
        for layer in self.layers.values():
            x = layer(x)
        return self.head(self.norm(x)) if self.last else x


class GPTModule(HybridModule):
    def layer_costs(self) -> Costs:
        return Costs([1] * LAYERS)

    def build_part(self, part: Part) -> GPT:
        return GPT(part.layers, part.first, part.last)

    def units(self, part: nn.Module) -> Iterable[nn.Module]:
        return part.layers.values()

    def plan(self, layout: ParallelLayout) -> Plan:
        return {
            "tokens": RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(1)),
            "positions": RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(0)),
            "layers.*.attention_norm": ReplicatedWeights(),
            "layers.*.attention": PrepareModuleInput(input_layouts=Shard(1), desired_input_layouts=Replicate()),
            "layers.*.attention.query": ColwiseParallel(),
            "layers.*.attention.key": ColwiseParallel(),
            "layers.*.attention.value": ColwiseParallel(),
            "layers.*.attention.out": RowwiseParallel(output_layouts=Shard(1)),
            "layers.*.mlp_norm": ReplicatedWeights(),
            "layers.*.up": ColwiseParallel(input_layouts=Shard(1)),
            "layers.*.down": RowwiseParallel(output_layouts=Shard(1)),
            "norm": ReplicatedWeights(),
            "head": ColwiseParallel(input_layouts=Shard(1), output_layouts=Shard(-1), use_local_output=False),
        }

    def initial_weight(self, name: str, shape: torch.Size, index: int | None) -> Tensor:
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode()))) / 8
        return 1 + noise if name.endswith("norm.weight") else noise

    def activation_shape(self, inputs: torch.Size, layout: ParallelLayout) -> tuple[int, ...]:
        return inputs[0], inputs[1] // layout.tp, WIDTH

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = self.strategy.run_batch(batch["tokens"], batch["targets"], train=True)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        loss = self.strategy.run_batch(batch["tokens"], batch["targets"], train=False)
        self.log("val/loss", loss, batch_size=len(batch["tokens"]), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)
