"""A rule, and the constructors of the most common rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from project.spec.fault import Fault
from project.spec.legal_values import legal, said
from project.spec.legality.size import Size, Values, common_divisors, not_divided, product


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
    """Whether `broken` would find nothing, at less cost."""
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
