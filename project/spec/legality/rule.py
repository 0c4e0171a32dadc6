"""A rule, the constructors of the most common rules, and the numbers that rules compare."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from project.spec.fault import Fault, legal, said

Values = Mapping[str, Any]
"""Key as on the command line to value. A key is absent where its value is unusable, as a word for a number is."""


@dataclass(frozen=True)
class Size:
    """A number that rules compare: the value of a key, or what several keys make together, as the width of a weight.

    `of` is asked only where every key that it `reads` is there; None where the model has nothing of the kind.
    """

    name: str
    reads: tuple[str, ...]
    of: Callable[[Values], int | None]

    def at(self, values: Values) -> int | None:
        return self.of(values) if all(key in values for key in self.reads) else None

    def over(self, key: str) -> Self:
        """The part of one rank; None where it is no whole number, to which another rule objects."""

        def part(values: Values) -> int | None:
            whole = self.of(values)
            return None if whole is None or whole % values[key] else whole // values[key]

        return type(self)(f"{self.name} / {key}", (*self.reads, key), part)

    def where(self, exists: Callable[[Values], bool], *reads: str) -> Self:
        return type(self)(self.name, (*self.reads, *reads), lambda v: self.of(v) if exists(v) else None)


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


@dataclass(frozen=True)
class Rule:
    """`objection` says why the value of `key` will not do, or nothing; `suggest` gives values to try in its place,
    which are all there are if `suggests_all`.

    A rule is asked only when everything that it `reads` is there.
    """

    key: str
    reads: tuple[str, ...]
    objection: Callable[[Values], str | None]
    suggest: Callable[[Values], Iterable[object]]
    suggests_all: bool = True

    def is_asked(self, values: Values) -> bool:
        return self.key in values and all(read in values for read in self.reads)


def broken(rules: Iterable[Rule], values: Values) -> list[Fault]:
    """One fault for each key that some rule objects to: every reason, and the suggestions that no rule objects to."""
    by_key: dict[str, list[Rule]] = {}
    for rule in rules:
        if rule.is_asked(values):
            by_key.setdefault(rule.key, []).append(rule)
    faults = (_fault(key, asked, values) for key, asked in by_key.items())
    return [fault for fault in faults if fault is not None]


def all_kept(rules: Iterable[Rule], values: Values) -> bool:
    """True if `broken` would find nothing; cheaper."""
    return not any(rule.is_asked(values) and rule.objection(values) for rule in rules)


def divides(key: str, *others: str | Size) -> Rule:
    """One rule for several keys, so that one sentence lists all that are not divided."""
    sizes = tuple(product(other) if isinstance(other, str) else other for other in others)

    def objection(values: Values) -> str | None:
        left = not_divided(values[key], sizes, values)
        return f"does not divide {', '.join(left)}" if left else None

    return Rule(key, (), objection, lambda v: common_divisors(sizes, v))


def at_most(key: str, other: str, least: int = 1) -> Rule:
    def objection(values: Values) -> str | None:
        return f"is more than {other}={values[other]}" if values[key] > values[other] else None

    return Rule(key, (other,), objection, lambda v: range(least, v[other] + 1))


def one_of(key: str, choices: Sequence[str]) -> Rule:
    return Rule(key, (), lambda v: None if v[key] in choices else "is not known", lambda v: choices)


def _fault(key: str, rules: Sequence[Rule], values: Values) -> Fault | None:
    objections = [objection for rule in rules if (objection := rule.objection(values))]
    if not objections:
        return None
    suggested = dict.fromkeys(value for rule in rules for value in rule.suggest(values))
    fitting = [v for v in suggested if not any(rule.objection({**values, key: v}) for rule in rules)]
    instead = legal(values[key], fitting, every=all(rule.suggests_all for rule in rules))
    return Fault(key, said(values[key]), "; ".join([*objections, *([instead] if instead else [])]))
