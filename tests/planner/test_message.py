"""A message takes the link between its ranks, within a node or between nodes."""

from dataclasses import replace
from itertools import pairwise

import pytest

from project.planner.cost.communication_time import crossings, message_link, message_seconds
from project.planner.document.plan import Plan, as_json, make_plan
from project.planner.machine.cluster import Cluster
from project.planner.machine.cluster_file import load_cluster
from project.planner.search.candidate import closed_form_seconds
from project.planner.step import Step
from project.planner.timeline import simulate_step
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig

TWO = load_cluster("h100_2x8")
LAYOUT = ParallelLayout(pp=4, tp=4, ep=4, microbatches=4)  # stages 0 and 1 on one node, 2 and 3 on the other
STREAM = 512 // 4 * 1024 * 4  # bytes of a microbatch's activations on a rank


def found(layout: ParallelLayout = LAYOUT, cluster: Cluster = TWO) -> Plan:
    return make_plan(Step(ModelConfig(), layout, 8, 256, "bf16-mixed"), cluster)


def with_slow_nodes(latency: float) -> Cluster:
    return replace(TWO, inter=replace(TWO.inter, latency_s=replace(TWO.inter.latency_s, value=latency)))


@pytest.mark.parametrize("together", [1, 2, 3, 4, 8, 12])
@pytest.mark.parametrize("per_node", [4, 6, 8])
def test_a_message_between_stages_takes_the_slowest_link_between_their_ranks(together: int, per_node: int) -> None:
    layout, cluster = ParallelLayout(pp=6, tp=together), replace(TWO, gpus_per_node=per_node)
    for here in range(6):
        for there in (place for place in range(6) if place != here):
            pairs = [(here * together + own, there * together + own) for own in range(together)]
            crosses = any(one // per_node != other // per_node for one, other in pairs)
            assert message_link(here, there, layout, cluster) == ("inter" if crosses else "intra")
    assert crossings(layout, cluster) == [message_link(a, a + 1, layout, cluster) for a in range(5)].count("inter")


def test_a_message_takes_latency_and_bytes_of_its_link() -> None:
    for (here, there), link in {(0, 1): TWO.intra, (1, 2): TWO.inter, (2, 1): TWO.inter, (3, 0): TWO.inter}.items():
        assert message_seconds(STREAM, here, there, LAYOUT, TWO) == link.latency_s.value + STREAM / link.rate
    assert message_seconds(STREAM, 2, 2, LAYOUT, TWO) == 0


def test_the_pipeline_waits_for_each_hop_as_long_as_its_link_takes() -> None:
    timeline = found().derived.timeline
    first = [next(timed for timed in timeline.actions if timed.rank == rank) for rank in range(4)]
    waits = [after.start - before.end for before, after in pairwise(first)]
    intra, inter = (link.latency_s.value + STREAM / link.rate for link in (TWO.intra, TWO.inter))
    assert waits == pytest.approx([intra, inter, intra])
    assert [(hop["link"], hop["seconds"]) for hop in as_json(found())["messages"]] == [
        ("intra", intra),
        ("inter", inter),
        ("intra", intra),
    ]


def test_the_first_stage_s_messages_stay_on_its_node() -> None:
    plan = found()
    sent = as_json(plan)["communication"]["pp"]["send"]
    assert sent["link"] == "intra"
    assert sent["seconds"] == pytest.approx(4 * (TWO.intra.latency_s.value + STREAM / TWO.intra.rate))
    once = 8 * (4 + 2 + 8 * (4 + 4))  # norm and flags, loss and targets, statistics and loads of eight layers, in fp64
    assert plan.quantities["inter_node_bytes"].value == 2 * once * 15 / 16, "the all-reduce over all ranks alone"
    second = sum(sent.bytes for sent in plan.derived.transfers[1] if sent.neighbour == 2)
    assert second == 4 * STREAM
    assert "pp 1 sends most so, 2.1 MB" in plan.quantities["inter_node_bytes"].how


def test_stages_that_go_round_use_both_links() -> None:
    layout = ParallelLayout(pp=2, tp=8, ep=4, dp=1, virtual_stages=2, schedule="Interleaved1F1B", microbatches=4)
    assert {hop.link for hop in found(layout).derived.hops} == {"inter"}
    v = replace(LAYOUT, virtual_stages=2, schedule="ZBVZeroBubble", microbatches=8)
    assert [(hop.stage, hop.link) for hop in found(v).derived.hops] == [
        *((0, "intra"), (1, "inter"), (2, "intra")),
        *((4, "intra"), (5, "inter"), (6, "intra")),  # 3 and 4 are on one rank
    ]


def test_slow_links_between_nodes_make_pipelines_slower_that_cross_them_and_no_others() -> None:
    """Compares the times of the simulation and of the closed form."""
    within = ParallelLayout(pp=2, tp=4, ep=4, microbatches=4)
    for layout, crosses in ((LAYOUT, True), (within, False)):
        step = Step(ModelConfig(), layout, 8, 256, "bf16-mixed")
        fast, slow = with_slow_nodes(1e-5), with_slow_nodes(1e-2)
        assert (closed_form_seconds(step, layout, slow) > closed_form_seconds(step, layout, fast)) == crosses
        assert (simulate_step(step, layout, slow).seconds > simulate_step(step, layout, fast).seconds) == crosses
