"""Measuring a run's first steps, which ends with them."""

from typing import Any

import lightning.pytorch as L
import pytest
import torch
import torch.distributed as dist

from project.callbacks.first_steps import ActivationPeaks, Communication
from project.callbacks.step_metrics import StepMetrics
from project.callbacks.summary import RunSummary
from project.run_folder import read_summary
from project.spec.layout import ParallelLayout
from tests.harness.case import Case
from tests.harness.trainer import trainer
from tests.harness.training import CaseModule, loader, run

CASE = Case(ParallelLayout(pp=2, microbatches=2), steps=3)


class Chatter(L.Callback):
    """A callback with collectives of its own after every batch."""

    def on_train_batch_end(self, *args: Any) -> None:
        dist.all_reduce(torch.ones(1000))


class Books(L.Callback):
    """Records the ledger's counts after each batch."""

    def __init__(self) -> None:
        self.books: list[dict] = []

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.books.append(trainer.strategy.record.summary.get("communication", {}))


def books(rank: int, world_size: int, case: Case) -> list[dict]:
    books = Books()
    run(rank, world_size, case, Communication(), Chatter(), StepMetrics(), books)
    return books.books


def test_the_ledger_s_second_step_stands_for_all_and_the_first_until_then(ranks) -> None:
    first, second, third = ranks.run(2, books, CASE)[0]
    # A stage's shapes are agreed on once: one small message each way.
    assert first["pp"]["send"]["calls"] == second["pp"]["send"]["calls"] + 1
    assert third == second


def test_other_callbacks_collectives_are_not_counted_as_the_step_s(ranks) -> None:
    for rank_books in ranks.run(2, books, CASE):
        assert set(rank_books[1]["pp"]) == {"send", "recv", "all_reduce"}
        assert rank_books[1]["pp"]["all_reduce"]["calls"] == 1, "loss, table and norm are one"


def test_the_traffic_of_a_step_is_that_of_all_its_accumulated_batches(ranks) -> None:
    case = Case(CASE.layout, steps=2, accumulate=2)
    after = ranks.run(2, books, case)[0]
    once = ranks.run(2, books, CASE)[0][1]
    assert after[0] == {}, "the first step is not over"
    assert after[3]["pp"]["send"]["calls"] == 2 * once["pp"]["send"]["calls"]


def summarised(rank: int, world_size: int, folder: str) -> None:
    run(rank, world_size, CASE, Communication(), ActivationPeaks(), StepMetrics(), RunSummary(folder))


def test_the_summary_has_the_traffic_of_the_rank_that_sends_most_and_every_stage_s_activations(ranks, tmp_path) -> None:
    ranks.run(2, summarised, str(tmp_path))
    summary = read_summary(tmp_path)
    assert summary is not None
    activations = 4 * 16 * 32 * 4
    assert summary["communication"]["pp"]["send"]["bytes"] == 2 * activations
    assert summary["communication"]["pp"]["recv"]["bytes"] == 0
    assert len(summary["activation_bytes_peak_per_stage"]) == 2
    assert min(summary["activation_bytes_peak_per_stage"]) > activations


class Failing(CaseModule):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        super().training_step(batch, batch_idx)
        raise ValueError("not this one")


def fail(rank: int, world_size: int) -> tuple[int, list]:
    engine = trainer(rank, world_size, CASE, max_steps=1, callbacks=[Communication(), ActivationPeaks()])
    with pytest.raises(ValueError, match="not this one"):
        engine.fit(Failing(CASE), loader(CASE, rank))
    return torch._C._len_torch_dispatch_stack(), engine.strategy.step.watchers  # type: ignore[attr-defined]


def test_a_step_that_fails_leaves_nothing_entered(ranks) -> None:
    assert ranks.run(2, fail) == [(0, [])] * 2
