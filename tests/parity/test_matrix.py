"""Layouts, schedules and routing variants, every two that go together: each computes what one rank computes in fp64."""

from dataclasses import replace
from random import Random

import pytest
import torch

from tests.harness.case import Case
from tests.harness.oracle import expected
from tests.harness.outcome import TOLERANCE, check_step
from tests.harness.training import train
from tests.parity import matrix


def test_every_case_of_the_parity_matrix_agrees_with_the_oracle(ranks, case: Case) -> None:
    check_step(train(ranks, case), expected(ranks, case), TOLERANCE[case.precision])


def test_recomputing_activations_changes_no_bit_in_the_parity_matrix(ranks, case: Case) -> None:
    other = "full" if case.layout.recompute == "none" else "none"
    here, there = train(ranks, case), train(ranks, replace(case, layout=replace(case.layout, recompute=other)))
    assert here.losses == there.losses
    assert all(torch.equal(here.gradients[name], there.gradients[name]) for name in here.gradients)
    assert all(torch.equal(here.final[name], there.final[name]) for name in here.final)


def test_the_parity_matrix_has_every_legal_pair_of_choices(pytestconfig: pytest.Config) -> None:
    cases = pytestconfig.getoption("parity_cases")
    covered = set().union(*map(matrix.pairs, matrix.matrix(cases)[:cases]))
    random = Random(1)
    drawn = set().union(*(matrix.pairs(matrix.draw(random)) for _ in range(1000)))
    assert drawn <= covered
