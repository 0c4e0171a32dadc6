"""A run that was interrupted and resumed is bit for bit the run that was not."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
import torch

from project.spec.layout import ParallelLayout
from project.state.checkpoint.last import named
from project.state.checkpoint.reader import Checkpoint
from tests.harness.case import SMALL, Case
from tests.harness.saving import differing, train

LAYOUT = ParallelLayout(pp=2, tp=2, ep=2, microbatches=2)
SMALLER = replace(SMALL, num_layers=2)
SEED = 1
BIAS = replace(SMALLER, expert_balance="bias", bias_update_rate=1e-3)


@pytest.mark.parametrize("model", [SMALLER, BIAS], ids=["auxiliary", "bias"])
def test_a_resumed_run_has_the_losses_weights_and_moments_of_one_that_was_not_interrupted(
    ranks, model, tmp_path: Path
) -> None:
    step = Random(SEED).randrange(1, 20)
    print(f"interrupted after step {step}, drawn with seed {SEED}")
    case = Case(LAYOUT, model=model, steps=20)
    undisturbed = train(ranks, case, tmp_path / "one", every_n_train_steps=3)
    first = train(ranks, replace(case, steps=step), tmp_path / "two", every_n_train_steps=3)
    second = train(ranks, case, tmp_path / "two", tmp_path / "two" / f"step={step}.ckpt", every_n_train_steps=3)
    assert first.losses + second.losses == undisturbed.losses
    assert differing(second.tensors, undisturbed.tensors) == []


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"monitor": "step", "mode": "max", "save_top_k": 1}, ["step=4"]),
        ({"monitor": "train/loss", "mode": "max", "save_top_k": 1}, ["step=1", "step=4"]),
    ],
    ids=["the last", "the best and the last"],
)
def test_restarts_leave_no_more_checkpoints_than_were_asked_for(ranks, options, left, tmp_path: Path) -> None:
    for steps in (2, 4):
        resume = tmp_path / f"step={steps - 2}.ckpt" if steps > 2 else None
        case = Case(ParallelLayout(), SMALLER, steps=steps)
        train(ranks, case, tmp_path, resume, every_n_train_steps=1, **options)
    assert sorted(path.stem for path in named(tmp_path)) == left
    assert (tmp_path / "last.ckpt").resolve() == tmp_path / "step=4.ckpt"


def test_the_last_checkpoint_s_link_keeps_its_name_through_restarts(ranks, tmp_path: Path) -> None:
    """Covers a run that resumes from its first checkpoint, whose state has no link, and one that begins anew."""
    for steps, resume in ((2, None), (4, "step=2.ckpt"), (6, None)):
        train(ranks, Case(ParallelLayout(), SMALLER, steps=steps), tmp_path, resume and tmp_path / resume)
        assert [path.name for path in tmp_path.glob("last*")] == ["last.ckpt"]
        assert Checkpoint(tmp_path / "last.ckpt").meta["global_step"] == steps


def test_a_checkpoint_is_saved_whenever_the_time_interval_has_passed(ranks, tmp_path: Path) -> None:
    options = {"every_n_train_steps": None, "train_time_interval": timedelta(0)}
    train(ranks, Case(ParallelLayout(), SMALLER, steps=3), tmp_path, **options)
    assert sorted(path.stem for path in named(tmp_path)) == ["step=1", "step=2", "step=3"]


def test_a_checkpoint_opens_without_a_process_group_and_gives_whole_tensors(ranks, tmp_path: Path) -> None:
    ending = train(ranks, Case(LAYOUT, SMALLER, steps=2), tmp_path)
    checkpoint = Checkpoint(tmp_path / "last.ckpt")
    checkpoint.verify()
    stored = {name: checkpoint.read(name) for name in (*checkpoint.weights, *checkpoint.optimizer)}
    assert differing(stored, ending.tensors) == []
    assert checkpoint.meta["global_step"] == 2
    w1 = ending.tensors["layers.1.moe.experts.w1"]
    assert torch.equal(checkpoint.read("layers.1.moe.experts.w1", (slice(1, 3), slice(5, 40))), w1[1:3, 5:40])
