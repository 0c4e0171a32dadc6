"""A schedule from a file: what torch writes is read, and what torch could not run is refused with its reason."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from project.spec.layout import ParallelLayout
from project.spec.partition import stage_to_rank
from project.spec.schedules.action import Action, parse_cell
from project.spec.schedules.file import read_schedule
from project.spec.schedules.file_faults import schedule_file_faults
from tests.harness.lowering import build, runtime, simulate

ONE_F_ONE_B = "0F0,0F1,,0B0,0B1\n,1F0,1B0,1F1,1B1\n"
# pp, virtual_stages and microbatches of those that a file can hold, but for 1F1B and GPipe, which torch does not dump.
TORCHS = {
    "Interleaved1F1B": [(2, 2, 4), (4, 3, 8), (1, 2, 3), (4, 2, 2)],
    "LoopedBFS": [(2, 2, 4), (4, 1, 3)],
    "InterleavedZeroBubble": [(2, 2, 4), (4, 3, 8), (1, 2, 3)],
    "ZBVZeroBubble": [(2, 2, 4), (4, 2, 8), (4, 2, 2), (1, 2, 3)],
    "DualPipeV": [(2, 2, 4), (4, 2, 9), (1, 2, 3)],
}
SHAPES = [(schedule, *shape) for schedule, shapes in TORCHS.items() for shape in shapes]

# Each row is a file for two ranks with a stage each and two microbatches, and the reason why it will not do.
BROKEN = {
    "": ["has 0 rows, but parallel.pp=2 ranks, of which each needs one"],
    f"{ONE_F_ONE_B}2F0,2B0\n": ["has 3 rows, but parallel.pp=2 ranks, of which each needs one"],
    f"{ONE_F_ONE_B}\n": ["has 3 rows, but parallel.pp=2 ranks, of which each needs one"],
    "0F0,0X1\n1F0\n": ["row 1, column 2: '0X1' is no action; it is a stage, F, I, W or B, and a microbatch, as in 2F0"],
    "0F0,0SEND_F0\n1F0\n": ["row 1, column 2: '0SEND_F0' is no action; it is"],
    "0F0,(0F1;)OVERLAP_F_B\n1F0\n": ["row 1, column 2: '' is no action; it is"],
    "0F0;0F1;0B0;0B1\n1F0;1F1;1B0;1B1\n": [
        "row 1, column 1: '0F0;0F1;0B0;0B1' is no action; it is",
        "row 2, column 1: '1F0;1",
    ],
    "0F0,0F1,0B0,0B1\n2F0,2F1,2B0,2B1\n": [
        "row 2, column 1: 2F0 is of stage 2, but the last stage (parallel.pp x parallel.virtual_stages) is 1",
        "row 2, column 2: 2F1 is of stage 2",
        "row 2, column 3: 2B0 is of stage 2",
        "and more",
    ],
    "0F0,0F1,0B0,0B1\n1F0,1F2,1B0,1B1\n": [
        "row 2, column 2: 1F2 is of microbatch 2, but the last of parallel.microbatches=2 is 1"
    ],
    "0F0,0F1,1B0,0B0,0B1\n1F0,1F1,1B1\n": [
        "stage 1 is in rows 1, 2, but a stage is on one rank",
        "row 1 has 2 stages (0, 1), but parallel.virtual_stages=1",
    ],
    "0F0,0F1,0B0,0B1\n,\n": ["row 2 has 0 stages (none), but parallel.virtual_stages=1"],
    "0F0,0F1,0B0\n1F0,1B0,1B1\n": ["0B1 is missing", "1F1 is missing"],
    "0F0,0F1,0F1,0B0,0B1\n1F0,1F1,1B0,1B1,1B1\n": ["0F1 is there 2 times", "1B1 is there 2 times"],
    "0F0,0F1,0I0,0B1\n1F0,1F1,1W0,1B1\n": ["0I0 is there without 0W0", "1W0 is there without 1I0"],
    "0F0,0F1,0I0,0W0,0B0,0B1\n1F0,1F1,1B0,1W0,1B1\n": [
        "0I0 is there beside 0B0, of which it is a half",
        "1W0 is there beside 1B0, of which it is a half",
    ],
    "0F0,0B1,0F1,0B0\n1F0,1W0,1I0,1F1,1B1\n": ["row 1: 0B1 is before 0F1", "row 2: 1W0 is before 1I0"],
    "0F1,0F0,0B0,0B1\n1F1,1F0,1B0,1B1\n": ["row 2: 1F1 is before 1F0, but the last stage goes by number"],
    "0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n": [
        "deadlocks: ranks would wait forever, row 1 at 0B0 for 1B0, row 2 at 1F1 for 0F1"
    ],
}


def written(folder: Path, text: str) -> str:
    path = folder / "schedule.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(("schedule", "pp", "virtual_stages", "microbatches"), SHAPES)
def test_a_schedule_that_torch_dumps_is_read_back(
    schedule: str, pp: int, virtual_stages: int, microbatches: int, tmp_path: Path
) -> None:
    path = str(tmp_path / "schedule.csv")
    original = ParallelLayout(pp=pp, schedule=schedule, virtual_stages=virtual_stages, microbatches=microbatches)
    built = build(original)
    built._dump_csv(path, format="compute_only")
    layout = ParallelLayout(pp=pp, schedule=path, virtual_stages=virtual_stages, microbatches=microbatches)
    assert schedule_file_faults(path, layout) == []
    assert read_schedule(path) == [
        [
            Action(leaf.stage_index, leaf.computation_type.value, leaf.microbatch_index)
            for action in actions
            if action is not None
            for leaf in action.sub_actions or (action,)
        ]
        for actions in built.pipeline_order.values()
    ]
    assert stage_to_rank(layout) == stage_to_rank(original)


@pytest.mark.parametrize("text", [ONE_F_ONE_B, "0F1,0F0,0B0,0I1,0W1\n1F0,1B0,(1F1;1B1)OVERLAP_F_B\n"])
def test_torch_can_run_every_schedule_file_that_is_accepted(text: str, tmp_path: Path) -> None:
    layout = ParallelLayout(pp=2, schedule=written(tmp_path, text), microbatches=2)
    assert schedule_file_faults(layout.schedule, layout) == []
    loaded = runtime(layout)
    loaded._load_csv(layout.schedule)
    simulate(loaded, layout.stages)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SHAPES), st.lists(st.tuples(*[st.integers(0, 999)] * 3), max_size=4))
def test_no_shuffled_schedule_is_accepted_that_torch_cannot_run(
    shape: tuple[str, int, int, int], swaps: list[tuple[int, int, int]]
) -> None:
    schedule, pp, virtual_stages, microbatches = shape
    layout = ParallelLayout(pp=pp, schedule=schedule, virtual_stages=virtual_stages, microbatches=microbatches)
    rows = [[str(action or "") for action in actions] for actions in build(layout).pipeline_order.values()]
    for at, first, second in swaps:
        row = rows[at % pp]
        first, second = first % len(row), second % len(row)
        row[first], row[second] = row[second], row[first]
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), "\n".join(map(",".join, rows)))
        if not schedule_file_faults(path, layout):
            loaded = runtime(layout)
            loaded._load_csv(path)
            simulate(loaded, layout.stages)


@pytest.mark.parametrize("text", BROKEN)
def test_each_fault_of_a_schedule_file_is_a_sentence(text: str, tmp_path: Path) -> None:
    layout = ParallelLayout(pp=2, schedule=written(tmp_path, text), microbatches=2)
    found = schedule_file_faults(layout.schedule, layout)
    assert len(found) == len(BROKEN[text])
    for sentence, start in zip(found, BROKEN[text], strict=True):
        assert sentence.startswith(start)


def test_a_schedule_file_may_put_neighbouring_stages_on_one_rank(tmp_path: Path) -> None:
    text = "0F0,1F0,,,1B0,0B0\n,,2F0,3F0,3B0,2B0\n"
    layout = ParallelLayout(pp=2, virtual_stages=2, schedule=written(tmp_path, text))
    assert schedule_file_faults(layout.schedule, layout) == []
    assert stage_to_rank(layout) == [0, 0, 1, 1]


def test_overlapping_actions_of_a_schedule_file_cannot_wait_for_each_other(tmp_path: Path) -> None:
    text = "(0F0;1F0)OVERLAP_F_B,1B0,0B0\n"
    layout = ParallelLayout(virtual_stages=2, schedule=written(tmp_path, text))
    assert schedule_file_faults(layout.schedule, layout) == [
        "deadlocks: ranks would wait forever, row 1 at 1F0 for 0F0"
    ]
    with pytest.raises(AssertionError, match="Malformed compute schedule"):
        runtime(layout)._load_csv(layout.schedule)


def test_a_schedule_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    layout = ParallelLayout()
    nowhere, latin, zeros = (tmp_path / name for name in ("nowhere.csv", "latin.csv", "zeros.csv"))
    latin.write_bytes(b"0F0,\xe9")
    zeros.write_bytes(bytes(200_000))
    assert schedule_file_faults(str(nowhere), layout)[0].startswith("does not exist; give a path, a relative one from ")
    assert schedule_file_faults(str(latin), layout) == ["is not UTF-8 (at byte 4)"]
    assert schedule_file_faults(str(tmp_path), layout) == ["is a folder, no file"]
    assert schedule_file_faults(str(zeros), layout) == ["is no CSV: it has a NUL character"]


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe.csv")
    (device := tmp_path / "device.csv").symlink_to("/dev/zero")
    for path in (pipe, device):
        assert schedule_file_faults(str(path), ParallelLayout()) == ["is a device or a pipe, no file"]


def test_a_cell_of_a_schedule_file_is_an_action_or_several_that_overlap_or_none() -> None:
    assert parse_cell(" 10F3 ") == (Action(10, "F", 3),)
    assert parse_cell("(0F1;3B0)OVERLAP_F_B") == (Action(0, "F", 1), Action(3, "B", 0))
    assert parse_cell(" ") == ()
