"""The planner's bytes kept for backward equal those that autograd keeps, for each stage."""

from dataclasses import replace
from typing import Any

import pytest

from project.planner.memory.activations import kept_by_module
from project.planner.memory.peak import activation_peaks
from project.planner.step import Step
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.schedules.in_flight import InFlight
from project.spec.schedules.table import SCHEDULES
from tests.harness.case import SMALL, Case
from tests.harness.measured import peaks_of
from tests.harness.schedules import layout_of


def check(ranks: Any, case: Case) -> None:
    measured = ranks.run(case.layout.world_size, peaks_of, case)[0]
    step = Step(case.model, case.layout, case.batch, case.seq_len, case.precision)
    assert activation_peaks(step) == measured


# A dense layer, experts on every stage, the embedding on the first and the head on the last.
STAGED = replace(SMALL, num_layers=5, num_dense_layers=1)


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_planned_kept_bytes_are_measured_under_every_schedule(ranks, schedule: str, recompute: str) -> None:
    check(ranks, Case(layout_of(schedule, recompute=recompute), STAGED, steps=2))


@pytest.mark.parametrize("schedule", [name for name, record in SCHEDULES.items() if record.splits_backward])
def test_planned_kept_bytes_are_measured_in_a_longer_pipeline_with_split_backwards(ranks, schedule: str) -> None:
    layout = layout_of(schedule, pp=4, microbatches=8)
    check(ranks, Case(layout, replace(STAGED, num_layers=9), steps=2))


HALVES = {
    "experts over ranks": ({"tp": 2, "ep": 2}, {}),
    "several experts on a rank": ({"tp": 2, "ep": 2}, {"num_experts": 8, "score": "sigmoid", "expert_balance": "bias"}),
    "slices of experts": ({"tp": 2, "etp": 2}, {"auxiliary_per": "microbatch"}),
    "a capacity": ({"tp": 2, "ep": 2}, {"capacity_factor": 1.25, "capacity_group": 4}),
    "a shared expert": ({}, {"num_shared_experts": 1}),
    "no experts": ({}, {"num_dense_layers": 5}),
    "a gated shared expert": ({}, {"num_shared_experts": 1, "shared_gate": True, "qkv_bias": True}),
    "a gated shared expert over ranks": ({"tp": 2, "ep": 2}, {"num_shared_experts": 1, "shared_gate": True}),
    "a norm over all heads": ({"tp": 2, "ep": 2}, {"qk_norm": True, "qk_norm_over": "width"}),
    "scores that are not normalised": ({"tp": 2, "ep": 2}, {"norm_top_k": False, "score": "sigmoid"}),
}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", HALVES)
def test_planned_kept_bytes_are_measured_between_the_halves_of_a_backward(ranks, name: str, precision: str) -> None:
    layout, model = HALVES[name]
    layout = ParallelLayout(pp=2, virtual_stages=2, schedule="InterleavedZeroBubble", microbatches=4, **layout)
    check(ranks, Case(layout, replace(STAGED, **model), precision=precision, steps=2))


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_planned_kept_bytes_are_measured_under_the_document_s_layout_at_half_its_size(ranks, recompute: str) -> None:
    layout = ParallelLayout(pp=2, tp=2, ep=2, microbatches=4, recompute=recompute)
    check(ranks, Case(layout, STAGED, steps=2))


LAYOUTS = {
    "slices of experts": ParallelLayout(tp=2, etp=2, microbatches=2),
    "experts over replicas": ParallelLayout(dp=2, ep=2, microbatches=2),
    "shards": ParallelLayout(dp=2, dp_mode="shard", microbatches=2),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_planned_kept_bytes_are_measured_under_other_layouts(ranks, name: str) -> None:
    check(ranks, Case(LAYOUTS[name], replace(SMALL, num_layers=2, num_experts=8, num_shared_experts=1), steps=2))


@pytest.mark.parametrize("name", LAYOUTS)
def test_planned_kept_bytes_are_measured_with_biases_and_gates_under_other_layouts(ranks, name: str) -> None:
    gated = replace(SMALL, num_layers=2, num_experts=8, num_shared_experts=1, shared_gate=True, qkv_bias=True)
    check(ranks, Case(LAYOUTS[name], gated, precision="bf16-mixed", steps=2))


MODELS = {
    "grouped queries and sigmoids": replace(SMALL, num_kv_heads=2, score="sigmoid", expert_balance="bias"),
    "normalised sigmoids": replace(SMALL, score="sigmoid"),
    "a z-loss": replace(SMALL, z_coefficient=0.001),
    "no penalty": replace(SMALL, auxiliary_coefficient=0.0),
    "a capacity": replace(SMALL, capacity_factor=1.25, capacity_group=4),
    "several experts on a rank, balanced by the microbatch": replace(SMALL, num_experts=8, auxiliary_per="microbatch"),
    "odd widths": replace(SMALL, d_ff=50),
    "a shared expert": replace(SMALL, num_shared_experts=1),
    "a gated shared expert": replace(SMALL, num_shared_experts=1, shared_gate=True),
    "biases": replace(SMALL, qkv_bias=True),
    "scores that are not normalised": replace(SMALL, norm_top_k=False),
}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("model", MODELS)
def test_planned_kept_bytes_are_measured_for_other_models(ranks, model: str, precision: str) -> None:
    layout = ParallelLayout(tp=2, ep=2, microbatches=2)
    check(ranks, Case(layout, replace(MODELS[model], num_layers=2), precision=precision, steps=2))


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_planned_kept_bytes_are_measured_in_other_precisions(ranks, precision: str) -> None:
    check(ranks, Case(ParallelLayout(microbatches=2), replace(SMALL, num_layers=2), precision=precision, steps=2))


@pytest.mark.parametrize("model", [SMALL, replace(SMALL, num_dense_layers=4)], ids=["experts", "dense layers"])
def test_planned_kept_bytes_are_measured_where_each_microbatch_copies_the_weights_that_it_gathers(
    ranks, model: ModelConfig
) -> None:
    layout = ParallelLayout(pp=2, dp=2, dp_mode="shard", microbatches=4)
    check(ranks, Case(layout, model, precision="bf16-mixed", steps=2))


NORMED = {"qk_norm": True, "qk_norm_over": "width", "norm_top_k": False}
GATED = {"num_shared_experts": 1, "shared_gate": True, "qkv_bias": True}


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
@pytest.mark.parametrize("layout", [ParallelLayout(microbatches=2), ParallelLayout(tp=2, ep=2, microbatches=2)])
@pytest.mark.parametrize("changes", [NORMED, GATED], ids=["an OLMoE", "a Qwen2-MoE"])
def test_planned_kept_bytes_of_families_are_measured_in_other_precisions(
    ranks, changes: dict[str, Any], layout: ParallelLayout, precision: str
) -> None:
    check(ranks, Case(layout, replace(SMALL, num_layers=2, **changes), precision=precision, steps=2))


def test_the_document_s_stage_keeps_the_bytes_that_its_notes_say() -> None:
    """The notes count what a fused half-precision trainer must keep; ours keeps norms in fp32 and autocast's copies of
    weights besides, and no more than that."""
    step = Step(ModelConfig(), ParallelLayout(pp=4, tp=4, ep=4, microbatches=8), 8, 256, "bf16-true")
    least = 2 * 256 / 4 * (14 * 1024 + 2 * 1024 + 2 * (4 * 1024 + 6 * 4096))  # two layers, a sequence, k = 2
    middle = kept_by_module(step, step.parts[1], InFlight(1)).total()
    assert least < middle < 2.2 * least
