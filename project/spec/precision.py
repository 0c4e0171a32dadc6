"""How wide numbers are under each of Lightning's precisions, as `project.strategy.precision` and the model have it."""

from __future__ import annotations

from typing import NamedTuple

FLOAT, DOUBLE, INT64, INT32, BOOL = 4, 8, 8, 4, 1


class Width(NamedTuple):
    """Bytes of a weight, of its gradient, and of each of Adam's two moments (all `weight`; also of the stream between
    the layers and of messages between stages); of what goes into a matrix product (`compute`); and of what is computed
    in at least fp32 (`wide`: norms, router, loss)."""

    weight: int
    compute: int

    @property
    def wide(self) -> int:
        return max(self.weight, FLOAT)


WIDTHS = {
    "32-true": Width(weight=4, compute=4),
    "bf16-true": Width(weight=2, compute=2),
    "bf16-mixed": Width(weight=4, compute=2),
    "16-mixed": Width(weight=4, compute=2),
    "64-true": Width(weight=8, compute=8),
}


def width_of(precision: str) -> Width:
    return WIDTHS[precision]
