"""A ranking's stability over the intervals of a cluster's file, by time, cost and memory."""

import dataclasses

import pytest

from project.planner.cost.step_time import step_time
from project.planner.cost.workload import workload
from project.planner.machine.cluster import Cluster
from project.planner.machine.cluster_file import load_cluster
from project.planner.search.branch_and_bound import search
from project.planner.search.candidate import Candidate
from project.planner.search.sensitivity import applying, ends, turns, unstable
from project.planner.step import Step
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig

STEP = Step(ModelConfig(), ParallelLayout(), 8, 256, "bf16-mixed")
SIXTEEN, HERE = load_cluster("h100_2x8"), load_cluster("cpu_here")


@pytest.fixture(scope="module")
def found():
    return search(STEP, SIXTEEN)


def test_a_ranking_that_turns_over_is_called_unstable(found):
    """Cheap launches make more tensor parallelism worth its messages."""
    stated = turns(found.best[:300], STEP, SIXTEEN, "time")
    assert {(turn.quantity, turn.end) for turn in stated} == {
        (quantity, end)
        for quantity in ("latency", "bandwidth", "launch cost", "small tiles", "tile depth")
        for end in ("low", "high")
    }
    assert all(turn.loses >= 0 for turn in stated)
    certain = dataclasses.replace(
        SIXTEEN, launch_s=dataclasses.replace(SIXTEEN.launch_s, low=SIXTEEN.launch_s.value, high=SIXTEEN.launch_s.value)
    )
    again = turns(found.best[:300], STEP, certain, "time")
    assert not [turn for turn in unstable(again) if turn.quantity == "launch cost"]


def test_a_ranking_turns_where_two_layouts_trade_latency_for_bandwidth():
    few = Candidate(ParallelLayout(pp=4, microbatches=4, schedule="1F1B"), 1.0, 0)
    wide = Candidate(ParallelLayout(tp=4), 1.01, 0)
    slow = dataclasses.replace(
        SIXTEEN,
        launch_s=dataclasses.replace(SIXTEEN.launch_s, value=1e-9, low=1e-9, high=1e-9),
        intra=dataclasses.replace(
            SIXTEEN.intra, latency_s=dataclasses.replace(SIXTEEN.intra.latency_s, value=1e-3, low=1e-7, high=1e-2)
        ),
    )
    lost = {(turn.quantity, turn.end): turn for turn in unstable(turns([few, wide], STEP, slow, "time"))}
    assert lost["latency", "low"].winner.layout == wide.layout
    assert ("latency", "high") not in lost


def test_a_ranking_by_cost_is_stable_against_a_layout_that_is_only_faster():
    """The best by cost on one GPU, and a faster one on eight."""
    cheap, fast = Candidate(ParallelLayout(), 1.0, 0), Candidate(ParallelLayout(dp=8, ep=1), 0.5, 0)
    assert unstable(turns([cheap, fast], STEP, SIXTEEN, "time"))
    by_cost = turns([cheap, fast], STEP, SIXTEEN, "cost")
    assert by_cost
    assert not unstable(by_cost)
    assert {turn.winner.layout for turn in by_cost} == {cheap.layout}


def test_planned_memory_depends_on_no_uncertain_rate(found):
    assert applying(SIXTEEN, "memory") == ()
    assert turns(found.best[:2], STEP, SIXTEEN, "memory") == []


LAYOUT = ParallelLayout(pp=2, tp=2, ep=2, microbatches=2)
SMALL, LARGE = (Step(ModelConfig(), LAYOUT, batch, length, "bf16-mixed") for batch, length in ((8, 256), (64, 2048)))


def seconds(cluster: Cluster) -> tuple[float, ...]:
    """The times of a step that is bound by launches and of one that is not."""
    return tuple(step_time(workload(step), step.layout, cluster).total for step in (SMALL, LARGE))


@pytest.mark.parametrize("cluster", [SIXTEEN, HERE], ids=lambda cluster: cluster.name)
def test_an_uncertain_rate_that_is_said_to_apply_changes_a_time(cluster: Cluster):
    stated = seconds(cluster)
    changed = {quantity for quantity, _, there in ends(cluster) if seconds(there) != stated}
    assert changed == set(applying(cluster))


def test_launches_and_bandwidth_change_no_time_where_ranks_share_cores():
    """So a ranking that is stable over these intervals would prove nothing there."""
    assert applying(HERE) == ("latency",)
    bandwidth = dataclasses.replace(HERE.intra.bandwidth, value=HERE.intra.bandwidth.low)
    intra = dataclasses.replace(HERE.intra, bandwidth=bandwidth)
    launch = dataclasses.replace(HERE.launch_s, value=HERE.launch_s.high)
    assert seconds(dataclasses.replace(HERE, intra=intra, launch_s=launch)) == seconds(HERE)
