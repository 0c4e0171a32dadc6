"""trace.json of real runs: its spans fill the recorded step, in the order that was executed."""

import json
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from project.callbacks.first_steps import ActivationPeaks, Communication
from project.callbacks.step_metrics import StepMetrics
from project.callbacks.summary import RunSummary
from project.callbacks.trace import Trace
from project.loggers import csv_only
from project.observe.metrics_file import read_rows
from project.run_folder import read_summary
from project.spec.layout import ParallelLayout
from project.spec.schedules.order import order_of
from tests.harness.case import SMALL, Case
from tests.harness.training import run

LAYOUT = ParallelLayout(pp=2, tp=2, ep=2, microbatches=4)
STEPS, FIRST, LAST = 8, 2, 3


def train(rank: int, world_size: int, case: Case, folder: str, options: dict[str, Any]) -> None:
    callbacks = [Communication(), ActivationPeaks(), StepMetrics(), Trace(folder, FIRST, LAST), RunSummary(folder)]
    run(rank, world_size, case, *callbacks, validate=True, logger=csv_only(folder), **options)


def traced(ranks: Any, folder: Path, case: Case, **options: Any) -> dict[str, Any]:
    ranks.run(case.layout.world_size, train, case, str(folder), {"limit_val_batches": 0} | options)
    return json.loads((folder / "trace.json").read_text())


def spans(trace: dict[str, Any], thread: int = 0) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """The spans by rank and step, in the order of their starts."""
    found = defaultdict(list)
    for event in sorted(trace["traceEvents"], key=lambda event: event.get("ts", 0)):
        if event["ph"] == "X" and event["tid"] == thread and "step" in event["args"]:
            found[event["pid"], event["args"]["step"]].append(event)
    return found


@pytest.fixture(scope="module")
def folder(ranks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("traced")
    traced(ranks, folder, Case(LAYOUT, steps=STEPS))
    return folder


@pytest.fixture(scope="module")
def trace(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "trace.json").read_text())


def test_the_trace_s_spans_of_a_rank_sum_to_the_step_time_and_never_overlap(folder: Path, trace) -> None:
    recorded = {int(row["step"]): float(row["train/step_time_s"]) for row in read_rows(folder / "metrics.csv")}
    found = spans(trace)
    assert found.keys() == {(rank, step) for rank in range(4) for step in (1, 2, 6, 7, 8)}, (
        "the first two, the last three"
    )
    for (rank, step), events in found.items():
        assert sum(event["dur"] for event in events) / 1e6 == pytest.approx(recorded[step], rel=1e-3), (rank, step)
        for one, other in pairwise(events):
            assert other["ts"] - one["ts"] - one["dur"] == pytest.approx(0, abs=0.01), "microseconds"
        assert trace["metadata"]["steps"][str(step)]["seconds"] == pytest.approx(recorded[step], rel=1e-9)


def test_the_trace_s_actions_are_those_of_the_schedule_in_its_order(trace) -> None:
    order = order_of(LAYOUT)
    for (rank, _), events in spans(trace).items():
        actions = [event for event in events if "action" in event["args"]]
        assert [event["name"] for event in actions] == [str(action) for action in order[rank // 2]]
        for event in actions:
            args = event["args"]
            assert event["name"] == f"{args['stage']}{args['action']}{args['microbatch']}"


def test_a_traced_action_begins_after_those_that_it_needs(trace) -> None:
    """A forward of stage 1 begins after that of stage 0, a backward the other way round, on one clock."""
    at = {(e["pid"], step, e["name"]): e for (_, step), events in spans(trace).items() for e in events}
    for step in (1, 2, 6, 7, 8):
        for rank, microbatch in ((rank, microbatch) for rank in (0, 1) for microbatch in range(4)):
            sent, received = at[rank, step, f"0F{microbatch}"], at[rank + 2, step, f"1F{microbatch}"]
            assert sent["ts"] + sent["dur"] < received["ts"]
            sent, received = at[rank + 2, step, f"1B{microbatch}"], at[rank, step, f"0B{microbatch}"]
            assert sent["ts"] + sent["dur"] < received["ts"]


def test_the_trace_has_what_a_step_does_before_and_after_its_schedule(trace) -> None:
    for (rank, _), events in spans(trace).items():
        names = Counter(event["name"] for event in events)
        assert {"data", "gradients", "optimizer", "statistics", "send/receive"} <= names.keys()
        assert names["loss"] == (4 if rank >= 2 else 0)
        kinds = {event["cat"] for event in events}
        assert kinds <= {"forward", "backward", "send/receive", "idle", "gradients", "optimizer", "data", "other"}


def test_the_trace_s_collectives_are_those_that_the_ledger_counted(folder: Path, trace) -> None:
    communication = read_summary(folder)["communication"]  # type: ignore[index]
    for lane in (1, 2, 3):
        for (_, step), events in spans(trace, lane).items():
            assert step <= 2, "the ledger's steps"
            for one, other in pairwise(events):
                assert one["ts"] + one["dur"] <= other["ts"] + 0.01, "one at a time on a thread"
    second = [event for lane in (1, 2, 3) for rank in range(4) for event in spans(trace, lane).get((rank, 2), [])]
    for axis, collectives in communication.items():
        for name, entry in collectives.items():
            sums = [sum(e["args"]["bytes"] for e in of_rank(second, rank, axis, name)) for rank in range(4)]
            assert entry["bytes"] in sums
            assert entry["calls"] in [len(of_rank(second, rank, axis, name)) for rank in range(4)]


def of_rank(events: list, rank: int, axis: str, name: str) -> list:
    return [e for e in events if (e["pid"], e["args"]["axis"], e["name"]) == (rank, axis, name)]


def test_no_traced_collective_is_over_before_the_other_rank_has_begun_it(trace) -> None:
    """A collective lasts until its result is there, not until its call returns, on one clock."""
    for name in ("all_gather", "all_to_all", "reduce_scatter"):
        pairs = [of_rank(spans(trace, 1)[rank, 2], rank, "tp", name) for rank in (0, 1)]
        assert pairs[0], name
        for one, other in zip(*pairs, strict=True):
            assert one["ts"] + one["dur"] >= other["ts"]
            assert other["ts"] + other["dur"] >= one["ts"]


def test_the_trace_names_its_processes(trace) -> None:
    names = {e["pid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "process_name"}
    assert names[3] == "rank 3 (pp 1, dp 0, tp 1)"
    assert trace["metadata"]["layout"]["world_size"] == 4


def test_the_summary_has_the_median_bubble_of_the_traced_steps(folder: Path, trace) -> None:
    bubbles = sorted(trace["metadata"]["steps"][str(step)]["bubble"] for step in (6, 7, 8))
    assert bubbles[0] > 0
    assert bubbles[2] < 1
    assert read_summary(folder)["bubble"] == bubbles[1]  # type: ignore[index]


def test_a_traced_step_holds_all_its_accumulated_batches(ranks, tmp_path: Path) -> None:
    case = Case(ParallelLayout(pp=2, microbatches=2), steps=2, accumulate=3)
    for (rank, _), events in spans(traced(ranks, tmp_path, case)).items():
        names = [event["name"] for event in events if "action" in event["args"]]
        assert names == 3 * [str(action) for action in order_of(case.layout)[rank]]


def test_validation_is_in_no_traced_step(ranks, tmp_path: Path) -> None:
    case = Case(ParallelLayout(pp=2, microbatches=2), steps=4)
    options = {"limit_val_batches": 2, "val_check_interval": 2, "check_val_every_n_epoch": None}
    trace = traced(ranks, tmp_path, case, **options)
    validations = [event for event in trace["traceEvents"] if event["name"] == "validation"]
    assert {event["pid"] for event in validations} == {0, 1}
    assert all(event["args"] == {} for event in validations)
    recorded = {int(row["step"]): float(row["train/step_time_s"]) for row in read_rows(tmp_path / "metrics.csv")}
    for (_, step), events in spans(trace).items():
        assert sum(event["dur"] for event in events) / 1e6 == pytest.approx(recorded[step], rel=1e-3)


def test_a_traced_split_backward_has_both_halves(ranks, tmp_path: Path) -> None:
    layout = ParallelLayout(pp=2, virtual_stages=2, microbatches=4, schedule="ZBVZeroBubble")
    for (rank, _), events in spans(traced(ranks, tmp_path, Case(layout, SMALL, steps=1))).items():
        names = [event["name"] for event in events if "action" in event["args"]]
        assert names == [str(action) for action in order_of(layout)[rank]]
        assert {event["cat"] for event in events} >= {"backward", "weight gradient"}
