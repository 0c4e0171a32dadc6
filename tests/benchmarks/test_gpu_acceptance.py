"""The acceptance run's logic, on a CPU and with small sizes."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.acceptance import correctness, diagnosis, speed
from benchmarks.acceptance.bench import LAYOUTS, TINY, Bench, Failed, told
from benchmarks.acceptance.stage import Row, Stage, Task, block, newest_first, rows
from benchmarks.gpu_acceptance import STAGES, main, run
from project.spec.legality.layouts import layout_faults
from project.spec.model import ModelConfig


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, "cpu", 1, TINY, time.monotonic() + 500)


# -- a stage -----------------------------------------------------------------------------------------------------------


def found(bench: Bench) -> Iterator[tuple[str, str]]:
    yield "a number", "3 ms"


def fails_halfway(bench: Bench) -> Iterator[tuple[str, str]]:
    yield "before", "there"
    raise Failed("it differs")


def breaks(bench: Bench) -> Iterator[tuple[str, str]]:
    raise KeyError("loss")
    yield


def test_a_task_that_fails_leaves_what_it_found_and_the_others_run(bench: Bench) -> None:
    stage = Stage("A", "some", [Task("halfway", 0, fails_halfway), Task("broken", 0, breaks), Task("whole", 0, found)])
    assert list(rows(stage, bench)) == [
        Row("before", "there", "ok"),
        Row("halfway", "it differs", "FAILED"),
        Row("broken", "KeyError: 'loss'", "FAILED"),
        Row("a number", "3 ms", "ok"),
    ]


def test_what_there_is_no_time_or_no_gpu_for_is_left_out_and_told(bench: Bench) -> None:
    stage = Stage("A", "some", [Task("long", 1000, found), Task("wide", 0, found, gpus=2)])
    assert [row.state for row in rows(stage, bench)] == ["left out", "left out"]
    assert [row.result.split()[-1] for row in rows(stage, bench)] == ["1000", "here"]


def test_the_stages_fit_into_ten_minutes(bench: Bench) -> None:
    for stage in STAGES.values():
        assert sum(task.seconds for task in stage.tasks) < 570, stage.name


def test_the_block_is_dated_and_stands_before_the_older_ones(bench: Bench) -> None:
    stage = Stage("B", "speed", [])
    text = block(stage, [Row("ours | all", "3 ms", "ok")], bench, "1 x H100", 12.4)
    assert text.startswith(f"## {time.strftime('%Y-%m-%d', time.gmtime())}: GPU acceptance, stage B: speed\n")
    assert "1 x H100; 12 s." in text
    assert "| ours \\| all | 3 ms | ok |" in text
    assert newest_first("# Results\n\nNewest first.\n\n## old\n\nx\n", text) == (
        f"# Results\n\nNewest first.\n\n{text}\n## old\n\nx\n"
    )
    assert newest_first("# Results\n", text) == f"# Results\n\n{text}"


@pytest.mark.parametrize(("find", "status"), [(found, 0), (fails_halfway, 1)])
def test_the_status_tells_of_a_failure_and_the_block_is_recorded(bench: Bench, find: Any, status: int) -> None:
    results = bench.folder / "RESULTS.md"
    results.write_text("# Results\n\n## 2020-01-01: old\n")
    assert run(Stage("C", "some", [Task("task", 0, find)]), bench, results) == status
    text = results.read_text()
    assert text.index("GPU acceptance, stage C") < text.index("2020-01-01")
    assert (bench.folder / "stage_C.md").read_text() in text


@pytest.mark.parametrize("asked", ["A --accelerator cpu --gpus 0", "A --accelerator cpu --gpus 17", "D", "A --size x"])
def test_what_cannot_be_run_is_refused(asked: str) -> None:
    with pytest.raises(SystemExit) as refused:
        main(asked.split())
    assert refused.value.code == 2


def test_a_program_that_fails_or_is_out_of_time_is_told(bench: Bench) -> None:
    with pytest.raises(Failed, match=r"^status 3: ValueError: no$"):
        bench.command("-c", "import sys; print('ValueError: no'); print('bye'); sys.exit(3)")
    assert bench.command("-c", "import sys; sys.exit(5)", statuses=(0, 5)) == ""
    bench.deadline = time.monotonic() + 1
    with pytest.raises(Failed, match="time was over"):
        bench.command("-c", "import time; time.sleep(60)")
    assert told("") == "nothing said"


# -- layouts -----------------------------------------------------------------------------------------------------------


def test_the_layouts_are_legal_and_the_largest_that_fits_is_taken(bench: Bench) -> None:
    model = ModelConfig(num_layers=4)
    for layout in (*LAYOUTS, *correctness.of_two()):
        assert layout_faults(layout, model, 8, 256) == [], layout
    taken = {gpus: Bench(bench.folder, "cpu", gpus, TINY).layout.world_size for gpus in (1, 2, 3, 7, 8, 16, 64)}
    assert taken == {1: 1, 2: 2, 3: 2, 7: 4, 8: 8, 16: 16, 64: 16}
    assert {layout.world_size for layout in correctness.of_two()} == {2}
    assert {"ZBVZeroBubble", "DualPipeV", "VMin", "GPipe"} <= {layout.schedule for layout in correctness.of_two()}


# -- correctness -------------------------------------------------------------------------------------------------------


def test_a_loss_that_does_not_fall_fails() -> None:
    assert correctness.falls([3.0, 2.0]) == "loss 3.0000 to 2.0000 in 2 steps"
    for losses in ([], [2.0, 2.0], [2.0, 3.0], [2.0, float("nan")], [float("inf"), 1.0]):
        with pytest.raises(Failed):
            correctness.falls(losses)


def test_a_resumed_run_that_goes_on_otherwise_fails() -> None:
    assert correctness.goes_on([2.0, 1.0], [2.0, 1.001]) == "losses differ by at most 1.0e-03"
    for resumed in ([2.0], [2.0, 1.1], [2.0, float("nan")]):
        with pytest.raises(Failed):
            correctness.goes_on([2.0, 1.0], resumed)


def test_the_document_s_model_is_trained_and_resumed(bench: Bench) -> None:
    lines = dict(correctness.documented(bench))
    assert lines["resumed after 2 steps"] == "losses differ by at most 0.0e+00"
    assert float(lines["its validation loss"]) < 5


def test_a_stopped_rank_is_named(bench: Bench) -> None:
    ((_, said),) = correctness.watchdog(bench)
    assert "rank 1" in said
    assert "did not arrive" in said


# -- speed -------------------------------------------------------------------------------------------------------------


def test_the_first_steps_are_left_out(bench: Bench) -> None:
    told = speed.figures([9.0, 0.1, 0.1, 0.1], bench)
    assert told == f"100.0 ms a step (100.0 to 100.0), {TINY.tokens / 0.1:,.0f} tokens/s"
    with pytest.raises(Failed):
        speed.figures([9.0], bench)


@pytest.mark.parametrize("which", ["bare", "mixtral"])
def test_another_trainer_takes_its_steps(bench: Bench, which: str) -> None:
    ((what, said),) = speed.another(bench, which, False)
    assert what == f"{which}, eager"
    assert "ms a step" in said


def test_our_step_is_timed_and_compared_with_its_plan(bench: Bench) -> None:
    ((what, said),) = speed.ours(bench, 2)
    assert what == "ours, one rank, 2 microbatches"
    assert "tokens/s" in said
    compared = dict(speed.planned(bench))
    assert any("step" in line for line in compared)


# -- diagnosis ---------------------------------------------------------------------------------------------------------


def events(*kernels: tuple[str, float, float]) -> list[dict[str, Any]]:
    step = {"ph": "X", "cat": "user_annotation", "name": "ProfilerStep#2", "ts": 0.0, "dur": 1000.0}
    return [step, *({"ph": "X", "cat": "kernel", "name": name, "ts": ts, "dur": dur} for name, ts, dur in kernels)]


def test_kernels_that_overlap_keep_the_device_busy_once() -> None:
    assert diagnosis.covered([(0, 4), (2, 6), (8, 9), (8.5, 8.7)]) == 7
    traced = events(("gemm<a>(x)", 0, 400), ("gemm<b>", 200, 300), ("add", 900, 50))
    assert diagnosis.seen(traced) == "3 kernels, device busy 55% of 1.0 ms"
    assert diagnosis.launches(traced) == [("gemm", 2), ("add", 1)]


def test_a_profiled_step_s_trace_is_read(bench: Bench) -> None:
    ((_, said),) = diagnosis.profiled(bench)
    assert said.startswith("no kernel; ")
    assert int(said.split()[2]) > 100


def test_a_run_whose_waits_are_watched_tells_them(bench: Bench) -> None:
    assert list(diagnosis.waits(bench)) == [("host waits a step", "0")]


def test_what_a_checkpoint_costs_is_told(bench: Bench) -> None:
    ((what, said),) = diagnosis.stall(bench)
    assert what == "a checkpoint every 2 steps"
    assert "ratio" in said


def test_a_stage_without_time_tells_what_it_left_out(tmp_path: Path) -> None:
    assert main(["C", "--accelerator", "cpu", "--size", "tiny", "--folder", str(tmp_path), "--limit-s", "25"]) == 0
    assert (tmp_path / "stage_C.md").read_text().count("| left out |") == len(diagnosis.DIAGNOSIS.tasks)
