"""Common look of the pages: colours, the legend, and numbers in words.

Colours of categories can be told apart by colour-blind readers on light and dark ground (Okabe and Ito, "Color
Universal Design", 2008); amounts are drawn in viridis.
"""

from collections.abc import Callable
from typing import Any

from project.spec.units import number

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, VERMILION, YELLOW = "#56B4E9", "#D55E00", "#F0E442"
FAINT, GREY = "rgba(128,128,128,0.18)", "rgba(128,128,128,0.55)"
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, VERMILION, YELLOW) * 2
"""Colours of categories, in order; beyond seven they repeat."""
AMOUNTS = "Viridis"
STAGES = ((0.0, "#123a57"), (0.5, "#1f78ac"), (1.0, "#9fd3f0"))
"""Colour scale of pipeline stages: adjacent rows differ in lightness."""
KINDS = {
    "forward": BLUE,
    "backward": ORANGE,
    "weight gradient": GREEN,
    "send/receive": PINK,
    "gradients": SKY,
    "optimizer": VERMILION,
    "data": YELLOW,
    "other": GREY,
    "idle": FAINT,
}
"""Colours of the kinds of spans in a step, in the order of the legend."""
LEGEND: dict[str, Any] = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
"""Legend in a row above the chart."""
MB = 1e6

Form = Callable[[float], str]
"""Writes a number with its unit."""


def seconds(value: float) -> str:
    return number(value, "s")


def percent(value: float) -> str:
    return f"{value:.1%}"


def count(value: float) -> str:
    return f"{value:,.0f}"


def size(value: float) -> str:
    return number(value, "B")
