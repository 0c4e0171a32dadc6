"""The numbers that rules compare: the value of a key, or what several keys make together, as the width of a weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, Any]
"""Key as on the command line to value. A key is absent where its value is unusable, as a word for a number is."""


@dataclass(frozen=True)
class Size:
    """`of` is asked only where every key that it `reads` is there; None where the model has nothing of the kind."""

    name: str
    reads: tuple[str, ...]
    of: Callable[[Values], int | None]

    def at(self, values: Values) -> int | None:
        return self.of(values) if all(key in values for key in self.reads) else None

    def over(self, key: str) -> Size:
        """The part of one rank; None where it is no whole number, to which another rule objects."""

        def part(values: Values) -> int | None:
            whole = self.of(values)
            return None if whole is None or whole % values[key] else whole // values[key]

        return Size(f"{self.name} / {key}", (*self.reads, key), part)

    def where(self, exists: Callable[[Values], bool], *reads: str) -> Size:
        return Size(self.name, (*self.reads, *reads), lambda v: self.of(v) if exists(v) else None)


def product(*keys: str) -> Size:
    return Size(" x ".join(keys), keys, lambda v: math.prod(v[key] for key in keys))


def common_divisors(sizes: tuple[Size, ...], values: Values) -> list[int]:
    found = [size.at(values) for size in sizes]
    return divisors(math.gcd(*(number for number in found if number is not None)))


def not_divided(by: int, sizes: tuple[Size, ...], values: Values) -> list[str]:
    """Each with its number, as a person reads it: `model.d_ff=128`, but `data.seq_len / parallel.tp = 64`."""
    found = [(size.name, " = " if " " in size.name else "=", size.at(values)) for size in sizes]
    return [f"{name}{equals}{number}" for name, equals, number in found if number is not None and number % by]


def divisors(number: int) -> list[int]:
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})
