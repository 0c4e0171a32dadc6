"""Forked ranks: their results come back, and one rank's death is the end of all of them."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from project.strategy.ranks import flight_record_in, why_unreachable
from tests.harness.trainer import cpu_trainer

SCRIPT = """
import os, signal, sys, threading, time
import torch
from types import SimpleNamespace
from project.strategy.launcher import ForkLauncher, RankFailed
from project.strategy.stop import StopRequest

environment = SimpleNamespace(main_port=0)
strategy = SimpleNamespace(cluster_environment=environment, num_processes=4, root_device=torch.device('cpu'))
launcher = ForkLauncher(strategy, StopRequest())

def work(kind):
    rank = int(os.environ["LOCAL_RANK"])
    os.write(1, f"pid {os.getpid()}{chr(10)}".encode())  # whole, whoever else writes
    if kind == "answer":
        return torch.ones(2**20).tolist() if rank == 0 else None
    if rank == 2:
        if kind == "raise":
            raise ZeroDivisionError("the cause")
        if kind == "long":
            raise ValueError("x" * 100 + chr(10) + "y" * 2**20)
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "exit":
            os._exit(7)
        if kind == "crash":
            os.abort()
        if kind == "late":
            time.sleep(60)
        if kind == "torn":  # killed in the middle of its report: the pipe has a length and no more
            report = next(one for one in pipes if not one.closed and one.writable)
            os.write(report.fileno(), (2**20).to_bytes(4, "big") + b"x")
            os.kill(os.getpid(), signal.SIGKILL)
    if kind in ("late", "abort"):
        os.abort()
    time.sleep(0.2)
    if rank == 1 and kind == "raise":
        raise ConnectionError("the echo")
    time.sleep(60)

pipes = []
context = torch.multiprocessing.get_context("fork")
plain_pipe, plain_start = type(context).Pipe, context.Process.start

def pipe(self, duplex=True):
    ends = plain_pipe(self, duplex)
    pipes.extend(ends)
    return ends

def start_after_a_signal(self):
    if launcher.ranks.index(self) == int(sys.argv[3]):
        os.kill(os.getpid(), getattr(signal, sys.argv[2]))
    plain_start(self)

type(context).Pipe = pipe
if len(sys.argv) > 2:
    context.Process.start = start_after_a_signal
for _ in range(int(sys.argv[4]) if len(sys.argv) > 2 else 0):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
start = time.monotonic()
try:
    answer = launcher.launch(work, sys.argv[1])
    print("answer", len(answer))
except RankFailed as error:
    print("failed", error.rank, str(error), "ZeroDivisionError" in error.details)
print("seconds", time.monotonic() - start)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    return path


def run(script: Path, *arguments: str) -> dict[str, list[str]]:
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, timeout=60, check=False)
    lines: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        word, _, rest = line.partition(" ")
        lines.setdefault(word, []).append(rest)
    assert "seconds" in lines, done.stderr
    return lines


def alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


def test_rank_0_s_result_comes_back_from_the_launcher_however_large(script: Path) -> None:
    assert run(script, "answer")["answer"] == [str(2**20)]


@pytest.mark.alone
@pytest.mark.parametrize(
    ("kind", "failure"),
    [
        ("raise", "2 rank 2 failed: ZeroDivisionError: the cause True"),
        ("kill", "2 rank 2 failed: killed by SIGKILL False"),
        ("crash", "2 rank 2 failed: killed by SIGABRT False"),
        ("exit", "2 rank 2 failed: exited with status 7 False"),
        ("torn", "2 rank 2 failed: killed by SIGKILL False"),
    ],
)
def test_one_rank_s_death_ends_all_within_five_seconds_and_is_named(script: Path, kind: str, failure: str) -> None:
    lines = run(script, kind)
    assert lines["failed"] == [failure]
    assert float(lines["seconds"][0]) < 5
    assert not any(alive(pid) for pid in lines["pid"])


def test_a_signal_ends_ranks_that_are_not_fitting_at_once(script: Path) -> None:
    with subprocess.Popen([sys.executable, script, "wait"], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        begun = [parent.stdout.readline().split()[0] for _ in range(4)]
        parent.send_signal(signal.SIGTERM)
        rest, _ = parent.communicate(timeout=30)
    assert begun == ["pid"] * 4
    assert "killed by SIGTERM" in rest


@pytest.mark.parametrize("number", ["SIGTERM", "SIGUSR1", "SIGHUP"])
@pytest.mark.parametrize(("before", "threads"), [(2, 0), (0, 1)], ids=["some forked", "taken by another thread"])
def test_a_signal_while_ranks_are_forked_reaches_all_of_them(
    script: Path, number: str, before: int, threads: int
) -> None:
    lines = run(script, "wait", number, str(before), str(threads))
    (failed,) = lines["failed"]  # of any rank: all were sent it
    assert re.fullmatch(rf"(\d) rank \1 failed: killed by {number} False", failed)
    assert float(lines["seconds"][0]) < 30


def test_a_rank_whose_parent_began_cuda_unknowingly_says_so(script: Path) -> None:
    broken = "strategy.root_device = torch.device('cuda', 0); torch.cuda._is_in_bad_fork = lambda: True"
    script.write_text(script.read_text().replace("pipes = []", f"pipes = []; {broken}"))
    lines = run(script, "wait")
    assert "CUDA was started before the ranks were forked" in lines["failed"][0]
    assert "nvidia-smi" in lines["failed"][0]
    assert "pid" not in lines, "nothing began"


ON_A_GPU = "strategy.root_device = torch.device('cuda', 0)"
BEGAN = "[launcher.last_actions.note(rank, f'forward of {rank}') for rank in range(4)]"


@pytest.mark.alone
@pytest.mark.parametrize(
    ("kind", "failed"),
    [
        (
            "late",
            r"2 rank 2 failed: did not arrive where the others wait .*began last: rank 2: forward of 2; the oth.*",
        ),
        ("abort", r"0 rank 0 failed: was aborted .SIGABRT., .*rank 0: forward of 0; .*rank 3: forward of 3; .*"),
    ],
)
def test_ranks_that_nccl_s_watchdog_aborts_are_not_blamed_for_waiting(script: Path, kind: str, failed: str) -> None:
    script.write_text(script.read_text().replace("pipes = []", f"pipes = []; {ON_A_GPU}; {BEGAN}"))
    assert re.fullmatch(failed, run(script, kind)["failed"][0])


def test_nccl_s_record_lies_in_the_run_s_folder_unless_the_environment_says_where(tmp_path: Path) -> None:
    environ: dict[str, str] = {}
    for folder in ("first", "second"):  # of a sweep
        with flight_record_in(tmp_path / folder, environ):
            assert environ == {"TORCH_FR_DUMP_TEMP_FILE": f"{tmp_path / folder}/nccl_trace_rank_"}
    own = {"TORCH_NCCL_DEBUG_INFO_TEMP_FILE": "/mine/"}
    with flight_record_in(tmp_path, own):
        assert own == {"TORCH_NCCL_DEBUG_INFO_TEMP_FILE": "/mine/"}


def test_a_rank_s_long_error_is_reported_as_well_as_a_short_one(script: Path) -> None:
    assert run(script, "long")["failed"] == ["2 rank 2 failed: ValueError: " + "x" * 100 + " False"]


def test_launching_after_a_fit_says_that_the_weights_went_with_the_ranks() -> None:
    from project.spec.layout import ParallelLayout
    from project.strategy.hybrid import HybridParallelStrategy

    strategy = HybridParallelStrategy(ParallelLayout())
    trainer = cpu_trainer(devices=1, strategy=strategy)
    strategy.launcher.has_fit = True
    with pytest.raises(RuntimeError, match="the weights went with its forked ranks"):
        strategy.launcher.launch(print, trainer=trainer)


@pytest.mark.alone
def test_no_rank_outlives_its_parent(script: Path) -> None:
    parent = subprocess.Popen([sys.executable, script, "wait"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [parent.stdout.readline().split()[1] for _ in range(4)]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def test_an_address_that_never_answers_is_known_at_once() -> None:
    assert why_unreachable("nowhere.invalid", 1) == "the address is not known: Name or service not known"
    assert why_unreachable("127.0.0.1", 1) is None  # refused now; the server may come up
    assert why_unreachable("0.0.0.0", 1) is None
