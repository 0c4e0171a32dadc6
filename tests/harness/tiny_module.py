"""A module of a few weights, with what callbacks read of a real one."""

from dataclasses import replace

import lightning.pytorch as L
import torch
from torch import Tensor, nn

from project.spec.model import ModelConfig

BATCH, SEQ_LEN = 2, 8


class Experts(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.ones(config.num_experts, 3))


class TinyModule(L.LightningModule):
    """A module that learns a constant. Step n (from 1) sends n tokens to the first expert and one to each other."""

    def __init__(self) -> None:
        super().__init__()
        self.config = ModelConfig(
            num_layers=2, d_model=8, num_heads=2, num_kv_heads=2, head_dim=4, d_ff=8, num_experts=4
        )
        self.layers = nn.ModuleDict(
            {str(layer): nn.ModuleDict({"experts": Experts(self.config)}) for layer in range(2)}
        )
        self.expert_load = torch.zeros(2, 4)
        self.router_entropy = torch.tensor([0.5, 1.0])

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = torch.stack([parameter.square().sum() for parameter in self.parameters()]).sum()
        self.expert_load = torch.ones(2, 4)
        self.expert_load[:, 0] = self.global_step + 1
        self.log_dict({"train/loss": loss, "train/aux_loss": loss.new_tensor(1.0 / 3.0)})
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("val/loss", torch.tensor(2.5))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class DenseFirst(TinyModule):
    """A `TinyModule` whose first `num_dense_layers` layers have no experts."""

    def __init__(self, num_dense_layers: int) -> None:
        super().__init__()
        self.config = replace(self.config, num_dense_layers=num_dense_layers)
        self.router_entropy[:num_dense_layers] = 0.0

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.expert_load[: self.config.num_dense_layers] = 0.0
        return loss
