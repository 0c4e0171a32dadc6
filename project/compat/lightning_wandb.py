"""Lightning's logger for Weights & Biases, with the run that it begins and the arguments that it begins it with."""

from typing import Any

from lightning.pytorch.loggers import WandbLogger


class OpenWandbLogger(WandbLogger):
    """Base of a logger that decides itself when its run begins, goes on and ends."""

    @property
    def init_arguments(self) -> dict[str, Any]:
        """The keyword arguments of `wandb.init`, to be changed before the run begins."""
        return self._wandb_init

    @property
    def begun(self) -> Any | None:
        """The run, or None before it has begun; `experiment` would begin it."""
        return self._experiment

    def go_on_with(self, run_id: str) -> None:
        """Has the next run be another part of the one with this id."""
        self._wandb_init["id"] = self._id = run_id

    def let_go(self) -> Any | None:
        """Returns the run, or None, and forgets it: what is logged afterwards goes on with its id."""
        run, self._experiment = self._experiment, None
        if run is not None:
            self._wandb_init["id"] = run.id
        return run
