"""Planned figures beside measured ones: they go by the same names, and what was planned for even routing says so."""

import pytest

from project.planner.document.comparison import BALANCED, compare, planned_figures
from project.planner.document.plan import make_plan
from project.planner.machine.cluster_file import load_cluster
from project.planner.step import Step
from project.run_folder import SUMMARY_KEYS, layout_entry
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig


def starred(layout: ParallelLayout) -> tuple[set[str], str]:
    of_run = planned_figures(make_plan(Step(ModelConfig(), layout, 8, 256, "32-true"), load_cluster("h100_2x8")))
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


def test_planned_figures_have_the_summary_s_names_and_stand_beside_them() -> None:
    layout = ParallelLayout(pp=4, tp=4, ep=4, microbatches=4)
    of_run = planned_figures(make_plan(Step(ModelConfig(), layout, 8, 256, "bf16-mixed"), load_cluster("h100_2x8")))
    assert of_run.keys() <= {*SUMMARY_KEYS, "bubble"}
    measured = {**of_run, "step_time_s": 2 * of_run["step_time_s"], "mfu": None, "planned": of_run}
    rows = {row[0]: row for row in compare(measured).rows}
    assert rows["step_time_s"][-1] == "2.000"
    assert rows["mfu"][-1] == "-"
    assert {row[-1] for name, row in rows.items() if name.endswith("bytes")} <= {"1.000", "-"}
