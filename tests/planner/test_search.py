"""A search finds what is legal, leaves out what does not fit, and says whether its ranking holds."""

import dataclasses
import random
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.planner_search import DEEPSEEK
from project import command_line
from project.model.config import ModelConfig
from project.parallel.layout import SCHEDULES, ParallelLayout
from project.parallel.legality import is_legal, layout_faults, legal_layouts
from project.planner import space
from project.planner.cluster_file import load_cluster
from project.planner.implementation import ours
from project.planner.pareto import front
from project.planner.search import Candidate, capacity, fewer, overrides, search
from project.planner.sensitivity import turns, unstable
from project.planner.step_time import step_time
from project.planner.workload import Workload

MODEL = ModelConfig()
BATCH, SEQ_LEN = 8, 256
SIXTEEN = load_cluster("h100_2x8")


def of(layout: ParallelLayout) -> Workload:
    return Workload(MODEL, BATCH, SEQ_LEN, ours("bf16-mixed", layout.dp_mode))


@pytest.fixture(scope="module")
def found():
    return search(of, SIXTEEN)


def every(gpus: int):
    for degrees in space.degrees(MODEL, gpus, BATCH, SEQ_LEN):
        for number in space.microbatches(degrees, BATCH):
            for recompute in space.RECOMPUTATIONS:
                some = dataclasses.replace(degrees, microbatches=number, recompute=recompute)
                yield from space.pipelines(some, MODEL)


def test_all_that_it_tries_is_legal_and_nothing_is_tried_twice():
    tried = list(every(16))
    assert len(tried) == len(set(tried))
    assert {layout.schedule for layout in tried} == set(SCHEDULES)
    assert {layout.world_size for layout in tried} == {16}
    for layout in random.Random(0).sample(tried, 300):
        assert layout_faults(layout, MODEL, BATCH, SEQ_LEN) == [], layout


def test_all_degrees_that_are_legal_are_tried():
    def shape(layout):
        return layout.pp, layout.dp, layout.tp, layout.ep, layout.etp

    gpipe = ParallelLayout(schedule="GPipe")  # which any number of microbatches fills
    tried = {shape(layout) for layout in space.degrees(MODEL, 16, BATCH, SEQ_LEN)}
    assert tried == {shape(layout) for layout in legal_layouts(MODEL, 16, BATCH, SEQ_LEN, gpipe)}


def test_all_pipelines_that_are_legal_are_tried_but_for_those_that_run_the_same():
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


def test_no_candidate_is_faster_than_the_best(found):
    times = sorted(step_time(of(layout), layout, SIXTEEN).total for layout in every(16))
    fastest = min(step_time(of(one.layout), one.layout, SIXTEEN).total for one in found.best)
    assert fastest == pytest.approx(times[0])
    assert found.tried < len(times)
    assert [one.seconds for one in found.best] == sorted(one.seconds for one in found.best)


def test_what_does_not_fit_is_left_out_and_the_nearest_is_told():
    small = dataclasses.replace(SIXTEEN, memory_bytes=SIXTEEN.reserved_bytes + 0.9e9)
    found, room = search(of, small), capacity(small, 16)
    assert 0 < max(one.memory for one in found.best) <= room
    assert found.left_out > 0
    tiny = dataclasses.replace(SIXTEEN, memory_bytes=SIXTEEN.reserved_bytes + 0.1e9)
    nothing = search(of, tiny)
    assert nothing.best == []
    assert nothing.nearest is not None
    assert nothing.nearest.memory > capacity(tiny, 16)


def test_ranks_by_memory_when_asked():
    found = search(of, SIXTEEN, objective="memory")
    assert [one.memory for one in found.best] == sorted(one.memory for one in found.best)


def test_the_front_has_what_nothing_beats_in_both(found):
    kept = found.fronts
    assert kept[0].seconds == min(one.seconds for one in found.best)
    for one in found.best:
        assert any(other.seconds <= one.seconds and other.memory <= one.memory for other in kept)
    for one, two in pairwise(kept):
        assert one.seconds < two.seconds
        assert one.memory > two.memory
    assert front([(1, 2), (2, 1), (2, 2), (1, 2)], lambda p: p[0], lambda p: p[1]) == [(1, 2), (2, 1)]


def test_fewer_gpus_are_tried_down_to_one():
    """The reference document's model is bound by launches: half of its sixteen GPUs do nearly as well."""
    results = fewer(of, SIXTEEN)
    assert [gpus for gpus, _ in results] == [8, 4, 2, 1]
    sixteen = search(of, SIXTEEN).best[0].seconds
    assert results[0][1].best[0].seconds < 1.3 * sixteen


def test_a_ranking_that_turns_over_is_called_unstable(found):
    """Cheap launches make more tensor parallelism worth its messages."""
    stated = turns(found.best[:300], of, SIXTEEN)
    assert {(turn.quantity, turn.end) for turn in stated} == {
        (quantity, end) for quantity in ("latency", "bandwidth", "launch cost") for end in ("low", "high")
    }
    assert all(turn.loses >= 0 for turn in stated)
    certain = dataclasses.replace(
        SIXTEEN, launch_s=dataclasses.replace(SIXTEEN.launch_s, low=SIXTEEN.launch_s.value, high=SIXTEEN.launch_s.value)
    )
    assert not [turn for turn in unstable(turns(found.best[:300], of, certain)) if turn.quantity == "launch cost"]


def test_a_turn_is_found_where_two_layouts_trade_latency_for_bandwidth():
    few = Candidate(ParallelLayout(pp=4, microbatches=4, schedule="1F1B"), 1.0, 0.0)
    wide = Candidate(ParallelLayout(tp=4), 1.01, 0.0)
    slow = dataclasses.replace(
        SIXTEEN,
        launch_s=dataclasses.replace(SIXTEEN.launch_s, value=1e-9, low=1e-9, high=1e-9),
        intra=dataclasses.replace(
            SIXTEEN.intra, latency_s=dataclasses.replace(SIXTEEN.intra.latency_s, value=1e-3, low=1e-7, high=1e-2)
        ),
    )
    lost = {(turn.quantity, turn.end): turn for turn in unstable(turns([few, wide], of, slow))}
    assert lost["latency", "low"].winner == wide.layout
    assert ("latency", "high") not in lost


def test_the_closed_form_is_near_the_simulation(found):
    for one in found.best[:20]:
        assert one.simulated
        closed = step_time(of(one.layout), one.layout, SIXTEEN).total
        assert one.seconds == pytest.approx(closed, rel=0.3)


def test_each_result_is_a_line_that_train_py_accepts(found, tmp_path):
    configs = Path(__file__).parents[2] / "configs"
    for one in random.Random(1).sample(found.best, 6):
        line = [
            *overrides(one.layout).split(),
            "trainer.accelerator=cpu",
            "data=synthetic",
            f"hydra.run.dir={tmp_path}",
        ]
        command_line.check(line, configs, "train", {})  # exits where anything is wrong


def test_a_fraction_of_the_candidates_is_timed():
    """A part of a model like DeepSeek-V3; `benchmarks/planner_search.py` measures all of it on 16,384 GPUs."""
    model = dataclasses.replace(DEEPSEEK, num_layers=12, num_dense_layers=1)
    cluster = dataclasses.replace(load_cluster("h100_8x"), nodes=8)
    found = search(lambda layout: Workload(model, 64, 4096, ours("bf16-true", layout.dp_mode)), cluster)
    assert {one.layout.world_size for one in found.best} == {64}
    every = sum(
        3 * len(list(space.pipelines(dataclasses.replace(degrees, microbatches=number), model)))
        for degrees in space.degrees(model, 64, 64, 4096)
        for number in space.microbatches(degrees, 64)
    )
    assert 0 < 5 * found.tried < every
