"""A permutation that is computed is still a permutation, and looks like a random one."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from project.data.sampler import permuted


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**40), st.integers(0, 5))
def test_every_index_occurs_once_in_a_permutation(size: int, seed: int, number_of_pass: int) -> None:
    assert sorted(permuted(range(size), size, (seed, number_of_pass))) == list(range(size))


def test_a_permuted_index_does_not_depend_on_what_else_is_asked() -> None:
    whole = permuted(range(1000), 1000, (1, 2))
    assert permuted([7], 1000, (1, 2)).tolist() == [whole[7]]


def test_keys_give_unrelated_permutations() -> None:
    orders = [permuted(range(10_000), 10_000, key) for key in ((0, 0), (0, 1), (1, 0), (-1, 0))]
    for i, one in enumerate(orders):
        assert abs(np.corrcoef(one, np.arange(10_000))[0, 1]) < 0.05
        for other in orders[:i]:
            assert np.mean(one == other) < 0.01


def test_a_permutation_is_the_same_on_every_machine_and_in_every_version() -> None:
    """A changed order would silently change what a resumed run sees: it needs a reason and a note."""
    assert permuted(range(8), 1000, (0, 0)).tolist() == [855, 753, 303, 573, 206, 42, 227, 107]
