"""What cannot be written is one line with the file and the space left; what was there before stays whole."""

import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from project.data.corpus import CorpusError
from project.data.prepare import prepare
from project.data.text import TextCorpus
from project.observe.metrics_file import MetricsFile, read_rows
from project.preflight.machine import folder_faults, shared_memory_faults
from project.run_folder import hold, mark_failed, read_summary, write_atomically, write_summary
from project.spec.disk import NotWritten
from project.spec.fault import Fault


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file grows beyond `size` bytes meanwhile, as on a disk that is full: Python ignores the signal."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_cannot_be_written_is_as_it_was_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_atomically(path, "before")
    with files_of_at_most(10), pytest.raises(NotWritten, match=r"plan\.json: cannot be written: File too large \("):
        write_atomically(path, "after" * 100)
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]
    with pytest.raises(NotWritten, match="No such file or directory"):
        write_atomically(tmp_path / "nowhere" / "plan.json", "")


def test_a_row_that_has_no_room_leaves_the_rows_before_it_whole(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.csv")
    for step in range(3):
        file.write(step, {"loss": 1 / (step + 1)})
    before = (tmp_path / "metrics.csv").read_bytes()
    with files_of_at_most(len(before) + 3), pytest.raises(NotWritten, match=r"metrics\.csv: cannot be written"):
        file.write(3, {"loss": 0.123456789})
    assert (tmp_path / "metrics.csv").read_bytes() == before
    file.write(3, {"loss": 0.5})
    assert [row["step"] for row in read_rows(tmp_path / "metrics.csv")] == ["0", "1", "2", "3"]


def test_a_summary_says_failed_where_there_is_no_room_for_a_second_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_summary(tmp_path, {"status": "interrupted", "steps": 3})

    def full(path: Path, text: str) -> None:
        raise NotWritten(path, "No space left on device")

    monkeypatch.setattr("project.run_folder.write_atomically", full)
    mark_failed(tmp_path, "no space")
    summary = read_summary(tmp_path)
    assert summary is not None
    assert (summary["status"], summary["error"], summary["steps"]) == ("failed", "no space", 3)
    with pytest.raises(NotWritten):  # longer than what the file has by now
        mark_failed(tmp_path, "x" * 10_000)
    assert json.loads((tmp_path / "summary.json").read_text())["error"] == "no space"


def test_a_cache_without_room_is_one_fault_that_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 2000)
    corpus = TextCorpus([str(tmp_path / "a.txt")])
    with (
        files_of_at_most(4096),
        pytest.raises(CorpusError, match=r"data.cache_dir=.*cannot be written: File too large"),
    ):
        prepare(corpus, cache_dir=tmp_path / "cache", vocab_size=300, show_progress=False)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


@pytest.mark.parametrize("place", ["cache", "lock"])
def test_what_stands_in_the_place_of_a_cache_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "a.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 2000)
    corpus, cache = TextCorpus([str(tmp_path / "a.txt")]), tmp_path / "cache"
    if place == "cache":
        cache.write_text("")
    else:
        prepared = prepare(corpus, cache_dir=cache, vocab_size=300, show_progress=False)
        shutil.rmtree(prepared.folder)
        lock = prepared.folder.with_name(f"{prepared.folder.name}.lock")
        lock.unlink(missing_ok=True)
        lock.mkdir()
    with pytest.raises(CorpusError, match=r"data.cache_dir="):
        prepare(corpus, cache_dir=cache, vocab_size=300, show_progress=False)


def test_a_file_in_the_place_of_a_prepared_corpus_makes_way(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 2000)
    corpus = TextCorpus([str(tmp_path / "a.txt")])
    folder = prepare(corpus, cache_dir=tmp_path / "cache", vocab_size=300, show_progress=False).folder
    shutil.rmtree(folder)
    folder.write_text("")
    with pytest.warns(UserWarning, match="damaged and made again"):
        assert prepare(corpus, cache_dir=tmp_path / "cache", vocab_size=300, show_progress=False).folder == folder


def test_a_run_folder_s_lock_that_is_a_folder_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    fault = hold(tmp_path)
    assert isinstance(fault, Fault)
    assert "cannot be locked: Is a directory" in fault.message


def test_a_run_folder_without_room_is_a_fault(tmp_path: Path) -> None:
    with files_of_at_most(100):
        (fault,) = folder_faults("hydra.run.dir", tmp_path / "run")
    assert "cannot be written" in fault.message
    assert "free there" in fault.message
    assert list(tmp_path.iterdir()) == []


def test_loaders_whose_batches_have_no_room_in_shared_memory_are_a_fault(tmp_path: Path) -> None:
    data = {"num_workers": 2, "batch_size": 2**20, "seq_len": 2**20}
    (fault,) = shared_memory_faults(data, 4, tmp_path)
    assert fault.key == "data.num_workers"
    assert not list(shared_memory_faults(data | {"num_workers": 0}, 4, tmp_path))
    assert not list(shared_memory_faults(data | {"batch_size": 1, "seq_len": 8}, 4, tmp_path))
