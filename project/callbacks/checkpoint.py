"""Lightning's `ModelCheckpoint`, for checkpoints that are written while training goes on."""

from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.fabric.utilities.apply_func import convert_tensors_to_scalars

from project.compat.lightning_internals import (
    Monitored,
    OpenModelCheckpoint,
    accumulates_on,
    row_to_be_logged,
    validation_is_due_again,
)
from project.loggers import MetricsCsv
from project.state.checkpoint.manifest import MANIFEST


def write_row(trainer: L.Trainer) -> None:
    """Writes the row of the step that is over into `metrics.csv`, before a checkpoint says that it is. Lightning logs
    when all callbacks are done: a run killed in between would resume after the step and never write its row."""
    metrics = row_to_be_logged(trainer)
    if metrics is None:
        return
    row = convert_tensors_to_scalars(metrics)
    step = row.pop("step", None)
    for logger in trainer.loggers:
        if isinstance(logger, MetricsCsv) and step is not None:
            logger.log_metrics(row, int(step))


class Checkpoint(OpenModelCheckpoint):
    """Takes all of `ModelCheckpoint`'s options. With `save_last="link"` there is always a last checkpoint to resume
    from: one that is not among the best, or not due at the end, is saved all the same and stays until the next. The
    link moves when its checkpoint is whole.
    """

    beside_the_best = ""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not accumulates_on(trainer):  # gradients are not saved: not halfway through a step
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            self.save_if_stopped(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        super().on_validation_batch_end(trainer, pl_module, *args)
        self.save_if_stopped(trainer)

    def save_if_stopped(self, trainer: L.Trainer) -> None:
        stop = getattr(trainer.strategy, "stop", None)
        if stop is not None and stop.agreed and not self.skips_saving(trainer):
            validation_is_due_again(trainer)
            self.save_now(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.save_last and not self.skips_saving(trainer):
            self.save_now(trainer)

    def save_now(self, trainer: L.Trainer) -> None:
        monitored = self.monitored(trainer)
        self.save_best(trainer, monitored)
        self.save_last_one(trainer, monitored)

    def save(self, trainer: L.Trainer, path: str) -> None:
        write_row(trainer)
        super().save(trainer, path)

    def save_monitored(self, trainer: L.Trainer, monitored: Monitored) -> None:
        super().save_monitored(trainer, monitored)
        if self.save_last == "link" and self.saved_at_step != trainer.global_step:
            previous, self.beside_the_best = self.beside_the_best, self.format_checkpoint_name(monitored)
            self.save(trainer, self.beside_the_best)
            if previous and self.is_to_be_removed(trainer, previous, self.beside_the_best):
                self.remove(trainer, previous)

    def save_last_one(self, trainer: L.Trainer, monitored: Monitored) -> None:
        """Under its one name, whoever has left a link there. Lightning gives it another, `last-v1`, where the state
        that a run went on from does not know of it: that of its first checkpoint, or of none."""
        if self.save_last == "link":
            self.last_model_path = self.format_checkpoint_name(monitored, self.CHECKPOINT_NAME_LAST)
        super().save_last_one(trainer, monitored)

    def is_to_be_removed(self, trainer: L.Trainer, previous: str, current: str) -> bool:
        """Removes also the checkpoint that a run resumed from, which Lightning keeps: every restart would leave one.
        The names of earlier checkpoints are from the state that the run resumed from, which may name anything: only
        what is a checkpoint in this run's folder, without links and `..`, is removed."""
        assert self.dirpath is not None
        path, own = Path(previous).absolute(), Path(self.dirpath).resolve()
        inside = own in path.resolve().parents and not path.is_symlink()
        return inside and path.resolve() != Path(current).resolve() and (path / MANIFEST).is_file()

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"beside_the_best": self.beside_the_best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if state_dict["dirpath"] == self.dirpath:
            self.beside_the_best = state_dict.get("beside_the_best", "")

    @staticmethod
    def link(trainer: L.Trainer, path: str, link: str) -> None:
        own = getattr(trainer.strategy, "link_checkpoint", None)
        if own is None:
            OpenModelCheckpoint.link(trainer, path, link)
        else:
            own(path, link)
