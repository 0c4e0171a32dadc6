"""`project/train.py` on GPUs that are not there, in the environment of `stubs`:

    python -m tests.gpu_check.train REPORTS [--undo MENDING] OVERRIDES...

Each rank leaves in the folder REPORTS what it saw, as JSON, and its error: the launcher tells one rank's alone.
`--undo` takes something back (`undone`).
"""

import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from project import train
from project.engine import host
from project.run_folder import write_atomically
from project.state.checkpoint import agreement
from project.strategy.launcher import ForkLauncher
from tests.gpu_check import collectives
from tests.gpu_check.device import PretendedDevice
from tests.gpu_check.seen import Seen
from tests.gpu_check.undone import UNDO


def main(reports: Path, *overrides: str) -> None:
    if overrides and overrides[0] == "--undo":
        UNDO[overrides[1]]()
        overrides = overrides[2:]
    seen = Seen()
    collectives.pretend()
    host._DRIVERS = ("/dev/null",)  # a driver's files, of which there are none
    agreement.PATIENCE_S = 600.0  # a slow disk would add waits
    report(seen, reports)
    sys.argv[1:] = [*overrides, "trainer.accelerator=cuda"]
    with PretendedDevice(seen), seen.calls():
        train.main()


def report(seen: Seen, reports: Path) -> None:
    rank_main = ForkLauncher._rank_main

    def reporting(self: ForkLauncher, rank: int, parent: int, trainer: Any, function: Callable, *args: Any) -> None:
        def telling(*given: Any, **named: Any) -> Any:
            try:
                return function(*given, **named)
            except BaseException:
                write_atomically(reports / f"{rank}.error", traceback.format_exc())
                raise

        try:
            rank_main(self, rank, parent, trainer, telling, *args)
        finally:
            rows = [[*event, count] for event, count in sorted(seen.events.items())]
            write_atomically(reports / f"{rank}.json", json.dumps(rows))  # the others end a rank that is last to fail

    ForkLauncher._rank_main = reporting  # type: ignore[method-assign]


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
