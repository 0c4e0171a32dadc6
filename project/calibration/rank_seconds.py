"""Seconds of a training step on this machine, with the real strategy, module and callbacks, on a few forked ranks with
one thread each."""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import lightning.pytorch as L
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from project.callbacks.expert_metrics import ExpertMetrics
from project.callbacks.first_steps import ActivationPeaks, Communication
from project.callbacks.step_metrics import StepMetrics
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.strategy.hybrid import HybridParallelStrategy
from project.training.module import MoEModule
from project.training.optimizer import OptimizerConfig

NARROW = ModelConfig(
    d_model=16, num_heads=4, num_kv_heads=4, head_dim=4, d_ff=16, vocab_size=32, num_experts=4, max_seq_len=16
)
BATCH, STEPS, WARM = 8, 12, 3


class Case(NamedTuple):
    """A run to measure: the number of layers, the layout and the model."""

    layers: int
    layout: ParallelLayout
    model: ModelConfig = NARROW


class Seconds(NamedTuple):
    """Seconds of a step on a rank: CPU time, the minimum over all steps, because other load only increases it, and
    wall-clock time, the median."""

    core: float
    clock: float


def rank_seconds(case: Case) -> Seconds:
    """Trains the case and returns the mean over its ranks."""
    layout = case.layout
    with tempfile.TemporaryDirectory() as folder, quiet_environment():
        trainer = L.Trainer(
            accelerator="cpu",
            devices=layout.world_size,
            strategy=HybridParallelStrategy(layout),
            plugins=[LightningEnvironment()],
            callbacks=[*observers(), Stopwatch(Path(folder))],
            max_steps=STEPS,
            logger=False,
            inference_mode=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        config = replace(case.model, num_layers=case.layers)
        batches = text(BATCH // layout.dp, config.max_seq_len)
        module = MoEModule(config, OptimizerConfig(), seq_len=config.max_seq_len)
        trainer.fit(module, DataLoader(Batches(batches), batch_size=None))
        spent = [json.loads(path.read_text()) for path in Path(folder).iterdir()]
    assert len(spent) == layout.world_size
    return Seconds(*map(mean, zip(*spent, strict=True)))


class Batches(Dataset):
    def __init__(self, batches: list[dict[str, Tensor]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.batches[index]


def text(sequences: int, seq_len: int) -> list[dict[str, Tensor]]:
    tokens = torch.arange(STEPS * sequences * (seq_len + 1)).reshape(STEPS, sequences, seq_len + 1) % NARROW.vocab_size
    return [{"tokens": batch[:, :-1].contiguous(), "targets": batch[:, 1:].contiguous()} for batch in tokens]


def observers() -> list[L.Callback]:
    """The callbacks that every run has by `configs/callbacks/default.yaml`; their cost is part of a step."""
    return [Communication(), ActivationPeaks(), StepMetrics(), ExpertMetrics()]


class Stopwatch(L.Callback):
    """Writes each rank's `Seconds` to a file; CPU time is that of all its threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.marks: list[tuple[float, float]] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        torch.set_num_threads(1)  # a second thread would spin while it waits
        self.mark()

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        self.mark()

    def mark(self) -> None:
        self.marks.append((time.process_time(), time.perf_counter()))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        laps = [(there[0] - here[0], there[1] - here[1]) for here, there in pairwise(self.marks[WARM:])]
        core, clock = zip(*laps, strict=True)
        (self.folder / str(trainer.global_rank)).write_text(json.dumps([min(core), median(clock)]))


@contextmanager
def quiet_environment() -> Iterator[None]:
    """Silences Lightning's log and all warnings."""
    import logging
    import warnings

    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
