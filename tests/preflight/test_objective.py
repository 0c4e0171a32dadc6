"""A sweep that optimizes asks for what its runs will have."""

from collections.abc import Callable

import pytest

SWEEP = ("-m", "hydra/sweeper=basic", "hydra.sweeper._target_=tests.harness.Sweeper", "model=tiny")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ("objective=tokens_per_second", "trainer.max_steps=2"),
            "objective=tokens_per_second: is a median without the first 2 steps, and trainer.max_steps=2 leaves none; "
            "nearest trainer.max_steps=3",
        ),
        (("objective=[val_loss,step_time_s]", "trainer.max_steps=1"), "objective=step_time_s: is a median"),
        (("objective=mfu",), "objective=mfu: needs the device's peak, and no processor's is known"),
        (("trainer.limit_val_batches=0",), "objective=val_loss: is a figure of validation, which"),
        (("objective=train_loss_last", "callbacks.step_metrics=null"), "comes from callbacks.step_metrics"),
        (("objective=communication_bytes", "callbacks.communication=null"), "comes from callbacks.communication"),
    ],
)
def test_an_objective_that_no_run_will_have_is_refused(
    overrides: tuple[str, ...], said: str, complaint: Callable[..., str]
) -> None:
    assert said in complaint(*SWEEP, *overrides)


def test_a_sweep_that_only_lists_its_jobs_and_one_run_may_lack_it(accepted: Callable[..., str]) -> None:
    short = ("model=tiny", "objective=tokens_per_second", "trainer.max_steps=2")
    assert accepted(*short) == ""
    assert accepted("-m", *short) == ""


def test_an_objective_that_runs_have_is_accepted(accepted: Callable[..., str]) -> None:
    assert accepted(*SWEEP, "objective=[step_time_s,val_loss]", "trainer.max_steps=3") == ""
