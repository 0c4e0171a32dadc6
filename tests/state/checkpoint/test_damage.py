"""A damaged checkpoint is an error of one line with the file and a remedy; `resume=auto` skips it."""

import errno
import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from project.commands.train.starting_point import checkpoint_of, resume_faults
from project.spec.layout import ParallelLayout
from project.spec.model import ModelConfig
from project.state.checkpoint.manifest import MANIFEST, META, CheckpointError, Hashed, manifest_text
from project.state.checkpoint.newest import furthest_whole, newest_whole, tidy
from project.state.checkpoint.reader import Checkpoint
from tests.harness.case import SMALL, Case
from tests.harness.checkpoint_files import reseal, write_checkpoint
from tests.harness.saving import run

SHARD = "optimizer-00000.safetensors"


def truncated(folder: Path) -> str:
    with (folder / SHARD).open("r+b") as file:
        file.truncate(100)
    return f"{SHARD}: has 100 bytes instead of"


def flipped(folder: Path) -> str:
    data = bytearray((folder / SHARD).read_bytes())
    data[-1] ^= 1
    (folder / SHARD).write_bytes(data)
    return f"{SHARD}: is damaged: its checksum is not the manifest's; resume from another checkpoint"


def missing(folder: Path) -> str:
    (folder / SHARD).unlink()
    return f"{SHARD}: is missing; resume from another checkpoint"


def another_version(folder: Path) -> str:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"format": 2}))
    return f"{MANIFEST}: has format 2, not 1; open it with the version that wrote it"


def no_manifest(folder: Path) -> str:
    (folder / MANIFEST).unlink()
    return f"{MANIFEST}: is missing, so this is no whole checkpoint; resume from another checkpoint"


DAMAGES = (truncated, flipped, missing, another_version, no_manifest)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_one_line_that_names_the_file_and_what_to_do(
    tmp_path: Path, damage: Callable[[Path], str]
) -> None:
    folder = write_checkpoint(tmp_path / "step=3.ckpt")
    said = damage(folder)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(folder).verify()
    assert f"{folder}/{said}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", DAMAGES)
def test_resume_auto_takes_the_newest_whole_checkpoint_and_warns_of_damaged_ones(
    tmp_path: Path, damage: Callable[[Path], str], caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2, 3):
        folder = write_checkpoint(tmp_path / f"step={number}.ckpt")
        os.utime(folder / MANIFEST, (number, number))
    said = damage(folder)
    with caplog.at_level(logging.WARNING):
        found = newest_whole([tmp_path, tmp_path / "absent"], lambda meta: True)
    assert found is not None
    assert found.path.name == "step=2.ckpt"
    assert said in caplog.text


def test_of_other_runs_the_one_that_came_furthest_is_gone_on_with(tmp_path: Path) -> None:
    for number, (step, time) in enumerate([(60, 1), (40, 2), (60, 3), (2, 4)]):
        folder = write_checkpoint(tmp_path / str(number) / f"step={step}.ckpt")
        meta = json.loads((folder / META).read_text())
        (folder / META).write_text(json.dumps(meta | {"global_step": step}))
        reseal(folder)
        os.utime(folder / MANIFEST, (time, time))
    folders = [tmp_path / str(number) for number in range(4)]
    found = furthest_whole(folders, lambda meta: True)
    assert found is not None
    assert found.path == folders[2] / "step=60.ckpt", "the newest of the furthest, not the newest of all"


def test_resume_auto_skips_checkpoints_of_another_experiment(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "step=3.ckpt")
    assert newest_whole([tmp_path], lambda meta: meta["config"] == {"seed": 1}) is None
    assert newest_whole([tmp_path], lambda meta: meta["config"] == {"seed": 0}) is not None


def test_a_flipped_bit_in_a_checkpoint_s_config_is_damage_and_not_another_experiment(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_checkpoint(tmp_path / "step=3.ckpt")
    (folder / META).write_bytes((folder / META).read_bytes().replace(b'"seed":0', b'"seed":1'))
    assert newest_whole([tmp_path], lambda meta: meta["config"] == {"seed": 0}) is None
    assert "meta.json: is damaged" in caplog.text


def of_seed(seed: int) -> DictConfig:
    return OmegaConf.create({"resume": "auto", "experiment_name": "mine", "seed": seed, "model": {}, "callbacks": {}})


@pytest.mark.parametrize("config", ["x", {"seed": 0}, {"experiment_name": "mine", "seed": 1, "model": {}}, None])
def test_resume_auto_without_a_checkpoint_of_its_own_says_that_it_begins_anew(
    tmp_path: Path, config: object, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_checkpoint(tmp_path / "checkpoints" / "step=3.ckpt")
    (folder / META).write_text(json.dumps({"config": config}))
    reseal(folder)
    assert checkpoint_of(of_seed(0), tmp_path) is None
    said = " ".join(capsys.readouterr().err.split())
    assert f"none of the 1 in {tmp_path}/checkpoints is whole and of this run's experiment_name, seed, model" in said


def test_a_checkpoint_file_that_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's error is simulated, because root may read every file."""
    folder = write_checkpoint(tmp_path / "step=3.ckpt")

    def failing(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("project.state.checkpoint.manifest.hash_of", failing)
    with pytest.raises(CheckpointError, match=r"meta\.json: cannot be read \(Input/output error\); resume"):
        Checkpoint(folder).verify()


def test_resume_auto_skips_a_checkpoint_that_is_removed_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [write_checkpoint(tmp_path / f"step={number}.ckpt") for number in (1, 2)]
    monkeypatch.setattr("project.state.checkpoint.newest.named", lambda folder: [*folders, tmp_path / "step=3.ckpt"])
    found = newest_whole([tmp_path], lambda meta: remove(folders[1]) is None)
    assert found is not None
    assert found.path == folders[0]


def remove(folder: Path) -> None:
    """Removes the files of tensors after the manifest was read."""
    for path in folder.glob("*.safetensors"):
        path.unlink()


def test_resuming_from_weights_alone_is_refused(ranks, tmp_path: Path) -> None:
    folder = weights_of(write_checkpoint(tmp_path / "step=3.ckpt"))
    (fault,) = resume_faults(str(folder), ModelConfig())
    assert fault.message == f"has weights alone, no run to go on with; init_from={folder} begins with them"
    assert newest_whole([tmp_path], lambda meta: True) is None
    (said,) = ranks.run(1, refusal, folder)
    assert said == f"{folder}: has weights alone, no run to go on with; begin with them by init_from"


def refusal(rank: int, world_size: int, folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        run(rank, world_size, Case(ParallelLayout(), replace(SMALL, num_layers=1)), folder.parent, folder)
    return str(caught.value)


def weights_of(folder: Path) -> Path:
    """Removes the files of ranks and optimizers, which leaves weights alone."""
    files = json.loads((folder / MANIFEST).read_text())["files"]
    for name in files:
        if name.startswith(("rank", "optimizer")):
            (folder / name).unlink()
    kept = {name: Hashed(**entry) for name, entry in files.items() if (folder / name).exists()}
    (folder / MANIFEST).write_bytes(manifest_text(kept))
    return folder


@pytest.mark.parametrize("damage", [truncated, missing, another_version, no_manifest])
def test_preflight_refuses_a_damaged_checkpoint_before_a_process_starts(
    tmp_path: Path, damage: Callable[[Path], str]
) -> None:
    folder = write_checkpoint(tmp_path / "step=3.ckpt")
    assert list(resume_faults(str(folder), ModelConfig())) == []
    said = damage(folder)
    (fault,) = resume_faults(str(folder), ModelConfig())
    assert said in fault.message


def test_unfinished_checkpoints_of_dead_processes_are_removed_and_those_of_the_living_are_not(tmp_path: Path) -> None:
    from filelock import FileLock

    write_checkpoint(tmp_path / "step=3.ckpt")
    (tmp_path / ".step=4.ckpt.partial-1").mkdir()
    with FileLock(tmp_path / ".lock"):
        tidy(tmp_path)
        assert (tmp_path / ".step=4.ckpt.partial-1").exists()
    tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "step=3.ckpt"]


def test_a_checkpoint_that_was_moved_for_one_that_was_never_finished_gets_its_name_back(tmp_path: Path) -> None:
    """Its writer died between the two renames."""
    folder = write_checkpoint(tmp_path / "step=3.ckpt")
    folder.rename(tmp_path / ".step=3.ckpt.partial-1.replaced")
    tidy(tmp_path)
    Checkpoint(folder).verify()
