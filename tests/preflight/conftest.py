from collections.abc import Callable
from pathlib import Path

import pytest

from project.command_line.check import check
from project.commands.train.command import TRAIN
from project.preflight.gpus import Build, Hardware, Silence

NOTHING = Hardware(lambda: Build("2.13.0", None, False), lambda: Silence("there is none"), Path("/nowhere"))
MEMORY = 100e9  # bytes of the machine that tests take to be there


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Returns what a refused command prints on stderr, on one line; its exit status has to be 2."""

    def run(*overrides: str, environ: dict[str, str] | None = None, gpus: int = 0, hardware: Hardware = NOTHING) -> str:
        argv = [*overrides, f"hydra.run.dir={tmp_path}"] if not _names_folder(overrides) else list(overrides)
        with pytest.raises(SystemExit) as ended:
            check(argv, TRAIN, environ or {}, gpus=lambda: gpus, memory=lambda: MEMORY, hardware=hardware)
        assert ended.value.code == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        lines = captured.err.splitlines()
        assert all(len(line) <= 80 or len(line.split()) == 1 for line in lines)  # a path is not broken
        return " ".join(captured.err.split())

    return run


@pytest.fixture
def accepted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Returns what an accepted command prints on stderr: warnings or nothing."""

    def run(*overrides: str, environ: dict[str, str] | None = None, gpus: int = 0, hardware: Hardware = NOTHING) -> str:
        argv = [*overrides, f"hydra.run.dir={tmp_path}"]
        check(argv, TRAIN, environ or {}, gpus=lambda: gpus, memory=lambda: MEMORY, hardware=hardware)
        return capsys.readouterr().err

    return run


def _names_folder(overrides: tuple[str, ...]) -> bool:
    return any(override.startswith(("hydra.run", "-m")) for override in overrides)
