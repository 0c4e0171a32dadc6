"""The figures by which runs are compared, from a `summary.json` or from the planner's figures of the same names."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Figures = Mapping[str, Any]


def _plain(name: str) -> Callable[[Figures], float | None]:
    return lambda summary: summary.get(name)


def _largest(name: str) -> Callable[[Figures], float | None]:
    return lambda summary: max(summary.get(name) or (), default=None)


def _sent(summary: Figures) -> float | None:
    by_axis = summary.get("communication")
    if by_axis is None:
        return None
    return sum(entry["bytes"] for collectives in by_axis.values() for entry in collectives.values())


FIGURES: dict[str, Callable[[Figures], float | None]] = {
    "step_time_s": _plain("step_time_s"),
    "tokens_per_second": _plain("tokens_per_second"),
    "mfu": _plain("mfu"),
    "bubble": _plain("bubble"),
    "peak_memory_bytes": _largest("peak_memory_bytes_per_rank"),
    "parameters": _largest("parameters_per_rank"),
    "communication_bytes": _sent,
    "train_loss_first": _plain("train_loss_first"),
    "train_loss_last": _plain("train_loss_last"),
    "val_loss": _plain("val_loss"),
    "time_to_first_step_s": _plain("time_to_first_step_s"),
}
"""Of a figure that each rank has, the largest: a run is as slow, and needs as much memory, as its largest rank."""


MEDIANS = ("step_time_s", "tokens_per_second", "mfu")
"""Figures that are medians over the steps after the first `WARMUP_STEPS`, which allocate memory and connect ranks."""
WARMUP_STEPS = 2
MORE_IS_BETTER = ("tokens_per_second", "mfu")


def directions(wanted: str | Iterable[str]) -> str | list[str]:
    """`minimize` or `maximize` for each figure, as an optimizing sweeper wants to be told."""
    if isinstance(wanted, str):
        return "maximize" if wanted in MORE_IS_BETTER else "minimize"
    return ["maximize" if name in MORE_IS_BETTER else "minimize" for name in wanted]


def figure(summary: Figures, name: str) -> float | None:
    """None where the run does not have the figure."""
    return FIGURES[name](summary)


def objective(summary: Figures, wanted: str | Iterable[str]) -> float | tuple[float | None, ...] | None:
    """The figure that a sweeper optimizes, or several in the order of `wanted`."""
    return figure(summary, wanted) if isinstance(wanted, str) else tuple(figure(summary, name) for name in wanted)
