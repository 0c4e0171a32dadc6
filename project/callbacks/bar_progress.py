"""Progress on a terminal: a bar, and under it the last step's figures."""

from collections.abc import Iterable
from typing import Any

import lightning.pytorch as L
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from project.callbacks.step_progress import StepProgress, total_steps


class BarWithFigures(Progress):
    """A bar, and under it a line with the last step's figures."""

    figures = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield Text(self.figures)


class BarProgress(StepProgress):
    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self.console = console or Console()
        self.bar: BarWithFigures | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self.enabled:
            columns = (
                TextColumn("step"),
                MofNCompleteColumn(),
                BarColumn(bar_width=None),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[validation]}"),
            )
            # Twice a second is often enough to see, and leaves the cores to the ranks.
            self.bar = BarWithFigures(*columns, console=self.console, refresh_per_second=2, expand=True)
            self.bar.add_task("training", total=total_steps(trainer), completed=self.last_step, validation="")
            self.bar.start()

    def show_step(self, step: int, total: int | None, figures: str) -> None:
        if self.bar is not None:
            self.bar.figures = figures
            self.bar.update(self.bar.task_ids[0], completed=step)

    def show_validation(self, step: int, loss: float) -> None:
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], validation=f"val loss {loss:.4f}")

    def print(self, *args: Any, **kwargs: Any) -> None:
        self.console.print(*args, **kwargs)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.bar is not None:
            self.bar.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Stops the bar and shows the cursor, also in the parent of forked ranks, which has no bar: rank 0 may have
        been killed with the cursor hidden."""
        if self.bar is not None:
            self.bar.stop()
        self.console.show_cursor()
