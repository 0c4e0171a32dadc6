"""Lightning's `ModelCheckpoint`, whose private steps a subclass calls and replaces under public names."""

import lightning.pytorch as L
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

Monitored = dict[str, Tensor]


class OpenModelCheckpoint(ModelCheckpoint):
    """Base of a callback that saves in its own way. `save`, `save_monitored`, `save_last_one`, `is_to_be_removed` and
    `link` are Lightning's unless overridden; the rest is called."""

    def monitored(self, trainer: L.Trainer) -> Monitored:
        """Returns the metrics by which checkpoints are named and compared, with `epoch` and `step`."""
        return self._monitor_candidates(trainer)

    def skips_saving(self, trainer: L.Trainer) -> bool:
        """Tells whether nothing is to be saved: no fit, a sanity check, or saved at this step already."""
        return self._should_skip_saving_checkpoint(trainer)

    @property
    def saved_at_step(self) -> int:
        """The trainer's `global_step` at the last save."""
        return self._last_global_step_saved

    def save_best(self, trainer: L.Trainer, monitored: Monitored) -> None:
        """Saves if the present weights are among the `save_top_k`."""
        self._save_topk_checkpoint(trainer, monitored)

    def remove(self, trainer: L.Trainer, path: str) -> None:
        """Asks the strategy to remove a checkpoint."""
        self._remove_checkpoint(trainer, path)

    def save(self, trainer: L.Trainer, path: str) -> None:
        """Saves a checkpoint under a path."""
        super()._save_checkpoint(trainer, path)

    def save_monitored(self, trainer: L.Trainer, monitored: Monitored) -> None:
        """Saves if the monitored metric is among the best, and removes the checkpoint that no longer is."""
        super()._save_monitor_checkpoint(trainer, monitored)

    def save_last_one(self, trainer: L.Trainer, monitored: Monitored) -> None:
        """Saves or links the last checkpoint, as `save_last` asks for."""
        super()._save_last_checkpoint(trainer, monitored)

    def is_to_be_removed(self, trainer: L.Trainer, previous: str, current: str) -> bool:
        """Tells whether `previous` goes now that `current` is there."""
        return super()._should_remove_checkpoint(trainer, previous, current)

    @staticmethod
    def link(trainer: L.Trainer, path: str, link: str) -> None:
        """Makes `link` lead to the checkpoint."""
        ModelCheckpoint._link_checkpoint(trainer, path, link)

    # Lightning calls these.

    def _save_checkpoint(self, trainer: L.Trainer, filepath: str) -> None:
        self.save(trainer, filepath)

    def _save_monitor_checkpoint(self, trainer: L.Trainer, monitor_candidates: Monitored) -> None:
        self.save_monitored(trainer, monitor_candidates)

    def _save_last_checkpoint(self, trainer: L.Trainer, monitor_candidates: Monitored) -> None:
        self.save_last_one(trainer, monitor_candidates)

    def _should_remove_checkpoint(self, trainer: L.Trainer, previous: str, current: str) -> bool:
        return self.is_to_be_removed(trainer, previous, current)

    def _link_checkpoint(self, trainer: L.Trainer, filepath: str, linkpath: str) -> None:  # type: ignore[override]
        self.link(trainer, filepath, linkpath)
