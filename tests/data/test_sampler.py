"""The order of samples is a function of the seed and the step, under any layout and from any start."""

from __future__ import annotations

import pytest

from project.data.sampler import StepSampler


def steps(count: int, **options: int) -> list[list[int]]:
    sampler = StepSampler(103, 8, **options)  # type: ignore[arg-type]
    return [sampler.batch(step) for step in range(count)]


def test_one_pass_over_the_data_sees_each_sample_at_most_once() -> None:
    seen = [index for batch in steps(12, seed=3) for index in batch]
    assert len(seen) == len(set(seen)) == 96
    assert set(seen) <= set(range(103))


def test_passes_and_seeds_give_different_orders_of_samples() -> None:
    assert steps(24)[:12] != steps(24)[12:]
    assert steps(12, seed=1) != steps(12, seed=2)
    assert steps(12, seed=1) == steps(12, seed=1)


@pytest.mark.parametrize("dp_size", [1, 2, 4, 8])
def test_the_global_batch_does_not_depend_on_the_layout(dp_size: int) -> None:
    replicas = [steps(30, dp_rank=rank, dp_size=dp_size) for rank in range(dp_size)]
    joined = [[index for replica in replicas for index in replica[step]] for step in range(30)]
    assert joined == steps(30)


@pytest.mark.parametrize("position", [0, 5, 11, 12, 40])
def test_sampling_starts_at_the_given_step_and_crosses_passes(position: int) -> None:
    sampler = StepSampler(103, 8, position=position)
    assert list(sampler) == steps(60)[position : position + len(sampler)]


def test_unshuffled_samples_come_in_order() -> None:
    assert list(StepSampler(10, 4, shuffle=False)) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_sampling_can_repeat_the_first_batches() -> None:
    sampler = StepSampler(103, 8, repeat_first=2)
    assert [sampler.batch(step) for step in range(5)] == [*steps(2), *steps(2), *steps(1)]


def test_a_batch_that_replicas_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match=r"data.batch_size=6 is not a multiple of the 4 replicas"):
        StepSampler(100, 6, dp_size=4)


def test_fewer_samples_than_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match=r"7 samples do not fill one batch of data.batch_size=8"):
        StepSampler(7, 8)
