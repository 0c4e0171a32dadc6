"""The Pareto front of two quantities."""

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def front(candidates: Iterable[T], first: Callable[[T], float], second: Callable[[T], float]) -> list[T]:
    """Candidates that no other matches in one quantity and undercuts in the other, by rising `first`."""
    kept: list[T] = []
    for candidate in sorted(candidates, key=lambda one: (first(one), second(one))):
        if not kept or second(candidate) < second(kept[-1]):
            kept.append(candidate)
    return kept
