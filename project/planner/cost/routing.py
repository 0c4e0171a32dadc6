"""Imbalance of experts under a router that chooses at random."""

from functools import cache
from math import erf, exp, pi, sqrt


def expected_imbalance(tokens: int, experts: int, top_k: int) -> float:
    """The expected load of the busiest expert over the mean. Each of `experts` gets about k/E of the tokens, with a
    standard deviation of `sqrt(T (k/E) (1 - k/E))`; their sum is fixed, so that they lie apart as E independent normal
    variables that much times `sqrt(E / (E - 1))` wide would."""
    if top_k == experts or experts == 1:
        return 1.0
    share = top_k / experts
    spread = sqrt(tokens * share * (1 - share) * experts / (experts - 1))
    return 1 + spread * expected_maximum(experts) / (tokens * share)


@cache
def expected_maximum(count: int) -> float:
    """The expected maximum of `count` standard normal variables: the integral of `x n phi(x) Phi(x)^(n-1)`."""
    step = 0.01

    def weight(x: float) -> float:
        below = 0.5 + 0.5 * erf(x / sqrt(2))
        return x * count * exp(-x * x / 2) / sqrt(2 * pi) * below ** (count - 1)

    return step * sum(weight(place * step) for place in range(-800, 801))
