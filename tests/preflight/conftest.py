from collections.abc import Callable
from pathlib import Path

import pytest

from project import command_line

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture
def complaint(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """What a command prints on stderr before it ends with status 2, on one line."""

    def run(*overrides: str, environ: dict[str, str] | None = None) -> str:
        argv = [*overrides, f"hydra.run.dir={tmp_path}"] if not _names_folder(overrides) else list(overrides)
        with pytest.raises(SystemExit) as ended:
            command_line.check(argv, CONFIGS, "train", environ or {})
        assert ended.value.code == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert all(len(line) <= 80 for line in captured.err.splitlines() if " " in line.strip())
        return " ".join(captured.err.split())

    return run


@pytest.fixture
def accepted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """What a command prints that is let through: warnings or nothing."""

    def run(*overrides: str, environ: dict[str, str] | None = None) -> str:
        command_line.check([*overrides, f"hydra.run.dir={tmp_path}"], CONFIGS, "train", environ or {})
        return capsys.readouterr().err

    return run


def _names_folder(overrides: tuple[str, ...]) -> bool:
    return any(override.startswith(("hydra.run", "-m")) for override in overrides)
