"""Progress into a pipe or a file: a plain line every few steps."""

from typing import Any

from project.callbacks.step_progress import StepProgress


class PlainProgress(StepProgress):
    def __init__(self, every_n_steps: int) -> None:
        super().__init__()
        self.every_n_steps = every_n_steps

    def show_step(self, step: int, total: int | None, figures: str) -> None:
        if step == 1 or step == total or step % self.every_n_steps == 0:
            self.print(f"step {step}{'' if total is None else f'/{total}'}  {figures}")

    def show_validation(self, step: int, loss: float) -> None:
        self.print(f"step {step}  validation loss {loss:.4f}")

    def print(self, *args: Any, **kwargs: Any) -> None:
        print(*args, **{"flush": True} | kwargs)
