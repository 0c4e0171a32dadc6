"""A checkpoint that is not trusted runs no code, reads no other file, and takes no more memory than its size
explains."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from project.state.checkpoint.manifest import MANIFEST, CheckpointError
from project.state.checkpoint.partial import remove_checkpoint
from project.state.checkpoint.reader import Checkpoint
from project.state.checkpoint.tensor_file import SHARDING
from tests.harness.checkpoint_files import WHOLE, header_of, reseal, with_header, write_checkpoint

FIRST = "weights-00000.safetensors"
FILES = ("meta.json", "rank-00000.json", FIRST, "optimizer-00001.safetensors")


def open_and_read_everything(path: Path) -> None:
    checkpoint = Checkpoint(path)
    checkpoint.verify()
    assert checkpoint.meta["global_step"] == 3
    for rank in (0, 1):
        checkpoint.of_rank(rank)
    for name in (*checkpoint.weights, *checkpoint.optimizer):
        checkpoint.read(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "step=3.ckpt")


class Malice:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("resealed", [False, True], ids=["as it is", "with a manifest that vouches for it"])
@pytest.mark.parametrize("name", FILES)
def test_a_pickle_in_place_of_a_checkpoint_s_file_is_refused(
    folder: Path, name: str, resealed: bool, tmp_path: Path
) -> None:
    (folder / name).write_bytes(pickle.dumps(Malice(tmp_path / "run")))
    if resealed:
        reseal(folder)
    with pytest.raises(CheckpointError, match=name):
        open_and_read_everything(folder)
    assert not (tmp_path / "run").exists()


def test_a_pickle_in_place_of_a_checkpoint_s_manifest_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / MANIFEST).write_bytes(pickle.dumps(Malice(tmp_path / "run")))
    with pytest.raises(CheckpointError, match="no manifest"):
        open_and_read_everything(folder)
    assert not (tmp_path / "run").exists()


def test_pickles_beside_a_checkpoint_s_files_are_not_opened(folder: Path, tmp_path: Path) -> None:
    for name in (".metadata", "meta.pt", "pytorch_model.bin", "__0_0.distcp"):
        (folder / name).write_bytes(pickle.dumps(Malice(tmp_path / "run")))
    open_and_read_everything(folder)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "/etc/passwd",
        "weights-00000.safetensors/../../secret",
        "meta.json\n",
        "weights-\u0660\u0660000.safetensors",
    ],
)
def test_a_manifest_names_no_file_outside_its_folder(folder: Path, name: str) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = manifest["files"][FIRST]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="which no checkpoint has"):
        Checkpoint(folder)


def test_links_and_pipes_in_a_checkpoint_are_refused(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes((folder / FIRST).read_bytes())
    (folder / FIRST).unlink()
    (folder / FIRST).symlink_to(secret)
    with pytest.raises(CheckpointError, match="no regular file"):
        Checkpoint(folder)
    (folder / FIRST).unlink()
    os.mkfifo(folder / FIRST)
    with pytest.raises(CheckpointError, match="no regular file"):
        Checkpoint(folder)


def set_shape(header: dict) -> None:
    header["layers.0.wq.weight"]["shape"] = [2**40, 2**40]


def set_offsets(offsets: list) -> Callable[[dict], None]:
    def change(header: dict) -> None:
        sharding = json.loads(header["__metadata__"][SHARDING])
        sharding["layers.0.wq.weight"] = {"saved_offsets": offsets}
        header["__metadata__"][SHARDING] = json.dumps(sharding)

    return change


def no_sharding(header: dict) -> None:
    del header["__metadata__"][SHARDING]


def nested_sharding(header: dict) -> None:
    header["__metadata__"][SHARDING] = "[" * 100_000


@pytest.mark.parametrize(
    "change",
    [
        *(set_shape, no_sharding, nested_sharding),
        *map(set_offsets, ([2**61, 0], [-2, 0], [1, 0], [2**80, 0], [0], ["0", 0], [0.0, 0], [[0], 0])),
    ],
)
def test_a_tensor_that_its_chunks_do_not_make_up_is_refused(folder: Path, change: Callable[[dict], None]) -> None:
    header, data = header_of(folder / FIRST)
    change(header)
    with_header(folder / FIRST, header, data)
    reseal(folder)
    with pytest.raises(CheckpointError):
        open_and_read_everything(folder)


def test_a_tensor_file_s_header_longer_than_the_file_is_refused(folder: Path) -> None:
    (folder / FIRST).write_bytes((2**62).to_bytes(8, "little") + b"{}" * 100)
    reseal(folder)
    with pytest.raises(CheckpointError, match="no file of tensors"):
        open_and_read_everything(folder)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"global_step": 3, "x": {"!": "tensor", "dtype": "F32", "shape": [1099511627776], "data": ""}}',
        '{"global_step": 3, "x": {"!": "tensor", "dtype": "F32", "shape": [-1], "data": "????"}}',
        '{"global_step": 3, "x": {"!": "array", "dtype": "O", "shape": [1], "data": ""}}',
        '{"global_step": 3, "x": {"!": "array", "dtype": "(1,f8", "shape": [1], "data": ""}}',
        '{"global_step": 3, "x": {"!": "os.system", "value": "true"}}',
        '{"global_step": 3, "x": {"!": ["unhashable"]}}',
        '{"global_step": 3, "x": NaN}',
        '["global_step"]',
        "",
    ],
)
@pytest.mark.parametrize("name", ["meta.json", "rank-00001.json"])
def test_json_that_no_checkpoint_has_is_refused(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    reseal(folder)
    with pytest.raises(CheckpointError, match=name):
        open_and_read_everything(folder)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[]",
        '{"format": 1}',
        '{"format": 1, "files": {"meta.json": {"bytes": 1e999, "xxh3": ""}}}',
        "\xff",
    ],
)
def test_a_malformed_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_bytes(text.encode("latin1"))
    with pytest.raises(CheckpointError, match="no manifest"):
        Checkpoint(folder)


def test_nothing_but_checkpoints_is_ever_removed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    for path in (tmp_path / "precious", folder / ".." / "step=3.ckpt", tmp_path / "absent"):
        remove_checkpoint(path)
    assert folder.exists()
    assert (tmp_path / "precious").exists()
    remove_checkpoint(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_sound_checkpoint_is_read(folder: Path) -> None:
    open_and_read_everything(folder)
    assert all(Checkpoint(folder).read(name).equal(tensor) for name, tensor in WHOLE.items())
