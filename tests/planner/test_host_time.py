"""Ranks that share cores take turns; what a rank's program costs is added up from what it goes through."""

import dataclasses

import pytest

from project.calibration.overhead import FEW, MANY, cases, evaluate
from project.calibration.rank_seconds import Seconds
from project.planner.cost import host_time
from project.planner.cost.host_time import shared_span
from project.planner.cost.step_time import step_time
from project.planner.cost.workload import Durations, Workload
from project.planner.machine.cluster import Host
from project.planner.machine.cluster_file import load_cluster
from project.planner.search.branch_and_bound import search
from project.planner.step import Step
from project.spec.layer.implementation import ours
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig

COSTS = {
    "block_s": 3e-3,
    "tensor_s": 2e-3,
    "tensor_peer_s": 1e-3,
    "expert_s": 1e-3,
    "expert_peer_s": 5e-4,
    "tensor_wait_s": 3e-3,
    "tensor_wait_peer_s": 2e-3,
    "expert_wait_s": 4e-3,
    "expert_wait_peer_s": 1e-3,
    "channel_s": 5e-8,
    "ends_s": 1e-3,
    "tensor_ends_s": 2e-3,
    "tensor_ends_peer_s": 1e-3,
    "message_s": 2e-3,
    "byte_s": 3e-10,
    "parameter_s": 1e-9,
    "step_s": 1e-2,
    "step_peer_s": 1e-3,
}
HERE = dataclasses.replace(load_cluster("cpu_here"), host=Host(cores=2, **COSTS))
SMALL = ModelConfig(d_model=256, num_kv_heads=4, head_dim=32, d_ff=512, vocab_size=4096)
WORK = Workload(SMALL, 8, 256, ours("32-true"), "fp32")


def span(layout: ParallelLayout, cores: int) -> tuple[float, float]:
    return shared_span(layout, [Durations(1.0, 1.0, 1.0)] * layout.stages, cores, 0.0)


def test_with_a_core_for_each_rank_a_pipeline_takes_what_its_closed_form_says():
    layout = ParallelLayout(pp=4, microbatches=8)
    assert span(layout, 4) == pytest.approx((3 * (8 + 3), 3 * 8 * 4))


def test_with_fewer_cores_than_ranks_the_cores_are_shared_and_bubbles_filled():
    layout = ParallelLayout(pp=4, tp=4, ep=4, microbatches=4)
    seconds, busy = span(layout, 2)
    assert busy == pytest.approx(3 * 4 * 16)
    assert busy / 2 <= seconds < 1.1 * busy / 2
    assert span(ParallelLayout(tp=4, ep=4, microbatches=4), 2)[0] == pytest.approx(3 * 4 * 4 / 2)


def test_other_ranks_compute_while_a_rank_waits_inside_an_action():
    two = ParallelLayout(tp=2, ep=2, microbatches=4)
    stage, wait = [Durations(1.0, 1.0, 1.0)], [1.5]
    seconds, busy = shared_span(two, stage, 2, 0.0, wait)
    assert (seconds, busy) == pytest.approx((4 * 4.5, 4 * 3 * 2)), "two ranks on two cores wait for each other"
    assert shared_span(two, stage, 1, 0.0, wait)[0] == pytest.approx(4 * 3 * 2), "on one they need not"
    four = ParallelLayout(pp=2, tp=2, ep=2, microbatches=400)
    seconds, busy = shared_span(four, stage * 2, 2, 0.0, wait * 2)
    assert seconds == pytest.approx(busy / 2, rel=0.01), "another stage's ranks fill the cores"


def test_ranks_on_one_core_run_one_after_the_other():
    layout = ParallelLayout(pp=4, microbatches=4)
    seconds, busy = span(layout, 1)
    assert seconds == pytest.approx(busy)


def test_more_ranks_than_cores_cost_their_overhead():
    times = [
        step_time(WORK, layout, HERE).total
        for layout in (
            ParallelLayout(tp=2, ep=2, microbatches=4),
            ParallelLayout(tp=4, ep=4, microbatches=4),
            ParallelLayout(pp=4, tp=4, ep=4, microbatches=4),
            ParallelLayout(pp=4, tp=4, ep=4, microbatches=8),
        )
    ]
    assert times == sorted(times)


def test_stretched_durations_give_the_shared_span_again():
    layout = ParallelLayout(pp=4, tp=2, ep=2, microbatches=4)
    stages = host_time.host_stage_durations(WORK, layout, HERE)
    latency = HERE.intra.latency_s.value
    unshared, _ = shared_span(layout, stages, 100, latency)
    assert unshared == pytest.approx(step_time(WORK, layout, HERE).pipeline, rel=0.01)


def test_the_best_layout_on_few_cores_sends_few_messages():
    """With nothing to gain from a third rank the search does not cut layers over four."""
    found = search(Step(SMALL, ParallelLayout(), 8, 256, "32-true"), HERE, 4)
    assert found.best[0].layout.tp == 1
    bound = min(one.seconds for one in found.best)
    assert bound == found.best[0].seconds


def test_calibration_reads_each_cost_from_runs_that_differ_in_it():
    """Invented costs determine the seconds of each run, and are found again."""

    def seconds(layers: int, layout: ParallelLayout) -> Seconds:
        m, ranks = layout.microbatches, layout.world_size
        tensor = host_time.cost_among(COSTS["tensor_s"], COSTS["tensor_peer_s"], layout.tp)
        expert = host_time.cost_among(COSTS["expert_s"], COSTS["expert_peer_s"], layout.ep)
        ends = COSTS["ends_s"] + host_time.cost_among(COSTS["tensor_ends_s"], COSTS["tensor_ends_peer_s"], layout.tp)
        of_rank = (layers * (COSTS["block_s"] + tensor + expert) + ends) / layout.pp
        message = COSTS["message_s"] if layout.pp > 1 else 0.0
        core = m * (of_rank + message) + COSTS["step_s"] + (ranks - 1) * COSTS["step_peer_s"]
        waits = host_time.cost_among(COSTS["tensor_wait_s"], COSTS["tensor_wait_peer_s"], layout.tp)
        waits += host_time.cost_among(COSTS["expert_wait_s"], COSTS["expert_wait_peer_s"], layout.ep)
        return Seconds(core, core + m * layers / layout.pp * waits)

    found = evaluate({name: seconds(case.layers, case.layout) for name, case in cases().items()})
    for name, value in found._asdict().items():
        if name != "wide_layer_s":
            assert value == pytest.approx(COSTS[name]), name
    assert FEW < MANY
