"""Training, validation and prediction under every schedule."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributed.pipelining._schedule_visualizer import get_schedule_ops
from torch.distributed.pipelining.schedules import ScheduleInterleaved1F1B

from project.model.transformer import Balancing
from project.spec.layout import ParallelLayout
from project.spec.schedules.table import SCHEDULES
from project.training.optimizer import OptimizerConfig, build_optimizer
from project.training.split_transformer import cross_entropy
from tests.harness.case import LEARNING_RATE, Case, batches, whole_model
from tests.harness.oracle import expected
from tests.harness.outcome import check_step
from tests.harness.ranks import RankPools
from tests.harness.schedules import layout_of
from tests.harness.trainer import trainer
from tests.harness.training import CaseModule, Observer, loader, train


def layouts() -> Iterator[ParallelLayout]:
    for schedule in SCHEDULES:
        yield layout_of(schedule, tp=2, ep=2)
    # Stages that follow one another on one rank, and replicas that gather their weights.
    yield ParallelLayout(schedule="Interleaved1F1B", virtual_stages=2, microbatches=2)
    yield ParallelLayout(pp=2, dp=2, dp_mode="shard", schedule="ZBVZeroBubble", virtual_stages=2, microbatches=4)
    yield ParallelLayout(pp=2, dp=2, dp_mode="shard", microbatches=2)


def named(layout: ParallelLayout) -> str:
    return f"{layout.schedule}, {layout}"


class Watched(CaseModule):
    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.validated: list[float] = []

    def on_validation_epoch_end(self) -> None:
        self.validated.append(self.trainer.callback_metrics["val/loss"].item())


def fit_and_predict(rank: int, world_size: int, case: Case) -> tuple[list[float], list[float], Tensor]:
    """The validation losses before and after each of two steps, the training losses, and the first batch's logits."""
    module, observer = Watched(case), Observer()
    options = {"max_steps": 2, "num_sanity_val_steps": 1, "val_check_interval": 1, "check_val_every_n_epoch": None}
    engine = trainer(rank, world_size, case, callbacks=[observer], **options)
    engine.fit(module, loader(case, rank), loader(replace(case, steps=1), rank))
    (logits,) = trainer(rank, world_size, case).predict(module, loader(replace(case, steps=1), rank))
    return module.validated, observer.outcome.losses, logits


def on_one_rank(rank: int, world_size: int, case: Case) -> tuple[list[float], list[float], Tensor]:
    """Computes the same with plain autograd in fp64; validation and training loss of one batch are the same number."""
    model = whole_model(case)
    optimizer = build_optimizer(OptimizerConfig(learning_rate=LEARNING_RATE), model.named_parameters())
    validated, trained = [], []
    first = batches(case)[0]
    for batch in batches(case):
        validated.append(cross_entropy(model(first["tokens"]), first["targets"]).item())
        balancing = Balancing()
        loss = cross_entropy(model(batch["tokens"], balancing), batch["targets"])
        trained.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    logits = model(first["tokens"]).detach()
    return [*validated, cross_entropy(logits, first["targets"]).item()], trained, logits


def check(ranks: RankPools, layout: ParallelLayout) -> None:
    case = Case(layout, precision="64-true", steps=2)
    wanted = replace(case, layout=ParallelLayout())
    validated, trained, logits = ranks.once(("by hand", wanted), lambda: ranks.run(1, on_one_rank, wanted)[0])
    outcomes = ranks.run(layout.world_size, fit_and_predict, case)
    for rank, outcome in enumerate(outcomes):
        assert outcome[0] == pytest.approx(validated, rel=1e-12)
        assert outcome[1] == pytest.approx(trained, rel=1e-12)
        mine = logits.chunk(layout.dp)[layout.coordinates(rank).dp]
        torch.testing.assert_close(outcome[2], mine, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layout", list(layouts()), ids=named)
def test_training_validation_and_prediction_under_every_schedule_equal_one_rank_s(
    ranks, layout: ParallelLayout
) -> None:
    check(ranks, layout)


def test_training_under_a_schedule_from_a_file_equals_one_rank_s(ranks, tmp_path: Path) -> None:
    """Interleaved 1F1B, as a file, with the stages on the other rank: the runtime goes by the file alone."""
    rows = get_schedule_ops(ScheduleInterleaved1F1B, 2, 4, num_stages_per_rank=2)
    swapped = [["" if action is None else str(action) for action in row] for row in reversed(rows)]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(",".join(row) for row in swapped))
    layout = ParallelLayout(pp=2, tp=2, ep=2, virtual_stages=2, microbatches=4, schedule=str(path))
    check(ranks, layout)
    case = Case(layout)
    check_step(train(ranks, case), expected(ranks, case), 1e-5)
