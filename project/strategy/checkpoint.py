"""The strategy's half that Lightning asks for checkpoints: saved under one layout, resumed under any.

The format is `project.state.checkpoint`, what is saved `strategy.state`, how it is written `strategy.writer`.
"""

import platform
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.distributed as dist
from lightning.pytorch.trainer.states import TrainerFn
from torch.optim import Optimizer

from project.compat.lightning_strategy import random_state, set_random_state
from project.spec.layout import ParallelLayout
from project.state.checkpoint.error import BEGIN, CheckpointError
from project.state.checkpoint.form import Rank, Run, has_form
from project.state.checkpoint.last import put_link
from project.state.checkpoint.manifest import META, rank_file, weights_alone
from project.state.checkpoint.partial import remove_checkpoint
from project.state.checkpoint.reader import Checkpoint
from project.strategy.module import HybridModule
from project.strategy.ranks import RanksStrategy
from project.strategy.snapshot import fill
from project.strategy.state import NamedOptimizer, SavedGroups, Tensors, weights
from project.strategy.writer import CheckpointWriter, raise_everywhere


class CheckpointedStrategy(RanksStrategy):
    """`asynchronous` says that files are written while training goes on; `run_config` goes into every checkpoint."""

    def __init__(
        self, layout: ParallelLayout, timeout: timedelta, asynchronous: bool, run_config: Mapping[str, Any]
    ) -> None:
        super().__init__(layout, timeout)
        self.writer = CheckpointWriter(asynchronous)
        self.run_config = run_config
        self.random_state: dict[str, Any] | None = None

    @property
    def hybrid_module(self) -> HybridModule:
        assert isinstance(self.lightning_module, HybridModule)
        return self.lightning_module

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return dict(weights(self.hybrid_module))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        named = self.named_optimizers()[self.optimizers.index(optimizer)]
        return {"tensors": named.tensors(), "groups": named.groups()}

    def named_optimizers(self) -> list[NamedOptimizer]:
        return [NamedOptimizer(index, each, self.hybrid_module) for index, each in enumerate(self.optimizers)]

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Each rank its share (`strategy.checkpoint`).

        Raises:
            CheckpointError: on all ranks, if one could not write.
        """
        if storage_options is not None:
            raise TypeError("storage_options are for a CheckpointIO plugin, which this strategy does not use")
        kinds = {"weights": checkpoint.pop("state_dict")}
        optimizers = checkpoint.pop("optimizer_states", None)
        if optimizers is not None:
            kinds["optimizer"] = {name: tensor for each in optimizers for name, tensor in each["tensors"].items()}
        rank_state = {
            "optimizers": [each["groups"] for each in optimizers or ()],
            "lr_schedulers": checkpoint.pop("lr_schedulers", []),
            "random": random_state(cuda=self.root_device.type == "cuda"),
        }
        meta = checkpoint | {
            "layout": asdict(self.layout),
            "world_size": self.world_size,
            "weights_only": optimizers is None,
            "versions": versions(),
            "config": self.run_config,
        }
        # The last one has nothing to overlap with, and needs no memory for a copy.
        training = self.hybrid_module.trainer.training and not self.hybrid_module.trainer.fit_loop.epoch_loop.done
        self.writer.save(Path(self.broadcast(filepath)), kinds, rank_state, meta, at_once=not training)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Whatever layout it was saved under. Fills weights, and while fitting the optimizers; the rest is Lightning's.

        Raises:
            CheckpointError: for one that is damaged, not to be trusted, of another model, or, while fitting, of weights
                alone.
        """
        checkpoint = Checkpoint(self.broadcast(str(checkpoint_path)))
        fitting = self.hybrid_module.trainer.state.fn == TrainerFn.FITTING
        if fitting and weights_alone(checkpoint.files):
            raise CheckpointError(checkpoint.path, "has weights alone, no run to go on with", BEGIN)
        raise_everywhere(verified(checkpoint, self.global_rank, self.world_size))
        here = weights(self.hybrid_module)
        names: list[Any] = [None] * self.world_size
        dist.all_gather_object(names, list(here))
        raise_everywhere(another_model(checkpoint, here, set().union(*names)))
        fill(here, checkpoint)
        restored = dict(checkpoint.meta)
        if fitting:
            self.restore_optimizers(checkpoint, has_form(restored, Run, checkpoint.path / META))
        return restored

    def restore_optimizers(self, checkpoint: Checkpoint, restored: dict[str, Any]) -> None:
        same = restored["layout"] == asdict(self.layout)
        needed = [self.global_rank] if same else range(restored["world_size"])
        ranks = [has_form(checkpoint.of_rank(rank), Rank, checkpoint.path / rank_file(rank)) for rank in needed]
        saved, optimizers = SavedGroups(ranks), self.named_optimizers()
        for optimizer in optimizers:
            fill(optimizer.to_be_filled(checkpoint), checkpoint)
            optimizer.restore_groups(saved)
        trainer = self.hybrid_module.trainer
        restored["lr_schedulers"] = [
            saved.scheduler(number, ranks[0]["lr_schedulers"][number], optimizers[0])
            for number, _ in enumerate(trainer.lr_scheduler_configs)
        ]
        restored["optimizer_states"] = []  # Lightning looks whether they are there
        self.random_state = ranks[0]["random"] if same else None

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Done by `load_checkpoint`."""

    def remove_checkpoint(self, filepath: str | Path) -> None:
        """When what is underway is whole: until then the older one is the last."""
        self.writer.then(lambda: remove_checkpoint(Path(filepath)))

    def link_checkpoint(self, filepath: str | Path, link: str | Path) -> None:
        """As `remove_checkpoint`, so that the link never leads nowhere."""
        self.writer.then(lambda: put_link(Path(filepath), Path(link)))

    def on_train_start(self) -> None:
        """The last thing before the first batch: what sets a run up may have drawn numbers."""
        super().on_train_start()
        if self.random_state is not None:
            set_random_state(self.random_state)

    def on_train_end(self) -> None:
        super().on_train_end()
        self.writer.drain()

    def teardown(self) -> None:
        super().teardown()
        self.writer.release()


def verified(checkpoint: Checkpoint, share: int, of: int) -> CheckpointError | None:
    try:
        checkpoint.verify(share, of)
    except CheckpointError as error:
        return error
    return None


def another_model(checkpoint: Checkpoint, here: Tensors, everywhere: set[str]) -> CheckpointError | None:
    """If what it was saved of is not this one: the first difference."""
    remedy = "resume with the model that it was saved of"
    for name, tensor in here.items():
        if name not in checkpoint.weights:
            return CheckpointError(checkpoint.path, f"has no {name}", remedy)
        if (shape := checkpoint.weights[name].shape) != tensor.shape:
            return CheckpointError(checkpoint.path, f"has {name} as {list(shape)}, not {list(tensor.shape)}", remedy)
    if left := sorted(checkpoint.weights.keys() - everywhere):
        return CheckpointError(checkpoint.path, f"has {left[0]}, which this model has not", remedy)
    return None


def versions() -> dict[str, str]:
    return {"torch": torch.__version__, "lightning": lightning.__version__, "python": platform.python_version()}
