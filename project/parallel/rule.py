"""What a rule is, and the words in which most rules can be said."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from project.fault import Fault
from project.legal_values import legal, said

Values = Mapping[str, Any]
"""Key as on the command line to value. A key is absent where its value is unusable, as a word for a number is."""


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


def broken(rules: Iterable[Rule], values: Values) -> list[Fault]:
    """One fault for each key that some rule objects to: every reason, and the suggestions that no rule objects to."""
    by_key: dict[str, list[Rule]] = {}
    for rule in rules:
        if rule.key in values and all(read in values for read in rule.reads):
            by_key.setdefault(rule.key, []).append(rule)
    faults = (_fault(key, asked, values) for key, asked in by_key.items())
    return [fault for fault in faults if fault is not None]


def divides(key: str, *others: str) -> Rule:
    """One rule for several keys, so that one sentence lists all that are not divided."""

    def objection(values: Values) -> str | None:
        left = [f"{other}={values[other]}" for other in others if other in values and values[other] % values[key]]
        return f"does not divide {', '.join(left)}" if left else None

    return Rule(key, (), objection, lambda v: divisors(math.gcd(*(v[other] for other in others if other in v))))


def at_most(key: str, other: str) -> Rule:
    def objection(values: Values) -> str | None:
        return f"is more than {other}={values[other]}" if values[key] > values[other] else None

    return Rule(key, (other,), objection, lambda v: range(1, v[other] + 1))


def one_of(key: str, choices: Sequence[str]) -> Rule:
    return Rule(key, (), lambda v: None if v[key] in choices else "is not known", lambda v: choices)


def not_yet(key: str, reads: tuple[str, ...], runs: Callable[[Values], Sequence[object]]) -> Rule:
    """For what is sound and will run one day."""

    def objection(values: Values) -> str | None:
        return None if values[key] in runs(values) else "is not supported yet"

    return Rule(key, reads, objection, runs)


def divisors(number: int) -> list[int]:
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})


def _fault(key: str, rules: Sequence[Rule], values: Values) -> Fault | None:
    objections = [objection for rule in rules if (objection := rule.objection(values))]
    if not objections:
        return None
    suggested = dict.fromkeys(value for rule in rules for value in rule.suggest(values))
    fitting = [v for v in suggested if not any(rule.objection({**values, key: v}) for rule in rules)]
    instead = legal(values[key], fitting, every=all(rule.suggests_all for rule in rules))
    return Fault(key, said(values[key]), "; ".join([*objections, *([instead] if instead else [])]))
