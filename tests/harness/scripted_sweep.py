"""A sweep of a script of the test's own in `project/train.py`'s place."""

import subprocess
from pathlib import Path

from tests.preflight.test_status import ended


def swept(folder: Path, source: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(source)
    common = ["model=tiny", "data=synthetic", "trainer.accelerator=cpu", f"hydra.sweep.dir={folder / 'sweep'}"]
    return ended(folder, *overrides, *common, script=script)
