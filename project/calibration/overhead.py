"""What a rank's program costs beside its arithmetic: layers so narrow that they compute nothing, trained by the real
strategy on a few ranks, in seconds of a core. Those do not depend on what else the machine is busy with.

Two runs that differ in one thing differ by its cost: four layers more, six microbatches more.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
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

from project.callbacks.activations import ActivationPeaks
from project.callbacks.communication import Communication
from project.callbacks.expert_metrics import ExpertMetrics
from project.callbacks.step_metrics import StepMetrics
from project.model.config import ModelConfig
from project.parallel.layout import ParallelLayout
from project.strategy.hybrid import HybridParallelStrategy
from project.training.module import MoEModule
from project.training.optimizer import OptimizerConfig

NARROW = ModelConfig(
    d_model=16, num_heads=4, num_kv_heads=4, head_dim=4, d_ff=16, vocab_size=32, num_experts=4, max_seq_len=16
)
FEW, MANY = 2, 6  # layers
BATCH, STEPS, WARM = 8, 12, 3


WIDE = replace(NARROW, d_model=256, num_heads=8, num_kv_heads=8, head_dim=32, d_ff=256, max_seq_len=64)


WIDE_TOKENS = BATCH // 2 * WIDE.max_seq_len  # of a microbatch


class Case(NamedTuple):
    layers: int
    layout: ParallelLayout
    model: ModelConfig = NARROW


class Seconds(NamedTuple):
    """Of a step on a rank: of one core, the least of all steps, for whatever else runs on the machine makes them more
    and never less; and by the clock, the median."""

    core: float
    clock: float


class Overhead(NamedTuple):
    """Seconds of one core, and of waiting, as `project.planner.cluster.Host` has them; `wide_layer_s` is what a layer
    of `WIDE` takes for `WIDE_TOKENS` tokens, its arithmetic included."""

    block_s: float
    tensor_s: float
    tensor_peer_s: float
    expert_s: float
    expert_peer_s: float
    tensor_wait_s: float
    tensor_wait_peer_s: float
    expert_wait_s: float
    expert_wait_peer_s: float
    ends_s: float
    tensor_ends_s: float
    tensor_ends_peer_s: float
    message_s: float
    step_s: float
    step_peer_s: float
    wide_layer_s: float


def cases() -> dict[str, Case]:
    """Short name to run. All but one of a kind are compared in pairs."""
    alone = ParallelLayout(microbatches=2)
    tp = {n: ParallelLayout(tp=n, microbatches=2) for n in (2, 4)}
    ep = {n: ParallelLayout(dp=n, ep=n, microbatches=2) for n in (2, 4)}
    return {
        "alone": Case(FEW, alone),
        "alone, more layers": Case(MANY, alone),
        "alone, more microbatches": Case(FEW, ParallelLayout(microbatches=8)),
        **{f"tp{n}": Case(FEW, layout) for n, layout in tp.items()},
        **{f"tp{n}, more microbatches": Case(FEW, replace(layout, microbatches=8)) for n, layout in tp.items()},
        **{f"tp{n}, more layers": Case(MANY, layout) for n, layout in tp.items()},
        **{f"ep{n}": Case(FEW, layout) for n, layout in ep.items()},
        **{f"ep{n}, more layers": Case(MANY, layout) for n, layout in ep.items()},
        "pp2": Case(FEW, ParallelLayout(pp=2, microbatches=2)),
        "pp2, more microbatches": Case(FEW, ParallelLayout(pp=2, microbatches=8)),
        "wide": Case(FEW, alone, WIDE),
        "wide, more layers": Case(MANY, alone, WIDE),
    }


def measure(progress: Callable[[str], None]) -> Overhead:
    found = {}
    for name, case in cases().items():
        progress(f"overhead: {name}")
        found[name] = rank_seconds(case)
    return evaluate(found)


def evaluate(spent: dict[str, Seconds]) -> Overhead:
    """From the seconds of a rank and step, by the names of `cases`. What noise makes negative is nothing."""
    more, layers = 6, (MANY - FEW) * 2  # microbatches; layers times microbatches
    found = {name: seconds.core for name, seconds in spent.items()}

    def layer(name: str) -> float:
        return (found[f"{name}, more layers"] - found[name]) / layers

    def wait(name: str) -> float:
        return (spent[f"{name}, more layers"].clock - spent[name].clock) / layers - layer(name)

    def ends(name: str) -> float:
        return (found[f"{name}, more microbatches"] - found[name]) / more - FEW * layer(name)

    def rest(name: str) -> float:
        return found[name] - 2 * (FEW * layer(name) + ends(name))

    # Of two stages each has half of the layers, and of embedding and head.
    message = (found["pp2, more microbatches"] - found["pp2"]) / more - (FEW * layer("alone") + ends("alone")) / 2
    values = Overhead(
        block_s=layer("alone"),
        tensor_s=layer("tp2") - layer("alone"),
        tensor_peer_s=(layer("tp4") - layer("tp2")) / 2,
        expert_s=layer("ep2") - layer("alone"),
        expert_peer_s=(layer("ep4") - layer("ep2")) / 2,
        tensor_wait_s=wait("tp2"),
        tensor_wait_peer_s=(wait("tp4") - wait("tp2")) / 2,
        expert_wait_s=wait("ep2"),
        expert_wait_peer_s=(wait("ep4") - wait("ep2")) / 2,
        ends_s=ends("alone"),
        tensor_ends_s=ends("tp2") - ends("alone"),
        tensor_ends_peer_s=(ends("tp4") - ends("tp2")) / 2,
        message_s=message,
        step_s=rest("alone"),
        step_peer_s=(rest("tp4") - rest("alone")) / 3,
        wide_layer_s=layer("wide"),
    )
    return Overhead(*(max(0.0, value) for value in values))


def rank_seconds(case: Case) -> Seconds:
    """The mean of all ranks."""
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
    """Those that every run has, by configs/callbacks/default.yaml: what they cost is part of a step."""
    return [Communication(), ActivationPeaks(), StepMetrics(), ExpertMetrics()]


class Stopwatch(L.Callback):
    """Each rank leaves its `Seconds` in a file, of a core those of all its threads together."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.marks: list[tuple[float, float]] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        torch.set_num_threads(1)  # a second would spin while it has nothing to do
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
    """Lightning's remarks are for people who train."""
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
