"""A run small enough for a test: one rank, a model of a few weights, and what the callbacks read of a real one."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.utils.data import DataLoader

from project.callbacks.expert_metrics import ExpertMetrics
from project.callbacks.progress import PlainProgress, StepProgress
from project.callbacks.step_metrics import StepMetrics
from project.callbacks.summary import RunSummary, SummaryTable
from project.engine.clock import Clock
from project.engine.instants import Instants
from project.loggers import csv_only
from project.observe.record import RunRecord
from project.spec.layout import ParallelLayout
from tests.harness.tiny_module import BATCH, SEQ_LEN, TinyModule
from tests.harness.trainer import cpu_trainer


class FakeStrategy(SingleDeviceStrategy):
    layout = ParallelLayout(microbatches=2)
    grad_norm = 1.5
    clock = Clock()
    step = SimpleNamespace(instants=Instants())

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.record = RunRecord()

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
        trainer = cpu_trainer(
            strategy=FakeStrategy(torch.device("cpu")),
            max_steps=steps,
            enable_progress_bar=True,
            logger=csv_only(folder),
            callbacks=[*ours, *extra],
            **options,
        )
        per_step = options.get("accumulate_grad_batches", 1)
        trainer.fit(module or TinyModule(), batches(steps * per_step), batches(1))
        return trainer

    return run
