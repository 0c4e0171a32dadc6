"""Mendings taken back, and faults put in, each in memory: what `make gpu-check` has to notice."""

from typing import Any

import lightning.pytorch as L
import torch
from torch.distributed.distributed_c10d import Work

from project.callbacks.step_metrics import StepMetrics
from project.engine.mean_loss import MeanLoss
from project.observe.ledger import CollectiveSpans


def log_from_the_host() -> None:
    """The step that a validation is of, logged over ranks as a tensor of the host's."""

    def on_validation_epoch_end(self: StepMetrics, trainer: L.Trainer, module: L.LightningModule) -> None:
        module.log("step", torch.tensor(float(trainer.global_step), dtype=torch.float64), sync_dist=True)

    StepMetrics.on_validation_epoch_end = on_validation_epoch_end  # type: ignore[method-assign]


def ask_no_work() -> None:
    """A collective's end asked of its work, which a synchronous one of NCCL's has not."""

    def follow(self: CollectiveSpans, work: Work, place: int) -> None:
        try:
            work.get_future().add_done_callback(lambda _: self.end(place))
        except RuntimeError:
            return

    CollectiveSpans.follow = follow  # type: ignore[method-assign, assignment]


def read_each_loss() -> None:
    """The host waits for every microbatch's loss."""
    of_microbatch = MeanLoss.of_microbatch

    def reading(self: MeanLoss, *args: Any) -> Any:
        loss = of_microbatch(self, *args)
        assert loss.item() == loss.item()
        return loss

    MeanLoss.of_microbatch = reading  # type: ignore[method-assign]


def weigh_on_the_host() -> None:
    """A factor that is made on the host and copied to the device, for every microbatch."""
    of_microbatch = MeanLoss.of_microbatch

    def weighing(self: MeanLoss, *args: Any) -> Any:
        loss = of_microbatch(self, *args)
        return loss * torch.ones(1).to(loss.device).squeeze()

    MeanLoss.of_microbatch = weighing  # type: ignore[method-assign]


UNDO = {function.__name__: function for function in (log_from_the_host, ask_no_work, read_each_loss, weigh_on_the_host)}
