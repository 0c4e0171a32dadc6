"""Output that can be written no more ends nothing."""

import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

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


CLOSED = """
import os, sys
from project.command_line.check import stand_somewhere
stand_somewhere()
from project.commands.lost_output import output_may_be_lost
with output_may_be_lost(), open(sys.argv[1], "w") as file:
    assert file.fileno() > 2
    print("shown")
    print("shown", file=sys.stderr)
    os.write(1, b"shown by a library")
    assert sys.stdin.read() == ""
    file.write("done")
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


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_a_stream_that_is_closed_from_the_start_ends_nothing_and_no_file_takes_its_place(
    closed: str, tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(CLOSED)
    command = [
        "sh",
        "-c",
        f'"$0" "$1" "$2" {closed}',
        sys.executable,
        str(tmp_path / "script.py"),
        str(tmp_path / "end"),
    ]
    ended = subprocess.run(command, timeout=60, env=environment(), check=False, stdin=subprocess.DEVNULL)
    assert ended.returncode == 0
    assert (tmp_path / "end").read_text() == "done"


def test_output_that_is_read_is_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "end")]
    done = subprocess.run(
        command, input="\n", capture_output=True, text=True, timeout=60, env=environment(), check=True
    )
    assert done.stdout == "first\n" + "".join(f"{number}\n" for number in range(3000))
    assert done.stderr == "".join(f"{number}\n" for number in range(3000))
