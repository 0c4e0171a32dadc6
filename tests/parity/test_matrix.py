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


@pytest.mark.parametrize("precision", TOLERANCE)
def test_loss_and_every_gradient_are_the_oracle_s(ranks, case: Case, precision: str) -> None:
    case = replace(case, precision=precision)
    check_step(train(ranks, case), expected(ranks, case), TOLERANCE[precision])


def test_recomputing_activations_changes_no_bit(ranks, case: Case) -> None:
    other = "full" if case.layout.recompute == "none" else "none"
    here, there = train(ranks, case), train(ranks, replace(case, layout=replace(case.layout, recompute=other)))
    assert here.losses == there.losses
    assert all(torch.equal(here.gradients[name], there.gradients[name]) for name in here.gradients)
    assert all(torch.equal(here.final[name], there.final[name]) for name in here.final)


def test_no_legal_pair_is_missing() -> None:
    covered = set().union(*map(matrix.pairs, matrix.matrix(0)))
    random = Random(1)
    drawn = set().union(*(matrix.pairs(matrix.draw(random)) for _ in range(1000)))
    assert drawn <= covered
