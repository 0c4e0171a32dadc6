"""Every number has a source by one rule, the same for numbers from the same rates."""

import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import pytest

from project.calibration import gpus, processors
from project.planner.config import claims_path
from project.planner.document.claims import read_claims
from project.planner.document.plan import Plan, as_json, make_plan
from project.planner.document.sheets import sheets
from project.planner.machine.cluster import Cluster
from project.planner.machine.cluster_file import load_cluster, read_cluster, write_cluster
from project.planner.machine.source import SOURCES, source_of_figures, source_of_results, source_of_seconds, weakest
from project.planner.step import Step
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig

LAYOUT = ParallelLayout(pp=2, tp=4, ep=4, microbatches=4)
SHEET = load_cluster("h100_8x")
GPUS = replace(SHEET, name="gpu_here", measured=(*gpus.MEASURED, "intra"))
PROCESSORS = replace(load_cluster("cpu_here"), measured=processors.MEASURED)


def found(cluster: Cluster, layout: ParallelLayout = LAYOUT) -> Plan:
    step = Step(ModelConfig(), layout, 8, 256, "bf16-mixed")
    return make_plan(step, cluster, read_claims(claims_path("reference_document")))


def test_a_number_s_source_is_that_of_its_weakest_input() -> None:
    assert weakest("measured", "derived") == "derived"
    assert weakest("derived", "assumed", "measured") == "assumed"
    assert source_of_figures(SHEET, "memory_bytes") == source_of_results(SHEET, "memory_bytes") == "assumed"
    assert source_of_figures(PROCESSORS, "memory_bytes") == "measured", "as it was read"
    assert source_of_results(PROCESSORS, "memory_bytes") == "derived", "arithmetic is no measurement"
    assert source_of_figures(GPUS, "peak_flops.half") == "measured"
    assert source_of_figures(GPUS, "peak_flops") == source_of_figures(GPUS, "peak_flops.fp32") == "assumed"


def test_planned_times_are_derived_where_all_their_rates_were_measured() -> None:
    assert source_of_seconds(SHEET, LAYOUT, "half") == "assumed"
    assert source_of_seconds(PROCESSORS, LAYOUT, "fp32") == "derived"
    assert source_of_seconds(GPUS, LAYOUT, "half") == "derived"
    assert source_of_seconds(GPUS, LAYOUT, "fp32") == "assumed", "in the data sheet's ratio"
    one_gpu = replace(GPUS, measured=gpus.MEASURED)
    assert source_of_seconds(one_gpu, LAYOUT, "half") == "assumed", "nobody measured its link"
    assert source_of_seconds(one_gpu, ParallelLayout(), "half") == "derived"
    many = replace(GPUS, nodes=2)
    assert source_of_seconds(many, replace(LAYOUT, dp=2), "half") == "assumed", "nor the network"


@pytest.mark.parametrize("measured", [processors.MEASURED, gpus.MEASURED])
def test_calibrated_rates_are_written_and_read_back_unchanged(measured: tuple[str, ...], tmp_path) -> None:
    cluster = read_cluster(asdict(replace(SHEET, measured=measured)))
    write_cluster(replace(cluster, name="mine"), tmp_path / "mine.yaml", "heading")
    assert load_cluster("mine", tmp_path).measured == measured


def test_the_calibrated_cluster_file_says_what_was_measured() -> None:
    assert PROCESSORS.measured == processors.MEASURED


@pytest.mark.parametrize(
    ("cluster", "word"), [(SHEET, "assumed"), (PROCESSORS, "derived"), (GPUS, "derived")], ids=lambda one: str(one)[:20]
)
def test_all_times_of_a_plan_have_the_same_source(cluster: Cluster, word: str) -> None:
    found_plan = found(cluster)
    derived, plan = found_plan.derived, as_json(found_plan)
    assert derived.seconds_source == word
    for name in ("step_time_s", "mfu", "bubble", "forward_latency_s", "throughput_gain"):
        assert plan["quantities"][name]["source"] == word
    assert {entry["source"] for key in ("timeline", "messages") for entry in plan[key]} == {word}
    entries = [entry for axis in plan["communication"].values() for entry in axis.values()]
    assert {entry["source"]["seconds"] for entry in entries} == {word}
    assert {claim["source"] for claim in plan["claims"] if claim["quantity"] == "latency_reduction"} == {word}
    by_title = {sheet.title: sheet for sheet in sheets(found_plan)}
    assert f"the seconds of a microbatch {word}" in by_title["Modules and compute"].note
    assert f"seconds {word}" in by_title["Communication of a step, busiest rank"].note
    assert f"idle {derived.timeline.bubble:.1%} ({word})" in by_title["Pipeline"].note
    checks = {row[0]: row[-1] for row in by_title["Validation checks"].rows}
    assert checks["stages balanced"] == checks["ranks compute 90%"] == checks["faster than one GPU"] == word


def test_a_cluster_s_memory_is_measured_where_calibration_read_it() -> None:
    for cluster, word in ((SHEET, "assumed"), (PROCESSORS, "measured"), (GPUS, "measured")):
        plan = found(cluster)
        assert plan.quantities["memory_available"].source == word
        by_title = {sheet.title: sheet for sheet in sheets(plan)}
        assert f"({word})" in by_title["Memory"].note
        assert next(row for row in by_title["Deployment conditions"].rows if row[0] == "of each")[-1] == word
        assert plan.quantities["memory_bytes"].source == "assumed", "the framework's part is nowhere measured"


@pytest.mark.parametrize("cluster", [SHEET, PROCESSORS, GPUS], ids=["sheet", "processors", "gpus"])
@pytest.mark.parametrize("layout", [LAYOUT, ParallelLayout()], ids=["eight", "one"])
def test_every_sheet_and_every_part_of_plan_json_says_where_its_numbers_are_from(
    cluster: Cluster, layout: ParallelLayout
) -> None:
    found_plan = found(cluster, layout)
    for sheet in sheets(found_plan):
        if "source" in sheet.columns:
            place = sheet.columns.index("source")
            assert {row[place] for row in sheet.rows} <= set(SOURCES), sheet.title
        else:
            assert re.search("|".join(SOURCES), sheet.note), sheet.title
    plan = as_json(found_plan)
    for key in ("quantities", "ranks", "communication", "messages", "timeline", "claims"):
        for entry in entries_with_numbers(plan[key]):
            words = entry["source"]
            assert words in SOURCES if isinstance(words, str) else set(leaves(words)) <= set(SOURCES)
    for rank in plan["ranks"]:
        assert rank["source"].keys() == rank.keys() - {"source"}
        assert rank["source"]["memory"].keys() == rank["memory"].keys()


def entries_with_numbers(part: Any) -> Iterator[dict[str, Any]]:
    """The outermost mappings that have a source."""
    if isinstance(part, dict) and any(isinstance(value, int | float) for value in part.values()):
        yield part
    elif isinstance(part, dict | list):
        for below in part.values() if isinstance(part, dict) else part:
            yield from entries_with_numbers(below)


def leaves(words: dict[str, Any]) -> Iterator[str]:
    for below in words.values():
        yield from leaves(below) if isinstance(below, dict) else (below,)
