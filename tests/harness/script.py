"""A script in `project/train.py`'s place: it checks its command line as that does, and its jobs train nothing."""

import subprocess
import sys
import textwrap
from pathlib import Path

from project.configs import CONFIGS
from tests.harness.command import environment, run


def script_of(job: str) -> str:
    """The source of a script whose jobs, once checked, execute `job` with the composed `cfg`."""
    return f"""
import os, sys, hydra
from hydra.core.hydra_config import HydraConfig
from project.command_line.check import check, check_job
from project.commands.train.command import TRAIN

@hydra.main(version_base="1.3", config_path={str(CONFIGS)!r}, config_name="train")
def run(cfg):
{textwrap.indent(textwrap.dedent(job), "    ")}

if __name__ == "__main__":
    check(sys.argv[1:], TRAIN, os.environ)
    run()
"""


def run_script(folder: Path, source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the script in `folder`, without colours; its exit status is for the caller to look at."""
    script = folder / "script.py"
    script.write_text(source)
    command = [sys.executable, str(script)]
    return run(*arguments, command=command, cwd=folder, env=environment(NO_COLOR="1"), status=None, timeout=60)


def sweep_script(folder: Path, source: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Runs the script as a sweep of tiny jobs into `folder / "sweep"`."""
    common = ["model=tiny", "data=synthetic", "trainer.accelerator=cpu", f"hydra.sweep.dir={folder / 'sweep'}"]
    return run_script(folder, source, *overrides, *common)
