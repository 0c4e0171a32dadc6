"""Features of Lightning that this strategy does not have, refused by name before a weight moves; docs/lightning.md has
the whole table.

The schedule runs forward and backward in one, on parts of the model. So whatever keeps a copy of the whole module,
drives the backward itself, or expects one from what `training_step` returns would do nothing, without a word.
"""

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch import callbacks
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

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


def keep_gradients(module: L.LightningModule, *args: Any, **kwargs: Any) -> None:
    """A module's `optimizer_zero_grad` that does nothing: Lightning calls it between `training_step` and backward, when
    the gradients are there already. The step clears them after the optimizer's."""


def check_module(module: L.LightningModule) -> None:
    """Raises Unsupported for a module with manual optimization, or with a hook that would undo the schedule's backward
    or never be called."""
    if not module.automatic_optimization:
        raise Unsupported(
            f"{type(module).__name__} has automatic_optimization=False: under HybridParallelStrategy the schedule runs "
            "backward, and Lightning's loop the optimizer; legal: automatic_optimization=True"
        )
    name = type(module).__name__
    if type(module).backward is not L.LightningModule.backward:
        raise Unsupported(
            f"{name} has a backward of its own, which nobody would call: the schedule runs that of `loss`, where "
            "factors and terms belong; gradients can be changed in on_after_backward or on_before_optimizer_step"
        )
    if type(module).optimizer_zero_grad is not keep_gradients:
        raise Unsupported(
            f"{name} has an optimizer_zero_grad of its own, which would clear the gradients before the optimizer's "
            "step: Lightning calls it after training_step, in which the schedule has run backward; the step clears them"
        )


def check_parts(module: L.LightningModule) -> None:
    """Warns of values beside the parts, which no checkpoint has.

    Raises:
        Unsupported: for parameters beside them.
    """
    beside = [name for name in module.state_dict() if not name.startswith("parts.")]
    learnt = [name for name, _ in module.named_parameters() if not name.startswith("parts.")]
    if learnt:
        raise Unsupported(
            f"{type(module).__name__} has parameters that are in none of its parts: {', '.join(learnt)}; ranks would "
            "not sum their gradients, and checkpoints would not have them; make them in build_part"
        )
    if beside:
        rank_zero_warn(
            f"{type(module).__name__} has buffers that are in none of its parts, and so in no checkpoint: "
            f"{', '.join(beside)}; persistent=False says that this is meant"
        )


def check_optimizers(optimizers: Iterable[Optimizer]) -> None:
    """Raises Unsupported for an optimizer that asks for the loss several times a step, as LBFGS does."""
    for optimizer in optimizers:
        closure = inspect.signature(type(optimizer).step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise Unsupported(
                f"the optimizer {type(optimizer).__name__} runs forward and backward within its step; a schedule's "
                "gradients are computed once, before it"
            )


def check_trainer(trainer: L.Trainer) -> None:
    """Raises Unsupported for callbacks of the Trainer's, all named at once, and for what is no callback or profiler."""
    given = [(each, L.Callback) for each in trainer.callbacks]  # type: ignore[attr-defined]
    for each, kind in [*given, (trainer.profiler, Profiler)]:  # type: ignore[attr-defined]
        if not isinstance(each, kind):
            raise Unsupported(f"{each!r} is no {kind.__name__} of Lightning's")
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


def check_returned(returned: Any, losses: Sequence[Tensor]) -> None:
    """Checks what `training_step` returned against the losses of the batches that it ran: their sum, their mean, or the
    last one. Backward has run: anything else would be ignored. Only a tensor of its own has the host wait for it.

    Raises:
        Unsupported: if it is something else, or has a graph, or is None though a batch was run.
    """
    if isinstance(returned, Mapping):
        returned = returned.get("loss")
    if returned is None and losses:
        raise Unsupported(
            "training_step returned None, which would skip a batch whose gradients the schedule has computed; return "
            "what run_batch or train_batch returned, or decide before they run"
        )
    if not isinstance(returned, Tensor) or any(returned is loss for loss in losses):
        return
    if returned.requires_grad:
        raise Unsupported(
            "what training_step returned has a graph of its own, and nobody runs its backward: the schedule has run "
            "that of `loss`, where such terms belong; return what run_batch or train_batch returned"
        )
    if not losses:
        return
    of_batches = torch.stack([loss.detach().double() for loss in losses])
    value = returned.item()
    legal = [of_batches.sum().item(), of_batches.mean().item(), of_batches[-1].item()]
    if math.isfinite(value) and not any(math.isclose(value, one, rel_tol=1e-3, abs_tol=1e-12) for one in legal):
        raise Unsupported(
            f"training_step returned {value:g}, but the loss whose gradients the schedule computed is {legal[-1]:g}: a "
            "factor or a term belongs into `loss`; return what run_batch or train_batch returned"
        )
