"""A stage's recorded actions are those of the schedule, in its order, without overlap."""

from itertools import pairwise

from project.engine.stage import Span
from project.spec.layout import ParallelLayout
from tests.harness.case import Case
from tests.harness.measured import spans_of


def order(spans: list[Span]) -> list[str]:
    return [f"{span.action}{span.microbatch}" for span in spans]


def test_1f1b_alternates_forward_and_backward_after_its_warmup(ranks) -> None:
    first, second = ranks.run(2, spans_of, Case(ParallelLayout(pp=2, microbatches=4)))
    assert order(first) == ["F0", "F1", "B0", "F2", "B1", "F3", "B2", "B3"]
    assert order(second) == ["F0", "B0", "F1", "B1", "F2", "B2", "F3", "B3"]
    assert {span.stage for span in first} == {0}
    for spans in (first, second):
        assert all(earlier.end_ns <= later.start_ns for earlier, later in pairwise(spans))


def test_gpipe_runs_all_forwards_before_any_backward(ranks) -> None:
    wanted = [f"{action}{microbatch}" for action in "FB" for microbatch in range(3)]
    layout = ParallelLayout(pp=2, microbatches=3, schedule="GPipe")
    assert [order(spans) for spans in ranks.run(2, spans_of, Case(layout, batch=6))] == [wanted, wanted]
