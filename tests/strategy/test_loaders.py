"""Loaders of unequal length on the replicas, and sequences that tp does not divide: one error on all ranks, no hang."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from project.spec.layout import ParallelLayout
from tests.harness.case import Case
from tests.harness.dense_gpt import LENGTH, VOCABULARY, GPTModule
from tests.harness.trainer import trainer

REPLICAS = ParallelLayout(dp=2, microbatches=2)


def batch(length: int = LENGTH) -> dict[str, Tensor]:
    text = torch.randint(0, VOCABULARY, (4, length + 1), generator=torch.Generator().manual_seed(1))
    return {"tokens": text[:, :-1].contiguous(), "targets": text[:, 1:].contiguous()}


class Endless(IterableDataset):
    """A stream of which nobody knows the length."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return (batch() for _ in range(self.batches))


def loader(batches: int, sized: bool) -> DataLoader:
    return DataLoader([batch()] * batches if sized else Endless(batches), batch_size=None)  # type: ignore[arg-type]


def said(rank: int, world_size: int, training: bool, sized: bool, accumulate: int) -> tuple[str, int]:
    """The error, and how many steps were taken before it."""
    unequal = loader(2 + rank, sized)
    loaders = (unequal, loader(1, True)) if training else (loader(2, True), unequal)
    engine = trainer(rank, world_size, Case(REPLICAS), max_epochs=1, accumulate_grad_batches=accumulate)
    with pytest.raises(ValueError, match="of different length") as refused:
        engine.fit(GPTModule(), *loaders)
    return str(refused.value), engine.global_step


@pytest.mark.parametrize(("sized", "accumulate"), [(True, 1), (True, 2), (False, 1), (False, 2)])
@pytest.mark.parametrize("training", [True, False])
def test_loaders_of_unequal_length_are_named_on_all_ranks(
    ranks: Any, training: bool, sized: bool, accumulate: int
) -> None:
    which = "training" if training else "validation"
    lengths = (
        "replica 0 2 batches, replica 1 3 batches" if sized else "after this batch replica 0 ends, replica 1 goes on"
    )
    for message, steps in ranks.run(2, said, training, sized, accumulate):
        assert message.startswith(f"the replicas' {which} loaders are of different length: {lengths}; ")
        if sized and training:
            assert steps == 0


def refusal(rank: int, world_size: int, case: Case, length: int) -> str:
    with pytest.raises(ValueError, match="does not divide") as refused:
        trainer(rank, world_size, case, max_steps=1).fit(
            GPTModule(),
            DataLoader([batch(length)], batch_size=None),  # type: ignore[arg-type]
        )
    return str(refused.value)


@pytest.mark.parametrize("layout", [ParallelLayout(tp=2, microbatches=2), ParallelLayout(pp=2, tp=2, microbatches=2)])
def test_a_sequence_that_tp_does_not_divide_is_one_error_on_all_ranks(ranks: Any, layout: ParallelLayout) -> None:
    for message in ranks.run(layout.world_size, refusal, Case(layout), 15):
        assert message == (
            "inputs of shape [4, 15]: parallel.tp=2 does not divide dim 1 of the activation, 15; nearest 14"
        )
