"""The bytes that autograd keeps for backward."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from project.observe.memory import Activations
from project.spec.layout import ParallelLayout
from tests.harness.case import SMALL, Case
from tests.harness.measured import peaks_of

BATCH, WIDTH, FLOAT, INT64 = 6, 8, 4, 8


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return (self.q(x) @ self.k(x).T).softmax(-1) @ self.v(x)


class Slice(nn.Module):
    """A module whose square saves a view of a tenth of the storage that it keeps alive."""

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat(10, 1)[:BATCH].square()


def kept_of(part: nn.Module) -> int:
    activations = Activations()
    with activations.forward(SimpleNamespace(stage_index=0, submod=part)):
        output = part(torch.ones(BATCH, WIDTH, requires_grad=True))
    assert output.requires_grad, "and here it still has its graph"
    return activations.peaks[0]


def kept_of_each(rank: int, world_size: int) -> list[int]:
    return [kept_of(part) for part in (nn.Linear(WIDTH, 3), Attention(), Slice())]


def test_kept_bytes_count_every_storage_once_and_whole_except_weights(ranks) -> None:
    linear, attention, slice_ = ranks.run(1, kept_of_each)[0]
    rows = BATCH * WIDTH * FLOAT
    assert linear == rows, "its input; the weight is there anyway"
    assert attention == 4 * rows + BATCH * BATCH * FLOAT, "x, q, k and v, and the softmax that two operations save"
    assert slice_ == 10 * rows


def peaks_in_turn(rank: int, world_size: int) -> list[int]:
    """The peaks after each of forward, forward, backward, forward, backward, backward."""
    activations, part = Activations(), nn.Linear(WIDTH, WIDTH)
    outputs, peaks = [], []
    for action in "FFBFBB":
        if action == "B":
            outputs.pop(0).sum().backward()
        else:
            with activations.forward(SimpleNamespace(stage_index=3, submod=part)):
                outputs.append(part(torch.ones(BATCH, WIDTH, requires_grad=True)))
        peaks.append(activations.peaks[3])
    return peaks


def test_kept_bytes_fall_once_backward_has_used_them(ranks) -> None:
    one = BATCH * WIDTH * FLOAT
    assert ranks.run(1, peaks_in_turn)[0] == [one, 2 * one, 2 * one, 2 * one, 2 * one, 2 * one]


class Exponential(nn.Module):
    """A module that saves its own result for backward."""

    def forward(self, x: Tensor) -> Tensor:
        return x.exp()


def left_of_a_retained_graph(rank: int, world_size: int) -> int:
    activations, part = Activations(), Exponential()
    with activations.forward(SimpleNamespace(stage_index=0, submod=part)):
        part(torch.ones(BATCH, WIDTH, requires_grad=True)).sum().backward(retain_graph=True)
    return len(activations.saved[0])


def test_counting_kept_bytes_does_not_keep_a_graph_alive(ranks) -> None:
    """A retained graph is what the first half of a split backward leaves."""
    assert ranks.run(1, left_of_a_retained_graph)[0] == 0


# -- the stages of a run ------------------------------------------------------------------------------------------


def peaks(ranks: Any, layout: ParallelLayout, microbatch: int, seq_len: int) -> list[int]:
    case = Case(layout, batch=microbatch * layout.microbatches, seq_len=seq_len, steps=2)
    first, *others = ranks.run(layout.world_size, peaks_of, case)
    assert all(other == first for other in others), "every rank knows every stage"
    return first


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_a_stage_holds_as_many_microbatches_as_its_schedule_has_in_flight(ranks, recompute: str) -> None:
    stages, microbatches, microbatch, seq_len = 4, 6, 2, 16
    layout = ParallelLayout(pp=stages, schedule="GPipe", recompute=recompute)
    tokens = microbatch * seq_len * INT64
    # The batch's tokens, and its targets, are one storage, of which every microbatch keeps a view.
    shared = [tokens, 0, 0, tokens]
    one = [peak - own for peak, own in zip(peaks(ranks, layout, microbatch, seq_len), shared, strict=True)]
    in_flight = {
        "GPipe": [microbatches] * stages,
        "1F1B": [min(microbatches, stages - stage) for stage in range(stages)],
    }
    for schedule, counts in in_flight.items():
        measured = peaks(ranks, replace(layout, schedule=schedule, microbatches=microbatches), microbatch, seq_len)
        assert measured == [
            count * each + microbatches * own for count, each, own in zip(counts, one, shared, strict=True)
        ]


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_recomputation_keeps_a_layer_s_input_and_the_outputs_that_it_saves(ranks, recompute: str) -> None:
    """Measures the middle stages of a pipeline, which consist of layers alone."""
    microbatch, seq_len, tp, model = 2, 16, 2, SMALL
    layout = ParallelLayout(pp=4, tp=tp, ep=tp, microbatches=4, recompute=recompute)
    tokens = microbatch * seq_len // tp
    layer_input = tokens * model.d_model * FLOAT
    choice = tokens * model.top_k * (FLOAT + INT64)
    rows_there_and_back = 2 * tokens * model.top_k * model.d_model * FLOAT
    counts = model.num_experts * INT64
    sequence_sums = microbatch * (2 * model.num_experts + 4) * FLOAT
    exchanged = rows_there_and_back + counts + sequence_sums
    layer = layer_input + choice + (exchanged if recompute == "selective" else 0)
    measured = peaks(ranks, layout, microbatch, seq_len)
    assert measured[1:3] == [3 * layer, 2 * layer]
