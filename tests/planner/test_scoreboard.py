"""The planner against measured runs of others, as `make scoreboard` writes them down: arithmetic, no timing."""

import ast
import dataclasses
from itertools import groupby
from pathlib import Path
from statistics import mean

import pytest

import benchmarks.footprint as footprint
import benchmarks.planner_scoreboard as scoreboard
import benchmarks.published_runs as published
from project.planner.cost import communication_time, step_time, work, workload
from project.planner.machine import group
from project.planner.machine.cluster_file import load_cluster
from project.spec.layer import implementation, transformer

TIMING = (published, step_time, communication_time, work, transformer, workload, group, footprint, implementation)
DENSE, MOE = scoreboard.scores(False), scoreboard.scores(True)


@pytest.mark.parametrize("model", scoreboard.MEMORY)
def test_korthikantis_memory_is_exact(model):
    assert scoreboard.memory_row(model) == scoreboard.MEMORY[model][1]


def test_predictions_of_dense_runs_are_within_6_percent_on_average_and_12_at_worst():
    errors = [abs(scoreboard.error(*one)) for one in DENSE]
    assert len(errors) == 14
    assert mean(errors) <= 0.06
    assert max(errors) <= 0.12


def test_predictions_of_mixtures_of_experts_are_within_12_percent_on_average():
    errors = [abs(scoreboard.error(*one)) for one in MOE]
    assert len(errors) == 8
    assert mean(errors) <= 0.12


def test_predictions_put_layouts_of_one_model_in_the_measured_order():
    for _, rows in groupby(MOE, key=lambda one: one[0].row["model"]):
        rows = list(rows)
        assert len(rows) > 1
        assert sorted(rows, key=lambda one: one[0].seconds) == sorted(rows, key=lambda one: one[1].seconds)


@pytest.mark.parametrize("scores", [DENSE, MOE])
def test_one_cluster_file_times_all_rows_of_the_scoreboard(scores):
    """Three times slower rates make every row three times as long: nobody adds seconds of his own. A factor would pass;
    the next two tests are about factors."""
    cluster = load_cluster(scoreboard.clusters()[scores[0][0].is_moe])
    slower = dataclasses.replace(
        cluster,
        peak_flops=dataclasses.replace(cluster.peak_flops, half=cluster.peak_flops.half / 3),
        memory_bandwidth=cluster.memory_bandwidth / 3,
        launch_s=dataclasses.replace(cluster.launch_s, value=cluster.launch_s.value * 3),
        intra=three_times_slower(cluster.intra),
        inter=three_times_slower(cluster.inter),
    )
    for run, predicted in scores:
        assert published.predict(run, slower).seconds == pytest.approx(3 * predicted.seconds)


@pytest.mark.parametrize(("run", "predicted"), [pytest.param(*one, id=one[0].name) for one in DENSE + MOE])
def test_a_scoreboard_row_is_timed_by_its_model_and_layout_and_not_by_its_name(run, predicted):
    """A row's time equals `step_time`'s without everything that only names the row."""
    cluster = load_cluster(scoreboard.clusters()[run.is_moe])
    assert predicted.seconds == step_time.step_time(run.work, predicted.layout, cluster).total
    nameless = published.run_of({**run.row, "source": "", "model": "", "gpu": "", "note": ""})
    assert (nameless.work, nameless.options) == (run.work, run.options)
    assert nameless.seconds == run.seconds
    assert published.predict(nameless, cluster) == predicted


@pytest.mark.parametrize("module", TIMING, ids=lambda module: module.__name__)
def test_no_code_that_times_a_scoreboard_row_tells_rows_apart(module):
    """Not by a name, and not by a size: nothing is asked whether it has so many layers or is so wide."""
    tree = ast.parse(Path(module.__file__).read_text())
    named = {run.row[key] for run in published.runs() for key in ("source", "model")}
    texts = {text for text in constants(tree, str) if len(text) > 2 and "\n" not in text}
    assert not {text for text in texts if any(text in name or name in text for name in named)}
    compared = (node for node in ast.walk(tree) if isinstance(node, ast.Compare | ast.Dict))
    assert all(number <= 2 for node in compared for number in constants(node, int, float))


def constants(tree, *kinds):
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and type(node.value) in kinds]


def three_times_slower(link):
    return dataclasses.replace(
        link,
        latency_s=dataclasses.replace(link.latency_s, value=link.latency_s.value * 3),
        bandwidth=dataclasses.replace(link.bandwidth, value=link.bandwidth.value / 3),
    )


@pytest.mark.parametrize("module", TIMING, ids=lambda module: module.__name__)
def test_no_efficiency_is_outside_the_cluster_file(module):
    """How trainers differ is said in choices and counts, how a product is cut in sizes: no number is below one."""
    numbers = constants(ast.parse(Path(module.__file__).read_text()), int, float)
    assert all(number == 0 or number >= 1 for number in numbers)


def test_settings_that_a_source_does_not_state_are_searched_for_and_fit_the_memory():
    cluster = load_cluster("h100_8x")
    for run, predicted in MOE:
        unstated = run.row["recompute"] == "unstated"
        assert (len(run.options) > 1) == unstated
        assert not unstated or predicted.memory <= cluster.usable_bytes
