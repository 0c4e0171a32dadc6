"""The mixture-of-experts transformer as the engine splits it, without Lightning."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from project.engine.plan import Plan
from project.engine.split_model import SplitModel
from project.engine.transformer_plan import transformer_plan
from project.model.balance import balance_report
from project.model.init import initial_weight, reset_buffers
from project.model.transformer import Balancing, Transformer
from project.spec.cost import stage_costs
from project.spec.layout import ParallelLayout
from project.spec.metrics import STATISTICS
from project.spec.model import ModelConfig
from project.spec.partition import Costs, Part
from project.state.weights.weights import Weights


class SplitTransformer(SplitModel):
    """Begins with `weights` if they are given, else with random ones drawn from `seed`. `seq_len` is the length for
    which the stages are balanced."""

    def __init__(
        self, config: ModelConfig, seed: int = 0, seq_len: int | None = None, weights: Weights | None = None
    ) -> None:
        super().__init__()
        self.config, self.seed, self.weights = config, seed, weights
        self.seq_len = seq_len or config.max_seq_len

    def layer_costs(self) -> Costs:
        return Costs(*stage_costs(self.config, self.seq_len))

    def build_part(self, part: Part) -> Transformer:
        return Transformer(self.config, part.layers, first=part.first, last=part.last)

    def plan(self, layout: ParallelLayout) -> Plan:
        return transformer_plan(layout, self.config)

    def initial_weight(self, name: str, shape: torch.Size, index: int | None) -> Tensor:
        if self.weights is not None:
            return self.weights.read(name, index)
        return initial_weight(self.config, self.seed, name, shape, index)

    def units(self, part: nn.Module) -> Iterable[nn.Module]:
        assert isinstance(part, Transformer)
        return part.layers.values()

    def reset_part(self, part: nn.Module) -> None:
        assert isinstance(part, Transformer)
        reset_buffers(part)
        if self.weights is not None and self.weights.config.expert_balance == self.config.expert_balance == "bias":
            for name, buffer in part.named_buffers():
                if name.endswith("router.expert_bias"):
                    buffer.copy_(self.weights.read(name))

    def activation_shape(self, inputs: torch.Size, layout: ParallelLayout) -> tuple[int, ...]:
        batch, seq_len = inputs
        return batch, seq_len // layout.tp, self.config.d_model

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(outputs, targets)

    def tabulate(self, balancing: Balancing, layout: ParallelLayout, device: torch.device) -> Tensor:
        """This stage's summand of one batch's table `[layers, STATISTICS + experts]`, float64: means over microbatches
        and replicas, sums of the loads. Zeros for other stages' layers and for those without experts."""
        table = torch.zeros(
            self.config.num_layers, len(STATISTICS) + self.config.num_experts, dtype=torch.float64, device=device
        )
        if balancing.sums:  # [layers, microbatches, B, K]
            sums = torch.stack([torch.stack(of_layer) for of_layer in balancing.sums.values()]).double()
            *scalars, loads_LME = balance_report(sums, self.config.top_k)
            rows_LMX = torch.cat((torch.stack(scalars, dim=-1), loads_LME), dim=-1)
            for layer, row_X in zip(balancing.sums, rows_LMX.sum(1), strict=True):
                table[layer] = row_X
        table[:, : len(STATISTICS)] /= layout.microbatches * layout.dp
        return table


def cross_entropy(logits_BSV: Tensor, targets_BS: Tensor) -> Tensor:
    """Returns the mean cross-entropy over tokens, in at least fp32. Where the vocabulary is cut over ranks the logits
    are a DTensor and torch computes it vocabulary-parallel: the caller is inside `loss_parallel`."""
    wide = torch.promote_types(logits_BSV.dtype, torch.float32)
    loss = F.cross_entropy(logits_BSV.flatten(0, 1).to(wide), targets_BS.flatten())
    return loss.to_local() if isinstance(loss, DTensor) else loss
