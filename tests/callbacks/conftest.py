"""A run small enough for a test: one rank, a model of a few weights, and what the callbacks read of a real one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader

from project.callbacks.expert_metrics import ExpertMetrics
from project.callbacks.plain_progress import PlainProgress
from project.callbacks.step_metrics import StepMetrics
from project.callbacks.step_progress import StepProgress
from project.callbacks.summary import RunSummary
from project.callbacks.summary_table import SummaryTable
from project.engine.clock import Clock
from project.loggers import csv_only
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig

BATCH, SEQ_LEN = 2, 8


class Experts(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.ones(config.num_experts, 3))


class TinyModule(L.LightningModule):
    """Learns a constant. Step n (from 1) sends n tokens to the first expert and one to each other."""

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
    """As `TinyModule`, but so many of its first layers have no experts."""

    def __init__(self, num_dense_layers: int) -> None:
        super().__init__()
        self.config = replace(self.config, num_dense_layers=num_dense_layers)
        self.router_entropy[:num_dense_layers] = 0.0

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.expert_load[: self.config.num_dense_layers] = 0.0
        return loss


class FakeStrategy(SingleDeviceStrategy):
    layout = ParallelLayout(microbatches=2)
    grad_norm = 1.5
    clock = Clock()

    def parameters_here(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())


def batches(count: int) -> DataLoader:
    tokens = torch.arange(count * BATCH * SEQ_LEN).view(-1, SEQ_LEN)
    return DataLoader([{"tokens": row} for row in tokens], batch_size=BATCH)


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., L.Trainer]:
    """Runs `steps` optimizer steps and a validation with our callbacks, then `extra`; the run folder is `tmp_path`."""

    def run(
        *extra: Callback,
        steps: int = 4,
        module: L.LightningModule | None = None,
        display: StepProgress | None = None,
        **options,
    ) -> L.Trainer:
        folder = str(tmp_path)
        ours = [StepMetrics(), ExpertMetrics(), RunSummary(folder), display or PlainProgress(2), SummaryTable(folder)]
        trainer = L.Trainer(
            accelerator="cpu",
            strategy=FakeStrategy(torch.device("cpu")),
            max_steps=steps,
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            logger=csv_only(folder),
            callbacks=[*ours, *extra],
            **({"enable_checkpointing": False} | options),
        )
        per_step = options.get("accumulate_grad_batches", 1)
        trainer.fit(module or TinyModule(), batches(steps * per_step), batches(1))
        return trainer

    return run
