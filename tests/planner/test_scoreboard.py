"""The planner against measured runs of others, as `make scoreboard` writes them down: arithmetic, no timing."""

import ast
import dataclasses
from itertools import groupby
from pathlib import Path
from statistics import mean

import pytest

import benchmarks.planner_scoreboard as scoreboard
import benchmarks.published_runs as published
from project.planner.cluster_file import load_cluster

DENSE, MOE = scoreboard.scores(False), scoreboard.scores(True)


@pytest.mark.parametrize("model", scoreboard.MEMORY)
def test_korthikantis_memory_is_exact(model):
    assert scoreboard.memory_row(model) == scoreboard.MEMORY[model][1]


def test_dense_runs_are_within_six_percent_on_average_and_twelve_at_worst():
    errors = [abs(scoreboard.error(*one)) for one in DENSE]
    assert len(errors) == 14
    assert mean(errors) <= 0.06
    assert max(errors) <= 0.12


def test_mixtures_of_experts_are_within_twelve_percent_on_average():
    errors = [abs(scoreboard.error(*one)) for one in MOE]
    assert len(errors) == 8
    assert mean(errors) <= 0.12


def test_layouts_of_one_model_are_in_the_right_order():
    for _, rows in groupby(MOE, key=lambda one: one[0].row["model"]):
        rows = list(rows)
        assert len(rows) > 1
        assert sorted(rows, key=lambda one: one[0].seconds) == sorted(rows, key=lambda one: one[1].seconds)


@pytest.mark.parametrize("scores", [DENSE, MOE])
def test_one_cluster_file_times_all_rows_and_every_second_comes_from_it(scores):
    """Scaling the file's rates scales every row's prediction alike: there is no other rate in it."""
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


def three_times_slower(link):
    return dataclasses.replace(
        link,
        latency_s=dataclasses.replace(link.latency_s, value=link.latency_s.value * 3),
        bandwidth=dataclasses.replace(link.bandwidth, value=link.bandwidth.value / 3),
    )


def test_how_trainers_differ_is_said_in_choices_and_counts_but_not_in_rates():
    """No number below one is in `implementation`: an efficiency would be."""
    import project.planner.implementation as implementation

    tree = ast.parse(Path(implementation.__file__).read_text())
    numbers = [
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and type(node.value) in (int, float)
    ]
    assert all(number == 0 or number >= 1 for number in numbers)


def test_what_a_source_does_not_say_is_searched_for_and_fits_the_memory():
    cluster = load_cluster("h100_8x")
    for run, predicted in MOE:
        unstated = run.row["recompute"] == "unstated"
        assert (len(run.options) > 1) == unstated
        assert not unstated or predicted.memory <= cluster.usable_bytes
