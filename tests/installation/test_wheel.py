"""The wheel has all that the commands read, and they work from it in any folder, without a checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from project.__main__ import COMMANDS
from project.configs import CONFIGS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-c", BUILD, str(folder)]
    copy = tmp_path_factory.mktemp("source")
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard", *PARTS], cwd=ROOT, check=True, capture_output=True
    )
    for name in filter(None, tracked.stdout.decode().split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).symlink_to(os.readlink(ROOT / name)) if (ROOT / name).is_symlink() else (copy / name).write_bytes(
            (ROOT / name).read_bytes()
        )
    subprocess.run(build, cwd=copy, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


PARTS = ("project", "configs", "pyproject.toml", "README.md", "LICENSE")
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def run(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-P", "-m", "project", *arguments]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


def test_the_wheel_has_every_configuration_and_the_command(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    packed = {name.partition("packaged_configs/")[2] for name in archive.namelist() if "packaged_configs/" in name}
    assert packed == {str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*.yaml")}
    points = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert "moe-parallel = project.__main__:main" in archive.read(points).decode()


def test_an_installed_plan_and_run_work_from_any_folder(installed: Path, tmp_path: Path) -> None:
    planned = run(installed, tmp_path, "plan", "+experiment=tp4_ep4_pp4", "hydra.run.dir=planned")
    assert planned.returncode == 0, planned.stderr
    assert (tmp_path / "planned/plan.json").exists()
    quick = ["model=tiny", "data=synthetic", "data.batch_size=8", "data.seq_len=16", "trainer.max_steps=1"]
    trained = run(installed, tmp_path, "train", *quick, "logger=csv", "hydra.run.dir=trained")
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "trained/summary.json").exists()
    assert run(installed, tmp_path, "report", "trained").returncode == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_has_its_help(installed: Path, tmp_path: Path, name: str) -> None:
    shown = run(installed, tmp_path, name, "--help")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout


def test_a_subcommand_that_there_is_not_is_named(installed: Path, tmp_path: Path) -> None:
    refused = run(installed, tmp_path, "trian")
    assert refused.returncode == 2
    assert "trian: there is no such subcommand; legal: " in refused.stderr
    assert "nearest train" in refused.stderr
    assert run(installed, tmp_path).returncode == 2
