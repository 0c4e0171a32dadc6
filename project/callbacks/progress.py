"""The progress display that suits standard output."""

import sys

from project.callbacks.bar_progress import BarProgress
from project.callbacks.plain_progress import PlainProgress
from project.callbacks.step_progress import StepProgress


def progress(every_n_steps: int) -> StepProgress:
    """Returns a bar on a terminal; elsewhere plain lines, one every so many steps."""
    return BarProgress() if sys.stdout.isatty() else PlainProgress(every_n_steps)
