"""Smaller numbers of GPUs are tried, and the verdict is what was found."""

import dataclasses

import pytest

from project.planner.document.search_sheets import best_sheet, fewer_sheet, fewer_verdict
from project.planner.machine.cluster_file import load_cluster
from project.planner.search.branch_and_bound import Found, search
from project.planner.search.candidate import Candidate, closed_form_seconds, objective_value
from project.planner.search.outcome import REACH, Outcome, search_all, search_fewer, smaller_counts
from project.planner.step import Step
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig

STEP = Step(ModelConfig(), ParallelLayout(), 8, 256, "bf16-mixed")
SIXTEEN = load_cluster("h100_2x8")


@pytest.mark.parametrize(
    ("gpus", "tried"),
    [(16, [8, 4, 2, 1]), (7, [4, 2, 1]), (12, [6, 3, 2, 1]), (100, [50, 25, 16, 8, 4, 2, 1]), (1, [])],
)
def test_fewer_gpus_are_tried_by_halves_and_then_powers_of_two(gpus: int, tried: list[int]):
    assert list(smaller_counts(gpus)) == tried


def test_8_of_16_gpus_do_nearly_as_well_on_a_model_that_is_bound_by_launches():
    sixteen = search(STEP, SIXTEEN)
    found = search_fewer(STEP, SIXTEEN, sixteen, "time")
    assert [gpus for gpus, _ in found] == [8, 4, 2, 1]
    assert found[0][1].best[0].seconds < 1.3 * sixteen.best[0].seconds


def test_trying_fewer_gpus_stops_where_nothing_comes_near():
    """The smallest layout on one GPU needs about fifteen times the memory of sixteen, far from nearly as little."""
    found = search_fewer(STEP, SIXTEEN, search(STEP, SIXTEEN, objective="memory"), "memory")
    assert not found[-1][1].best
    assert found[-1][1].cut
    assert all(there.best for _, there in found[:-1])


def test_the_ten_cheapest_layouts_are_found_on_any_number_of_gpus():
    """Compares with every candidate on four, two and one GPUs."""
    few = dataclasses.replace(SIXTEEN, nodes=1, gpus_per_node=4)
    whole = search(STEP, few, objective="cost")
    found = search_fewer(STEP, few, whole, "cost")
    assert [gpus for gpus, _ in found] == [2, 1]
    looked_at = {one.layout for there in (whole, *(there for _, there in found)) for one in there.best}
    every = [one.layout for gpus in (4, 2, 1) for one in search(STEP, few, gpus, slack=100.0).best]
    cost = {layout: closed_form_seconds(STEP, layout, few) * layout.world_size for layout in every}
    cheapest = sorted(cost, key=cost.__getitem__)
    assert set(cheapest[:10]) <= looked_at
    assert {layout for layout in every if cost[layout] <= REACH["cost"] * cost[cheapest[0]]} <= looked_at


def test_an_odd_number_of_gpus_has_smaller_numbers_tried():
    seven = dataclasses.replace(SIXTEEN, nodes=1, gpus_per_node=7)
    found = search_fewer(STEP, seven, search(STEP, seven), "time")
    assert [gpus for gpus, there in found if there.best] == [4, 2, 1]


def told(objective: str, of_all: float, others: dict[int, float | None], cut: bool = False) -> Outcome:
    """An outcome on eight GPUs with the seconds or bytes of the best layout; None if there is none."""

    def found(gpus: int, its: float | None) -> Found:
        seconds, held = (1.0, int(its or 0)) if objective == "memory" else (its or 0.0, 1)
        best = [] if its is None else [Candidate(ParallelLayout(dp=gpus), seconds, held)]
        return Found(best, splits=1, cut=cut)

    cluster = dataclasses.replace(SIXTEEN, nodes=1)
    whole, less = found(8, of_all), [(gpus, found(gpus, its)) for gpus, its in others.items()]
    return Outcome(cluster, objective, whole.best[0], whole, whole.best, None, less, [], 1, "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("objective", "of_all", "others", "cut", "said"),
    [
        ("time", 1.0, {}, False, "There are no fewer than one."),
        ("time", 1.0, {4: 1.04, 2: 1.3}, False, "4 GPUs would do as well (within 5%); tried: 4, 2."),
        ("time", 1.0, {4: 0.9, 2: 1.3}, False, "The best is on 4 GPUs; tried: 4, 2."),
        (
            *("time", 1.0, {4: 0.9, 2: 0.92}, False),
            "The best is on 4 GPUs, and 2 GPUs would do as well (within 5%); tried: 4, 2.",
        ),
        ("time", 1.0, {4: 1.3, 2: 1.4}, False, "Fewer GPUs take longer; tried: 4, 2."),
        ("time", 1.0, {4: 1.3, 2: None}, True, "Fewer GPUs take longer; tried: 4, 2."),
        ("time", 1.0, {4: 1.3, 2: None}, False, "Fewer GPUs take longer or do not fit; tried: 4, 2."),
        ("time", 1.0, {4: None}, False, "Fewer GPUs do not fit; tried: 4."),
        ("memory", 100, {4: 130}, False, "Fewer GPUs hold more; tried: 4."),
        ("memory", 100, {4: 100}, False, "4 GPUs would do as well (within 5%); tried: 4."),
        ("cost", 1.0, {4: 1.5, 1: 2.0}, False, "A token costs least on 1 GPU; tried: 4, 1."),
        ("cost", 1.0, {4: 2.5}, False, "Fewer GPUs cost more a token; tried: 4."),
    ],
)
def test_the_verdict_on_fewer_gpus_goes_by_the_objective_and_what_was_tried(objective, of_all, others, cut, said):
    assert fewer_verdict(told(objective, of_all, others, cut)) == said


def test_every_number_of_gpus_that_was_tried_is_a_row_in_order():
    rows = fewer_sheet(told("cost", 1.0, {4: 1.5, 2: 1.7, 1: 2.0})).rows
    assert [row[0] for row in rows] == ["8", "4", "2", "1"]
    assert [row[-1] for row in rows] == ["x 1.00", "x 0.75", "x 0.42", "x 0.25"]
    assert objective_value(Candidate(ParallelLayout(dp=4), 1.5, 1), "cost") == 6


@pytest.mark.parametrize("objective", ["time", "memory", "cost"])
def test_what_is_best_is_said_once(objective):
    """The first of the best layouts is that of the best row of the table of fewer GPUs."""
    outcome = search_all(STEP, SIXTEEN, objective, "train")
    by_number = [there.best[0] for there in outcome.every if there.best]
    first, least = outcome.best[0], min(by_number, key=lambda one: objective_value(one, objective))
    assert objective_value(first, objective) == objective_value(least, objective)
    assert best_sheet(outcome).rows[0][1] == str(first.layout.world_size)
