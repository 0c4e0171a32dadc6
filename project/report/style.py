"""Common look of the pages: colours, the legend, and numbers in words.

Colours of categories can be told apart by colour-blind readers on light and dark ground (Okabe and Ito, "Color
Universal Design", 2008); amounts are drawn in viridis.
"""

from collections.abc import Callable
from typing import Any

from project.spec.units import number

BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, VERMILION, YELLOW = "#56B4E9", "#D55E00", "#F0E442"
AMBER = "#B57C00"
"""The orange of lines and markers: three times as light or dark as either ground, which ORANGE is not on white."""
FAINT, GREY = "rgba(128,128,128,0.18)", "#7F7F7F"
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, VERMILION, YELLOW) * 2
"""Colours of categories, in order; beyond seven they repeat."""
AMOUNTS = "Viridis"
LINE_AMOUNTS = (0.38, 0.58)
"""The part of `AMOUNTS` whose colours stand out as lines, by 3 to 1, on light and on dark ground."""
DASHES = ("solid", "dash", "dot", "dashdot")
GROUNDS = ("#ffffff", "#1b1f25")
"""The grounds of figures (--card of page.css), light and dark."""
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


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` or `rgb(r, g, b)`, from 0 to 1 (WCAG 2.2)."""
    if colour.startswith("#"):
        parts = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    else:
        parts = [int(float(part)) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 3294.6 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Ratio of two colours' luminances, from 1 to 21 (WCAG 2.2): text wants 4.5, lines and marks 3."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def ink(ground: str) -> str:
    """Black or white, whichever is read better on a ground; one of them always has a contrast of 4.5."""
    return max(("#000000", "#ffffff"), key=lambda text: contrast(text, ground))


def seconds(value: float) -> str:
    return number(value, "s")


def percent(value: float) -> str:
    return f"{value:.1%}"


def count(value: float) -> str:
    return f"{value:,.0f}"


def size(value: float) -> str:
    return number(value, "B")
