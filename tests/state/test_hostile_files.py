"""Each loader either returns what it has checked or raises one error that names the file, whatever the file holds and
whatever stands in its place. None hangs, runs code, or ends in another exception."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from project.data.token_file import TokenFile
from project.data.tokenizer import tokenizer_faults
from project.planner.document.claims import claim_faults
from project.planner.machine.cluster_file import load_cluster
from project.report.run_page import write_run_page
from project.report.sweep_page import write_sweep_page
from project.run_folder import mark_failed, read_summary
from project.state.checkpoint.form import check_state
from project.state.checkpoint.manifest import CheckpointError
from project.state.checkpoint.reader import Checkpoint
from project.state.weights.source import open_weights
from project.state.weights.weights import WeightsError
from project.sweep.jobs import jobs, write_sweep
from project.sweep.resume import is_done
from tests.harness.checkpoint_files import reseal, write_checkpoint
from tests.harness.hostile import CONTENTS, PLACES
from tests.harness.sweep_folders import finished_job

Put = Callable[[Path], None]
Loader = Callable[[Path, Put], None]


def checkpoint(folder: Path, put: Put, name: str, *, resealed: bool = False) -> None:
    path = write_checkpoint(folder / "step=3.ckpt")
    (path / name).unlink()
    put(path / name)
    if resealed and (path / name).is_file() and not (path / name).is_symlink():
        reseal(path)
    with pytest.raises(CheckpointError, match=name):
        check_state(Checkpoint(path))


def manifest(folder: Path, put: Put) -> None:
    checkpoint(folder, put, "manifest.json")


def meta(folder: Path, put: Put) -> None:
    checkpoint(folder, put, "meta.json", resealed=True)


def rank(folder: Path, put: Put) -> None:
    checkpoint(folder, put, "rank-00001.json", resealed=True)


def config(folder: Path, put: Put) -> None:
    put(folder / "config.json")
    with pytest.raises(WeightsError, match=r"config\.json|is no checkpoint"):
        open_weights(folder)


def index(folder: Path, put: Put) -> None:
    from project.spec.model import ModelConfig
    from project.state.weights.conversion import write_json
    from project.state.weights.families import to_config_json

    write_json(folder / "config.json", to_config_json(ModelConfig(), "float32", None))
    put(folder / "model.safetensors.index.json")
    with pytest.raises(WeightsError):
        open_weights(folder)


def tensors(folder: Path, put: Put) -> None:
    from project.spec.model import ModelConfig
    from project.state.weights.conversion import write_json
    from project.state.weights.families import to_config_json

    write_json(folder / "config.json", to_config_json(ModelConfig(), "float32", None))
    put(folder / "model.safetensors")
    with pytest.raises(WeightsError):
        open_weights(folder)


def tokenizer(folder: Path, put: Put) -> None:
    put(folder / "tokenizer.json")
    assert tokenizer_faults(str(folder / "tokenizer.json"), 10**6)


def token_file(folder: Path, put: Put) -> None:
    put(folder / "header.json")
    with pytest.raises((ValueError, OSError), match=r"header\.json"):
        TokenFile(folder)


def claims(folder: Path, put: Put) -> None:
    put(folder / "claims.yaml")
    assert claim_faults("document", folder / "claims.yaml", ["step_time_s"])


def cluster(folder: Path, put: Put) -> None:
    put(folder / "mine.yaml")
    with pytest.raises(ValueError, match=r"mine|cluster"):
        load_cluster("mine", folder)


def run_page(name: str) -> Loader:
    def load(folder: Path, put: Put) -> None:
        run = folder / "run"
        finished_job(run)
        if name == "summary.json":
            (run / name).unlink()
        put(run / name)
        write_page(write_run_page, run, name)

    return load


def sweep_page(folder: Path, put: Put) -> None:
    put(folder / "sweep.json")
    write_page(write_sweep_page, folder, "sweep.json")


def write_page(write: Callable[[Path], Path], folder: Path, name: str) -> None:
    """Writes the page, or is refused by the name of the file; a page has no control characters."""
    from project.spec.untrusted import Unreadable

    try:
        page = write(folder)
    except Unreadable as error:
        assert error.path == folder / name  # noqa: PT017 - either is right
    else:
        assert "\x1b" not in page.read_text()


def sweep_of_jobs(name: str) -> Loader:
    def load(folder: Path, put: Put) -> None:
        finished_job(folder / "0", "a=1")
        finished_job(folder / "1", "a=2")
        (folder / "1" / name).unlink(missing_ok=True)
        put(folder / "1" / name)
        found = jobs(folder)
        assert found[0].name == "0"
        write_sweep(folder, found)
        is_done({"a": 1}, folder / "1")
        if name == "summary.json" and not (folder / "1" / name).is_dir():
            mark_failed(folder / "1", "over")
            assert (read_summary(folder / "1") or {})["status"] == "failed"

    return load


LOADERS: dict[str, Loader] = {
    "manifest": manifest,
    "meta": meta,
    "rank": rank,
    "config": config,
    "index": index,
    "tensors": tensors,
    "tokenizer": tokenizer,
    "token file": token_file,
    "claims": claims,
    "cluster": cluster,
    "sweep.json": sweep_page,
    **{name: run_page(name) for name in ("summary.json", "metrics.csv", "trace.json", "plan.json", "config.yaml")},
    **{f"job's {name}": sweep_of_jobs(name) for name in ("summary.json", ".hydra/overrides.yaml", "config.yaml")},
}


@pytest.mark.filterwarnings("ignore:skipped", "ignore:.*lines that are no rows are left out")
@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("loader", LOADERS)
def test_a_hostile_file_is_refused_by_its_name(loader: str, content: str, tmp_path: Path) -> None:
    LOADERS[loader](tmp_path, lambda path: path.write_bytes(CONTENTS[content]))
    assert not Path("run").exists()


@pytest.mark.filterwarnings("ignore:skipped")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("loader", LOADERS)
def test_what_is_no_file_of_the_folder_is_refused_by_its_name(loader: str, place: str, tmp_path: Path) -> None:
    inner = tmp_path / "folder"
    inner.mkdir()
    LOADERS[loader](inner, PLACES[place])
    shutil.rmtree(tmp_path)
