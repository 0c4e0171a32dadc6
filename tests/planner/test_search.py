"""A search finds the legal layouts, leaves out those that do not fit, and says whether its ranking holds."""

import dataclasses
import math
import random
from itertools import pairwise

import pytest

from benchmarks.planner_search import DEEPSEEK
from project.command_line.check import check
from project.commands.train.command import TRAIN
from project.planner.machine.cluster_file import load_cluster
from project.planner.memory.peak import peak
from project.planner.search import space
from project.planner.search.branch_and_bound import SLACK, search, within
from project.planner.search.candidate import SETTLED, closed_form_seconds
from project.planner.search.pareto import front
from project.planner.search.space import overrides
from project.planner.step import Step
from project.planner.timeline import simulate_step
from project.spec.layout import RECOMPUTE, ParallelLayout
from project.spec.legality.layouts import is_legal, layout_faults, legal_layouts
from project.spec.model import ModelConfig
from project.spec.schedules import in_flight
from project.spec.schedules.order import order_of
from project.spec.schedules.table import SCHEDULES

MODEL = ModelConfig()
BATCH, SEQ_LEN = 8, 256
STEP = Step(MODEL, ParallelLayout(pp=4, tp=4, ep=4, microbatches=4), BATCH, SEQ_LEN, "bf16-mixed")
SIXTEEN = load_cluster("h100_2x8")
RESERVED = int(SIXTEEN.reserved_bytes)


@pytest.fixture(scope="module")
def found():
    return search(STEP, SIXTEEN)


@pytest.fixture(scope="module")
def smallest():
    return search(STEP, SIXTEEN, objective="memory")


def every(gpus: int):
    for degrees in space.degrees(MODEL, gpus, BATCH, SEQ_LEN):
        for number in space.microbatches(degrees, BATCH):
            for recompute in RECOMPUTE:
                some = dataclasses.replace(degrees, microbatches=number, recompute=recompute)
                yield from space.pipelines(some, MODEL)


def test_a_search_tries_only_legal_layouts_and_none_twice():
    tried = list(every(16))
    assert len(tried) == len(set(tried))
    assert {layout.schedule for layout in tried} == set(SCHEDULES)
    assert {layout.world_size for layout in tried} == {16}
    for layout in random.Random(0).sample(tried, 300):
        assert layout_faults(layout, MODEL, BATCH, SEQ_LEN) == [], layout


def test_a_search_tries_all_legal_degrees():
    def shape(layout):
        return layout.pp, layout.dp, layout.tp, layout.ep, layout.etp

    gpipe = ParallelLayout(schedule="GPipe")  # which any number of microbatches fills
    tried = {shape(layout) for layout in space.degrees(MODEL, 16, BATCH, SEQ_LEN)}
    assert tried == {shape(layout) for layout in legal_layouts(MODEL, 16, BATCH, SEQ_LEN, gpipe)}


def test_a_search_tries_all_legal_pipelines_except_those_that_run_the_same():
    degrees = ParallelLayout(pp=4, tp=4, ep=4, microbatches=4)
    tried = {(layout.schedule, layout.virtual_stages) for layout in space.pipelines(degrees, MODEL)}
    legal = {
        (schedule, stages)
        for schedule in SCHEDULES
        for stages in range(1, MODEL.num_layers + 1)
        if is_legal(dataclasses.replace(degrees, schedule=schedule, virtual_stages=stages), MODEL, BATCH, SEQ_LEN)
    }
    assert legal - tried == {("Interleaved1F1B", 1), ("LoopedBFS", 1)}  # 1F1B and GPipe by other names
    assert tried <= legal


def test_a_search_s_best_is_the_fastest_candidate(found):
    times = sorted(closed_form_seconds(STEP, layout, SIXTEEN) for layout in every(16))
    assert min(closed_form_seconds(STEP, one.layout, SIXTEEN) for one in found.best) == pytest.approx(times[0])
    assert found.timed < len(times)
    assert [one.seconds for one in found.best] == sorted(one.seconds for one in found.best)


def test_a_search_s_smallest_holds_the_least_of_all_candidates(smallest):
    """Compares with every candidate: the search leaves out none that holds less, nor any that it claims to consider."""
    held = {layout: peak(dataclasses.replace(STEP, layout=layout), RESERVED) for layout in every(16)}
    assert smallest.weighed < len(held) / 4
    assert smallest.best[0].memory == min(held.values())
    assert [one.memory for one in smallest.best] == sorted(one.memory for one in smallest.best)
    near = within(SLACK, min(held.values()), "memory", SIXTEEN)
    assert {one.layout for one in smallest.best} == {layout for layout, its in held.items() if its <= near}
    assert all(one.memory == held[one.layout] for one in smallest.best)


def test_a_search_leaves_out_layouts_that_do_not_fit(found):
    room = RESERVED + 0.7e9
    small = search(STEP, dataclasses.replace(SIXTEEN, memory_bytes=room))
    assert 0 < max(one.memory for one in small.best) <= room < max(one.memory for one in found.best)
    nothing = search(STEP, dataclasses.replace(SIXTEEN, memory_bytes=RESERVED + 0.1e9))
    assert (nothing.best, nothing.timed, nothing.cut) == ([], 0, False)
    assert nothing.splits > 0


def test_a_search_returns_at_least_as_many_of_the_best_as_are_wanted():
    several = search(STEP, SIXTEEN, gpus=1, slack=1.0)
    assert len(several.best) >= 10
    every_time = sorted(closed_form_seconds(STEP, layout, SIXTEEN) for layout in every(1))
    assert sorted(closed_form_seconds(STEP, one.layout, SIXTEEN) for one in several.best)[:10] == every_time[:10]
    assert len(search(STEP, SIXTEEN, gpus=1, slack=1.0, wanted=1).best) < 10


def test_accumulated_batches_multiply_a_searched_step_s_time():
    several = dataclasses.replace(STEP, accumulate=3)
    once, thrice = (closed_form_seconds(step, STEP.layout, SIXTEEN) for step in (STEP, several))
    assert 2.5 * once < thrice < 3 * once
    once, thrice = (simulate_step(step, STEP.layout, SIXTEEN).seconds for step in (STEP, several))
    assert 2.5 * once < thrice < 3 * once


def test_a_search_s_pareto_front_has_the_layouts_that_none_beats_in_time_and_memory(found, smallest):
    for there in (found, smallest):
        kept = there.fronts
        assert all(one.settled for one in kept)
        assert kept[0].seconds == min(one.seconds for one in there.best)
        assert kept[-1].memory == min(one.memory for one in there.best)
        for one in there.best:
            assert any(other.seconds <= one.seconds and other.memory <= one.memory for other in kept)
        for one, two in pairwise(kept):
            assert one.seconds < two.seconds
            assert one.memory > two.memory
    assert front([(1, 2), (2, 1), (2, 2), (1, 2)], lambda p: p[0], lambda p: p[1]) == [(1, 2), (2, 1)]


def test_a_search_times_its_best_action_by_action(found, smallest):
    for there in (found, smallest):
        for one in there.best[:SETTLED]:
            assert one.settled
            assert one.seconds == simulate_step(STEP, one.layout, SIXTEEN).seconds


def test_the_closed_form_of_a_step_s_time_is_near_the_simulation(found):
    for one in found.best[:20]:
        assert one.seconds == pytest.approx(closed_form_seconds(STEP, one.layout, SIXTEEN), rel=0.3)


def test_each_result_of_a_search_is_a_command_line_that_train_py_accepts(found, tmp_path):
    for one in random.Random(1).sample(found.best, 6):
        line = [
            *overrides(one.layout).split(),
            "trainer.accelerator=cpu",
            "data=synthetic",
            f"hydra.run.dir={tmp_path}",
        ]
        check(line, TRAIN, {}, memory=lambda: math.inf)  # exits where anything is wrong


def test_a_search_evaluates_a_fraction_of_the_candidates(monkeypatch):
    """A part of a model like DeepSeek-V3; `benchmarks/planner_search.py` measures all of it on 16,384 GPUs."""
    orders = []
    monkeypatch.setattr(in_flight, "order_of", lambda layout: orders.append(layout) or order_of(layout))
    in_flight._peaks.cache_clear()
    model = dataclasses.replace(DEEPSEEK, num_layers=12, num_dense_layers=1)
    cluster = dataclasses.replace(load_cluster("h100_8x"), nodes=8)
    found = search(Step(model, ParallelLayout(), 64, 4096, "bf16-true"), cluster)
    assert {one.layout.world_size for one in found.best} == {64}
    every = sum(
        3 * len(list(space.pipelines(dataclasses.replace(degrees, microbatches=number), model)))
        for degrees in space.degrees(model, 64, 64, 4096)
        for number in space.microbatches(degrees, 64)
    )
    assert 0 < 5 * found.timed < every
    assert 0 < 5 * found.weighed < every
    assert len(orders) <= 2 * len(set(orders)) < found.weighed / 5, "once with backwards split, once without"
    assert cluster.memory_per_rank(64) == cluster.memory_bytes
