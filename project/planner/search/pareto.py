"""What nothing else beats in everything."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def front(candidates: Iterable[T], first: Callable[[T], float], second: Callable[[T], float]) -> list[T]:
    """Those of which no other is as small in one and smaller in the other; by rising `first`."""
    kept: list[T] = []
    for candidate in sorted(candidates, key=lambda one: (first(one), second(one))):
        if not kept or second(candidate) < second(kept[-1]):
            kept.append(candidate)
    return kept
