"""Planned against measured: what was planned for even routing says so."""

import pytest

from project.planner.document.compare import BALANCED, compare
from project.planner.document.derive import derive
from project.planner.document.plan_file import planned
from project.planner.machine.cluster_file import load_cluster
from project.planner.step import Step
from project.run_folder import layout_entry
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig


def starred(layout: ParallelLayout) -> tuple[set[str], str]:
    of_run = planned(derive(Step(ModelConfig(), layout, 8, 256, "32-true"), load_cluster("h100_2x8")))
    sheet = compare({**of_run, "planned": of_run, "layout": layout_entry(layout)})
    return {name for name, here, *_ in sheet.rows if here.endswith("*")}, sheet.note


@pytest.mark.parametrize("layout", [ParallelLayout(pp=2, tp=2, ep=2, microbatches=4), ParallelLayout(dp=4, ep=2)])
def test_bytes_that_depend_on_routing_are_starred_and_the_star_is_explained(layout):
    names, note = starred(layout)
    assert note == BALANCED
    kept = {name for name in names if "activation" in name or "peak_memory" in name}
    sent = names - kept
    assert kept
    assert sent
    assert all(name.endswith(" all_to_all bytes") for name in sent)


@pytest.mark.parametrize("layout", [ParallelLayout(pp=2, dp=2, microbatches=4), ParallelLayout(tp=2, etp=2)])
def test_bytes_do_not_depend_on_routing_where_every_rank_has_a_share_of_all_experts(layout):
    assert starred(layout) == (set(), "")
