"""Features of Lightning that this strategy does not have, refused by name before a weight moves; docs/lightning.md has
the whole table.

The schedule runs forward and backward in one, on parts of the model. So whatever keeps a copy of the whole module,
drives the backward itself, or expects one from what `training_step` returns would do nothing, without a word.
"""

import math
from collections.abc import Sequence

import lightning.pytorch as L
import torch
from lightning.pytorch import callbacks
from torch import Tensor

from project.spec.fault import Told

AVERAGED = "it averages a copy of the module that is made before the module has its parts"
CALLBACKS: dict[type[L.Callback], str] = {
    callbacks.StochasticWeightAveraging: AVERAGED,
    callbacks.WeightAveraging: AVERAGED,
    callbacks.ModelPruning: "it replaces parameters by masked ones, which are no shards",
    callbacks.BaseFinetuning: "it freezes and unfreezes modules by the whole model's attributes",
    callbacks.BatchSizeFinder: "the pipeline's buffers have the shape of the first batch; plan.py says what fits",
    callbacks.LearningRateFinder: "it saves and restores a state of its own in the middle of a fit",
}
"""Lightning's callbacks that have no effect or a wrong one here, and why. Those derived from them are meant too."""


class Unsupported(Told, ValueError):
    """A feature of Lightning that this strategy does not have."""


def check_module(module: L.LightningModule) -> None:
    """Raises Unsupported for a module with manual optimization."""
    if not module.automatic_optimization:
        raise Unsupported(
            f"{type(module).__name__} has automatic_optimization=False: under HybridParallelStrategy the schedule runs "
            "backward, and Lightning's loop the optimizer; legal: automatic_optimization=True"
        )


def check_trainer(trainer: L.Trainer) -> None:
    """Raises Unsupported for callbacks of the Trainer's, all named at once."""
    named = [
        f"{type(callback).__name__}: {why}"
        for callback in trainer.callbacks  # type: ignore[attr-defined]
        for kind, why in CALLBACKS.items()
        if isinstance(callback, kind)
    ]
    if named:
        raise Unsupported("callbacks that HybridParallelStrategy cannot serve: " + "; ".join(dict.fromkeys(named)))


def check_anomaly_detection() -> None:
    """Raises Unsupported under `detect_anomaly`: a stage's backward runs outside of the forward that it would show."""
    if torch.is_anomaly_enabled():
        raise Unsupported(
            "trainer.detect_anomaly=True: a schedule runs backward apart from the forward that autograd would show; "
            "without it a step that is not finite ends the run and names the weight or gradient, its stage and rank"
        )


def check_returned(returned: Tensor, losses: Sequence[Tensor], accumulate: int) -> None:
    """Checks what `training_step` returned, divided by `accumulate` as Lightning does, against the losses of the
    batches that it ran: their sum, their mean, or the last one. Backward has run: anything else would be ignored.

    Raises:
        Unsupported: if it is something else, or has a graph.
    """
    if returned.requires_grad:
        raise Unsupported(
            "what training_step returned has a graph of its own, and nobody runs its backward: the schedule has run "
            "that of `loss`, where such terms belong; return what run_batch or train_batch returned, or None"
        )
    if not losses:
        return
    of_batches = torch.stack([loss.detach().double() for loss in losses])
    value = returned.item() * accumulate
    legal = [of_batches.sum().item(), of_batches.mean().item(), of_batches[-1].item()]
    if math.isfinite(value) and not any(math.isclose(value, one, rel_tol=1e-3, abs_tol=1e-12) for one in legal):
        raise Unsupported(
            f"training_step returned {value:g}, but the loss whose gradients the schedule computed is {legal[-1]:g}: a "
            "factor or a term belongs into `loss`; return what run_batch or train_batch returned"
        )
