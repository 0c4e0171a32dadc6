"""Lightning's `ModelCheckpoint`, for checkpoints that are written while training goes on."""

from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.fabric.utilities.apply_func import convert_tensors_to_scalars
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from project.loggers import MetricsCsv


def write_row(trainer: L.Trainer) -> None:
    """Of the step that is over into `metrics.csv`, before a checkpoint says that it is. Lightning logs when all
    callbacks are done: a run that is killed in between would go on behind the step, and the row be nobody's."""
    connector = trainer._logger_connector
    in_a_batch = connector._first_loop_iter is not None
    if not in_a_batch or not connector.should_update_logs:
        return
    row = convert_tensors_to_scalars(connector.metrics["log"])
    step = row.pop("step", None)
    for logger in trainer.loggers:
        if isinstance(logger, MetricsCsv) and step is not None:
            logger.log_metrics(row, int(step))


class Checkpoint(ModelCheckpoint):
    """All of `ModelCheckpoint`'s options. With `save_last="link"` there is always a last checkpoint to go on from: one
    that is not among the best, or not due at the end, is saved all the same and stays until the next. The link moves
    when its checkpoint is whole.
    """

    beside_the_best = ""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.fit_loop._should_accumulate():  # gradients are not saved: not halfway through a step
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
            stop = getattr(trainer.strategy, "stop", None)
            if stop is not None and stop.agreed and not self._should_skip_saving_checkpoint(trainer):
                self.save_now(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.save_last and not self._should_skip_saving_checkpoint(trainer):
            self.save_now(trainer)

    def save_now(self, trainer: L.Trainer) -> None:
        candidates = self._monitor_candidates(trainer)
        self._save_topk_checkpoint(trainer, candidates)
        self._save_last_checkpoint(trainer, candidates)

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        write_row(trainer)
        super()._save_checkpoint(trainer, filepath)

    def _save_monitor_checkpoint(self, trainer: L.Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        super()._save_monitor_checkpoint(trainer, monitor_candidates)
        if self.save_last == "link" and self._last_global_step_saved != trainer.global_step:
            previous, self.beside_the_best = self.beside_the_best, self.format_checkpoint_name(monitor_candidates)
            self._save_checkpoint(trainer, self.beside_the_best)
            if previous and self._should_remove_checkpoint(trainer, previous, self.beside_the_best):
                self._remove_checkpoint(trainer, previous)

    def _save_last_checkpoint(self, trainer: L.Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        """Under its one name, whoever has left a link there. Lightning gives it another, `last-v1`, where the state
        that a run went on from does not know of it: that of its first checkpoint, or of none."""
        if self.save_last == "link":
            self.last_model_path = self.format_checkpoint_name(monitor_candidates, self.CHECKPOINT_NAME_LAST)
        super()._save_last_checkpoint(trainer, monitor_candidates)

    def _should_remove_checkpoint(self, trainer: L.Trainer, previous: str, current: str) -> bool:
        """Lightning's spares the one that a run went on from: every restart would leave one behind."""
        assert self.dirpath is not None
        return previous != current and Path(self.dirpath).absolute() in Path(previous).absolute().parents

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"beside_the_best": self.beside_the_best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if state_dict["dirpath"] == self.dirpath:
            self.beside_the_best = state_dict.get("beside_the_best", "")

    @staticmethod
    def _link_checkpoint(trainer: L.Trainer, filepath: str, linkpath: str) -> None:
        link = getattr(trainer.strategy, "link_checkpoint", None)
        if link is None:
            ModelCheckpoint._link_checkpoint(trainer, filepath, linkpath)
        else:
            link(filepath, linkpath)
