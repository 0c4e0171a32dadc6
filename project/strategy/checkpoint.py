"""A run's checkpoints as Lightning asks the strategy for them: saved under one layout, resumed under any.

The format is `project.state.checkpoint`, the state by global names `project.state.run_state`.
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.distributed as dist
from torch import nn

from project.compat.lightning_internals import random_state, set_random_state
from project.engine.mesh import gathered
from project.spec.layout import ParallelLayout
from project.state.checkpoint.agreement import each_for_itself, raise_everywhere
from project.state.checkpoint.form import meta_of, rank_of
from project.state.checkpoint.manifest import ANOTHER, BEGIN, CheckpointError, rank_file, weights_alone
from project.state.checkpoint.reader import Checkpoint
from project.state.checkpoint.snapshot import fill
from project.state.checkpoint.writer import CheckpointWriter
from project.state.run_state import NamedOptimizer, SavedGroups, Tensors, weights


class RunCheckpoints:
    """Writes while training goes on if `asynchronous`; `run_config` goes into every checkpoint.

    Attributes:
        random_state: this rank's random numbers as they were saved, to go on with; None under another layout.
    """

    def __init__(self, layout: ParallelLayout, asynchronous: bool, run_config: Mapping[str, Any]) -> None:
        self.layout, self.run_config = layout, run_config
        self.writer = CheckpointWriter(asynchronous)
        self.random_state: dict[str, Any] | None = None

    # -- save ---------------------------------------------------------------------------------------------------------

    def save(self, checkpoint: dict[str, Any], path: Path, device: torch.device, *, at_once: bool) -> None:
        """Writes this rank's share of Lightning's `checkpoint`, whose tensors and per-rank entries it takes out.

        Raises:
            CheckpointError: on all ranks, if one could not write.
        """
        kinds = {"weights": checkpoint.pop("state_dict")}
        optimizers = checkpoint.pop("optimizer_states", None)
        if optimizers is not None:
            kinds["optimizer"] = {name: tensor for each in optimizers for name, tensor in each["tensors"].items()}
        rank_state = {
            "optimizers": [each["groups"] for each in optimizers or ()],
            "lr_schedulers": checkpoint.pop("lr_schedulers", []),
            "random": random_state(device),
        }
        meta = checkpoint | {
            "layout": asdict(self.layout),
            "world_size": dist.get_world_size(),
            "weights_only": optimizers is None,
            "versions": versions(),
            "config": self.run_config,
        }
        self.writer.save(path, kinds, rank_state, meta, at_once=at_once)

    # -- load ---------------------------------------------------------------------------------------------------------

    def load_weights(self, path: str, parts: Sequence[nn.Module], *, fitting: bool) -> Checkpoint:
        """Opens the checkpoint, whatever layout it was saved under, and fills the parts' weights and buffers.

        Raises:
            CheckpointError: on all ranks, for one that is damaged, not to be trusted, of another model, or, while
                fitting, of weights alone.
        """
        checkpoint = Checkpoint(path)
        if fitting and weights_alone(checkpoint.files):
            raise CheckpointError(checkpoint.path, "has weights alone, no run to go on with", BEGIN)
        compare = partial(checkpoint.verify, dist.get_rank(), dist.get_world_size())
        each_for_itself(compare, f"reading {checkpoint.path.name}")
        here = weights(parts)
        raise_everywhere(another_model(checkpoint, here, set().union(*gathered(list(here)))))
        each_for_itself(partial(fill, here, checkpoint), f"reading {checkpoint.path.name}")
        return checkpoint

    def load_optimizers(
        self, checkpoint: Checkpoint, optimizers: Sequence[NamedOptimizer], schedulers: int
    ) -> dict[str, Any]:
        """Fills the optimizers and returns what is left for Lightning to restore: loops, callbacks, and the states of
        so many schedulers."""
        restored = meta_of(checkpoint)
        same = restored["layout"] == asdict(self.layout)
        needed = [dist.get_rank()] if same else range(restored["world_size"])
        ranks = [rank_of(checkpoint, rank) for rank in needed]
        saved = SavedGroups(ranks)
        try:
            for optimizer in optimizers:
                read = partial(fill, optimizer.to_be_filled(checkpoint), checkpoint)
                each_for_itself(read, f"reading {checkpoint.path.name}")
                optimizer.restore_groups(saved)
            restored["lr_schedulers"] = [
                saved.scheduler(number, ranks[0]["lr_schedulers"][number], optimizers[0])
                for number in range(schedulers)
            ]
        except (KeyError, IndexError) as error:
            lacking = f"lacks a group or a schedule of this run's optimizer ({error})"
            raise CheckpointError(checkpoint.path / rank_file(needed[0]), lacking, ANOTHER) from None
        restored["optimizer_states"] = []  # Lightning looks whether they are there
        self.random_state = ranks[0]["random"] if same else None
        return restored

    def restore_random_numbers(self, device: torch.device) -> None:
        if self.random_state is not None:
            set_random_state(self.random_state, device)


def another_model(checkpoint: Checkpoint, here: Tensors, everywhere: set[str]) -> CheckpointError | None:
    """The first difference between the saved model and this one; None if they agree."""
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
