"""Output that can be written no more ends nothing."""

import subprocess
import sys
from pathlib import Path
from typing import IO

from tests.harness.command import environment

SCRIPT = """
import sys
from project.commands.lost_output import output_may_be_lost
with output_may_be_lost():
    print("first", flush=True)
    sys.stdin.readline()
    for number in range(3000):
        print(number, flush=number % 7 == 0)
        print(number, file=sys.stderr)
open(sys.argv[1], "w").write("done")
"""


def started(end: Path, output: IO | int) -> subprocess.Popen:
    command = [sys.executable, "-c", SCRIPT, str(end)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, text=True, env=environment()
    )


def test_a_pipe_whose_reader_has_gone_ends_nothing(tmp_path: Path) -> None:
    with started(tmp_path / "end", subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdin is not None
        assert program.stdout.readline() == "first\n"
        program.stdout.close()
        program.stdin.write("\n")
        program.stdin.close()
        assert program.wait(60) == 0
    assert (tmp_path / "end").read_text() == "done"


def test_a_full_disk_under_a_log_ends_nothing(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full, started(tmp_path / "end", full) as program:
        program.communicate("\n", timeout=60)
    assert (program.returncode, (tmp_path / "end").read_text()) == (0, "done")


def test_output_that_is_read_is_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "end")]
    done = subprocess.run(
        command, input="\n", capture_output=True, text=True, timeout=60, env=environment(), check=True
    )
    assert done.stdout == "first\n" + "".join(f"{number}\n" for number in range(3000))
    assert done.stderr == "".join(f"{number}\n" for number in range(3000))
