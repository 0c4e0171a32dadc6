"""The document: every number with its source, 80 columns, plan.json as its readers expect it."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from project.planner.config import claims_path
from project.planner.document.claims import check, read_claims
from project.planner.document.plan import Plan, as_json, make_plan
from project.planner.document.sheets import sheets
from project.planner.machine.cluster_file import load_cluster
from project.planner.step import Step
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.spec.schedules.table import SCHEDULES
from tests.harness.schedules import layout_of

LAYOUTS = {
    "the document's": ParallelLayout(pp=4, tp=4, ep=4, microbatches=4),
    "one rank": ParallelLayout(),
    "replicas in shards": ParallelLayout(dp=4, tp=2, ep=4, dp_mode="shard", microbatches=2, recompute="full"),
    "zero bubble": ParallelLayout(pp=4, virtual_stages=2, schedule="ZBVZeroBubble", microbatches=8),
}


def found(layout: ParallelLayout) -> Plan:
    step = Step(ModelConfig(), layout, 8, 256, "bf16-mixed")
    return make_plan(step, load_cluster("h100_2x8"), read_claims(claims_path("reference_document")))


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_planned_document_is_80_columns_wide(name: str) -> None:
    console = Console(file=io.StringIO(), width=80)
    for sheet in sheets(found(LAYOUTS[name])):
        console.print(sheet.table())
        rows = sheet.markdown().splitlines()
        table = [row for row in rows if row.startswith("|")]
        assert len(table) == 2 + len(sheet.rows)
    printed = console.file.getvalue()
    assert max(map(len, printed.splitlines())) <= 80
    assert "nan" not in printed


@pytest.mark.parametrize("name", LAYOUTS)
def test_plan_json_says_where_each_number_is_from(name: str) -> None:
    layout = LAYOUTS[name]
    plan = json.loads(json.dumps(as_json(found(layout)), allow_nan=False))
    assert plan.keys() >= {"layout", "cluster", "model", "quantities", "ranks", "communication", "timeline", "claims"}
    assert {of["source"] for of in plan["quantities"].values()} <= {"derived", "assumed", "measured"}
    assert all(of["how"] for of in plan["quantities"].values())
    assert [rank["rank"] for rank in plan["ranks"]] == list(range(layout.world_size))
    assert sorted({layer for rank in plan["ranks"] for layer in rank["layers"]}) == list(range(8))
    assert {expert for rank in plan["ranks"] for expert in rank["experts"]} == {0, 1, 2, 3}
    actions = 2 * layout.stages * layout.microbatches
    assert len(plan["timeline"]) == actions + (name == "zero bubble") * actions // 2
    for entry in (entry for of in plan["communication"].values() for entry in of.values()):
        assert entry["link"] in ("intra", "inter")
        assert entry["seconds"] >= 0


def test_the_document_s_ranks_are_where_the_layout_puts_them() -> None:
    ranks = as_json(found(LAYOUTS["the document's"]))["ranks"]
    last = ranks[13]
    assert (last["node"], last["gpu"], last["stages"], last["layers"]) == (1, 5, [3], [6, 7])
    assert (last["tp"], last["experts"], last["parameters"]) == (1, [1], 29_373_440)


def test_a_slower_link_makes_a_longer_planned_step() -> None:
    step, cluster = found(LAYOUTS["the document's"]).derived.step, load_cluster("h100_2x8")
    slow = replace(cluster, intra=replace(cluster.intra, achieved=cluster.intra.achieved / 100))
    times = [make_plan(step, there).derived.step_seconds for there in (cluster, slow)]
    assert times[1] > times[0]


def test_a_bubble_without_a_closed_form_is_not_given_another_schedule_s() -> None:
    for schedule in (name for name, record in SCHEDULES.items() if record.splits_backward):
        plan = found(layout_of(schedule, pp=4, tp=4, ep=4, microbatches=8))
        bubble = plan.quantities["bubble_closed_form"]
        assert bubble.value is None
        assert bubble.how == f"no closed form is known here of {schedule}"
        claim = {"claim": "x", "quantity": "bubble_closed_form", "relation": "at_most", "claimed": 0.1}
        assert check([claim], {"bubble_closed_form": bubble})[0]["verdict"] == "unknown"
        note = next(sheet.note for sheet in sheets(plan) if sheet.title == "Pipeline")
        assert "no closed form" in note
        assert "(p-1)" not in note
