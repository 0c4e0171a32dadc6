"""Bytes by category add up to what the trainer allocates."""

import random
from dataclasses import replace

import pytest

from project.planner.cost.parameters import parameters_on
from project.planner.memory.activations import kept_by_module
from project.planner.memory.peak import buffers, by_module, least, memory, peak
from project.planner.search import space
from project.planner.search.space import nearest_fitting
from project.planner.step import Step
from project.spec.layout import RECOMPUTE, ParallelLayout
from project.spec.model import ModelConfig
from project.spec.schedules.in_flight import InFlight, in_flight

STEP = Step(ModelConfig(), ParallelLayout(pp=4, tp=4, ep=4, microbatches=8), 8, 256, "bf16-mixed")


@pytest.mark.parametrize(("precision", "width"), [("32-true", 4), ("bf16-true", 2), ("bf16-mixed", 4), ("64-true", 8)])
def test_training_with_adam_keeps_four_numbers_a_parameter(precision: str, width: int) -> None:
    step = replace(STEP, precision=precision)
    for rank in range(4):
        found, held = memory(step, rank), parameters_on(step.config, step.layout, rank, step.seq_len).total
        assert (found.weights, found.gradients, found.optimizer) == (held * width, held * width, 2 * held * width)


def test_planned_activation_memory_is_what_the_microbatches_in_flight_keep() -> None:
    for rank, flying in enumerate((4, 3, 2, 1)):
        moment = InFlight(flying)
        assert in_flight(STEP.layout)[rank] == (moment,)
        tokens = 8 * 256 * 8 if rank in (0, 3) else 0  # those of the batch, or its targets
        matrices = 2 * (4 * 1024 * 1024 // 4 + 3 * 4096 * 1024) + (rank == 3) * STEP.config.vocab_size * 1024 // 4
        copies = 2 * matrices  # in bf16, once for the batch
        kept = kept_by_module(STEP, STEP.parts[rank], moment).total() + tokens + copies
        found = memory(STEP, rank)
        assert found.activations + found.logits == kept
        assert sum(by_module(STEP, rank).values()) == kept
    assert memory(STEP, 3).logits > 0 == memory(STEP, 0).logits


def test_recomputation_keeps_less_and_brings_one_layer_back() -> None:
    none = replace(STEP, precision="32-true")
    full = replace(none, layout=replace(STEP.layout, recompute="full"))
    assert memory(full, 0).activations < memory(none, 0).activations / 10
    assert memory(full, 0).recomputation == kept_by_module(none, none.parts[1], InFlight(1)).total() // 2


def test_sharded_replicas_divide_moments_and_gather_whole_weights_for_a_step() -> None:
    whole = replace(STEP, layout=ParallelLayout(dp=8, microbatches=1))
    shard = replace(whole, layout=replace(whole.layout, dp_mode="shard"))
    assert memory(shard, 0).optimizer < memory(whole, 0).optimizer / 7
    assert memory(shard, 0).weights == memory(whole, 0).weights


def test_a_stage_in_the_middle_has_a_buffer_for_each_message() -> None:
    stream = 64 * 1024 * 4
    assert buffers(STEP, 0)["messages"] == 8 * stream
    assert buffers(STEP, 1)["messages"] == (8 + 8 - 3) * stream
    assert buffers(STEP, 3)["messages"] == (8 - 1) * stream


def test_the_nearest_layout_that_fits_recomputes_first() -> None:
    step = replace(STEP, batch=64, seq_len=2048)
    full = replace(step, layout=replace(step.layout, recompute="full"))
    room = (peak(step, 0) + peak(full, 0)) / 2
    near = nearest_fitting(step, 0, room)
    assert near is not None
    assert (near.pp, near.tp, near.ep) == (4, 4, 4)
    assert near.recompute != "none"
    assert peak(replace(step, layout=near), 0) <= room < peak(step, 0)
    assert nearest_fitting(step, 0, 1) is None


def test_no_rank_s_memory_is_less_than_the_lower_bound() -> None:
    """Draws layouts of all kinds: no layout that the bound excludes would fit."""
    config = ModelConfig(num_layers=9, num_dense_layers=2, num_shared_experts=1)
    some = [
        replace(layout, microbatches=number, recompute=recompute)
        for layout in space.degrees(config, 16, 16, 256)
        for number in space.microbatches(layout, 16)
        for recompute in RECOMPUTE
    ]
    for one in random.Random(0).sample(some, 100):
        bound = least(Step(config, one, 16, 256, "bf16-mixed"), 7)
        for layout in space.pipelines(one, config):
            assert bound <= peak(Step(config, layout, 16, 256, "bf16-mixed"), 7), layout
