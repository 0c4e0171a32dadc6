"""The interval and the heading that every calibration gives its figures."""

import platform
from collections.abc import Callable
from datetime import date

import torch

from project.engine.host import available_cores
from project.planner.machine.cluster import Stated

Progress = Callable[[str], None]


def around(value: float) -> Stated:
    """A measured figure with an interval from half to twice its value, because one machine was measured once."""
    value = float(value)
    return Stated(value, value / 2, value * 2)


def heading() -> str:
    return (
        f"Measured by `python project/plan.py calibrate=true` on {date.today()}: "
        f"{platform.processor() or platform.machine()}, {available_cores()} cores, torch {torch.__version__}.\n"
        "Of another machine it says nothing: calibrate there."
    )
