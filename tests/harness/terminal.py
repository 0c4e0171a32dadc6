"""A command as a terminal runs it, in a process group of its own, all of which Ctrl-C reaches."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress


@contextmanager
def in_terminal(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Starts the command, and kills its process group when the test ends."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, start_new_session=True, env=environment, preexec_fn=heed_ctrl_c) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def press_ctrl_c(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGINT)


def heed_ctrl_c() -> None:
    """Restores the default handling of SIGINT, which processes in a shell's background ignore, as do their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
