"""Runs on the pool's ranks that save checkpoints, resume from them, and return their final tensors."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from project.callbacks.checkpoint import Checkpoint
from project.data.datamodule import TokenDataModule
from project.data.synthetic import SyntheticCorpus
from project.strategy.hybrid import HybridParallelStrategy
from tests.harness.case import Case
from tests.harness.outcome import merged
from tests.harness.ranks import RankPools
from tests.harness.trainer import trainer
from tests.harness.training import CaseModule, Numbers


@dataclass
class Ending:
    """A rank's losses, and its weights, buffers and optimizer moments at the end, whole and by global name."""

    losses: list[float] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)


def data(case: Case) -> TokenDataModule:
    corpus = SyntheticCorpus(num_tokens=case.batch * case.seq_len * 100)
    return TokenDataModule(
        corpus,
        seq_len=case.seq_len,
        batch_size=case.batch,
        vocab_size=case.model.vocab_size,
        num_workers=0,
        show_progress=False,
    )


def run(
    rank: int,
    world_size: int,
    case: Case,
    folder: Path,
    resume: Path | None = None,
    callbacks: tuple[L.Callback, ...] = (),
    strategy: HybridParallelStrategy | None = None,
    tensors: bool = True,
    **checkpoint: Any,
) -> Ending:
    """Trains up to `case.steps`. `checkpoint` is the callback's options; by default every 2 steps, all kept. The ending
    is without its tensors if nobody looks at them."""
    numbers = Numbers()
    options = {"filename": "{step}", "every_n_train_steps": 2, "save_top_k": -1, "save_last": "link"} | checkpoint
    engine = trainer(
        rank,
        world_size,
        case,
        max_steps=case.steps,
        limit_val_batches=0,
        callbacks=[numbers, Checkpoint(dirpath=folder, **options), *callbacks],
        enable_checkpointing=True,
        strategy=strategy or HybridParallelStrategy(case.layout, case.precision),
    )
    engine.fit(CaseModule(case), data(case), ckpt_path=resume)
    return Ending(numbers.outcome.losses, all_tensors(engine) if tensors else {})


def all_tensors(engine: L.Trainer) -> dict[str, Tensor]:
    strategy: Any = engine.strategy
    tensors = strategy.lightning_module_state_dict()
    for optimizer in strategy.named_optimizers():
        tensors |= optimizer.tensors()
    return {name: (t.full_tensor() if isinstance(t, DTensor) else t).detach().clone() for name, t in tensors.items()}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that are missing on one side or not bit-identical."""
    names = one.keys() | other.keys()
    return sorted(n for n in names if n not in one or n not in other or not torch.equal(one[n], other[n]))


def train(pools: RankPools, case: Case, folder: Path, resume: Path | None = None, **options: Any) -> Ending:
    return merged(pools.run(case.layout.world_size, run_with, case, folder, resume, options))


def run_with(rank: int, world_size: int, case: Case, folder: Path, resume: Path | None, options: dict) -> Ending:
    return run(rank, world_size, case, folder, resume, **options)
