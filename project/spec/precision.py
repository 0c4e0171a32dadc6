"""Widths of numbers, in bytes, under each of Lightning's precisions, as the strategy and the model keep them."""

from __future__ import annotations

from typing import NamedTuple

FLOAT, DOUBLE, INT64, INT32 = 4, 8, 8, 4


class Width(NamedTuple):
    """Bytes of a number.

    weight: of a weight, its gradient and each of Adam's two moments; of the residual stream between the layers and of
        messages between stages.
    compute: of what goes into a matrix product.
    wide: of what is computed in at least fp32 (norms, router, loss).
    """

    weight: int
    compute: int
    wide: int

    @property
    def casts(self) -> bool:
        """Under autocast each matrix product copies its weights to `compute`, once a microbatch."""
        return self.compute < self.weight

    @property
    def widens(self) -> bool:
        """In half precision throughout, norms and router copy their inputs and weights to fp32."""
        return self.weight < self.wide


WIDTHS = {
    "32-true": Width(weight=4, compute=4, wide=4),
    "bf16-true": Width(weight=2, compute=2, wide=4),
    "bf16-mixed": Width(weight=4, compute=2, wide=4),
    "16-mixed": Width(weight=4, compute=2, wide=4),
    "64-true": Width(weight=8, compute=8, wide=8),
}


def width_of(precision: str) -> Width:
    return WIDTHS[precision]
