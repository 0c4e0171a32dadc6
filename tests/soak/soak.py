"""Kills processes of real runs at random moments, and sees that nothing but time is lost.

    make soak                       # 60 kills; ARGS="--kills 100 --seed 7"

Runs of 16 ranks tokenize their corpus, save after every step and validate after every second. In each a random process,
a rank or the parent of all, is killed with SIGKILL, or the parent is sent SIGTERM, at a random moment or at one of
`MOMENTS`: while the ranks come up, in a validation, while cache, checkpoint or page are written. After each

- every process of the run has ended, ten seconds after SIGKILL and thirty after SIGTERM (with status 0, if it came in
  training),
- every checkpoint that has its own name is whole, each checksum compared, and the link to the last leads to one,

and the next start with `resume=auto` in the same folder goes on from the newest one (or from the beginning, while there
is none), removes what the dead have left, and so on until a run comes to its end. Its losses are then bit for bit those
of the run that nobody disturbed, and nothing is left hidden in its folder, in shared memory, or among temporary files
but for torch's cache, which that run has, too.
"""

import argparse
import os
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from project.state.checkpoint.last import LINK, checkpoint_at, named
from project.state.checkpoint.reader import Checkpoint
from tests.harness.command import TRAIN, environment, losses

WITHIN_S = {signal.SIGKILL: 10.0, signal.SIGTERM: 30.0}
MOMENTS = ("any", "start-up", "cache", "checkpoint", "validation", "page")
RUN = [
    *("+experiment=tp4_ep4_pp4", "model=tiny", "data=text", "data.seq_len=32", "logger=csv"),
    *("trainer.accelerator=cpu", "trainer.limit_val_batches=4", "trainer.val_check_interval=2", "resume=auto"),
    *("callbacks.checkpoint.every_n_train_steps=1", "callbacks.progress=null", "callbacks.layout_table=null"),
]


def start(folder: Path, steps: int, log: Path) -> subprocess.Popen:
    """Starts a run whose temporary files go beside the log."""
    command = [*TRAIN, *RUN, f"trainer.max_steps={steps}"]
    own = environment(TMPDIR=str(log.parent / "temporary"))
    with log.open("ab") as output:
        return subprocess.Popen(
            [
                *command,
                f"hydra.run.dir={folder}",
                f"data.files=[{log.parent / 'corpus.txt'}]",
                f"data.cache_dir={cache_of(folder)}",
            ],
            stdout=output,
            stderr=output,
            env=own,
            start_new_session=True,
        )


def cache_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}_cache")


def reached(moment: str, folder: Path, since: float) -> bool:
    """Whether the run that began `since` has come to the moment, as far as its files say."""

    def fresh(name: str) -> bytes:
        file = folder / name
        return file.read_bytes() if file.exists() and file.stat().st_mtime > since else b""

    match moment:
        case "cache":
            return any(cache_of(folder).glob("*.partial-*"))
        case "checkpoint":
            return bool(partials(folder))
        case "validation":
            lines = len(fresh("metrics.csv").splitlines())
            return lines > 1 and lines % 2 == 1  # the header, and two steps more
        case "page":
            return b'"completed"' in fresh("summary.json")
    return True


def all_ended(process: subprocess.Popen, everybody: list[psutil.Process], within: float) -> bool:
    deadline = time.monotonic() + within
    while process.poll() is None or alive(everybody):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def partials(folder: Path) -> list[str]:
    return [path.name for path in (folder / "checkpoints").glob(".*.partial-*")]


def doing(processes: list[psutil.Process]) -> list[str]:
    """The processes that still run, each with the kernel function in which each of its threads waits."""
    return [
        f"{pid} ({psutil.Process(pid).status()}, child of {psutil.Process(pid).ppid()}): "
        + ", ".join((task / "wchan").read_text() for task in Path(f"/proc/{pid}/task").iterdir())
        for pid in alive(processes)
    ]


def alive(processes: list[psutil.Process]) -> list[int]:
    return [process.pid for process in processes if is_alive(process)]


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill_one(
    process: subprocess.Popen, randomness: random.Random, number: signal.Signals
) -> tuple[str, list[psutil.Process]]:
    """Kills a rank or the parent, or asks the parent to end; returns which, and all processes of the run."""
    parent = psutil.Process(process.pid)
    ranks = parent.children(recursive=True)
    victim = parent if number == signal.SIGTERM else randomness.choice([parent, *ranks])
    everybody = [parent, *ranks]
    victim.send_signal(number)
    return ("parent" if victim is parent else f"child {ranks.index(victim)} of {len(ranks)}"), everybody


def disturbed(
    folder: Path, steps: int, randomness: random.Random, kills: list[str], wanted: int, log: Path, duration: float
) -> None:
    """Starts runs until one comes to its end, and kills them until `wanted` kills are reached."""
    while True:
        process = start(folder, steps, log)
        began, wall = time.monotonic(), time.time()
        moment = MOMENTS[len(kills) % len(MOMENTS)]
        longest = {"any": duration, "start-up": duration / 4}.get(moment, 0.0)
        delay = randomness.uniform(0.0, longest) if len(kills) < wanted else float("inf")
        while process.poll() is None and (time.monotonic() - began < delay or not reached(moment, folder, wall)):
            time.sleep(0.002)
        if longest == 0.0:
            time.sleep(randomness.uniform(0.0, 0.1))  # into it
        if process.poll() is not None:
            assert process.returncode == 0, f"the run ended with {process.returncode}; see {log}"
            return
        number = signal.SIGTERM if randomness.random() < 0.25 else signal.SIGKILL
        who, everybody = kill_one(process, randomness, number)
        at, within = time.monotonic(), WITHIN_S[number]
        assert all_ended(process, everybody, within), f"{doing(everybody)} still run {within} s after {who}: {number}"
        if number == signal.SIGTERM and moment in ("checkpoint", "validation"):
            assert process.returncode == 0, f"the run ended with {process.returncode}; see {log}"
        whole = []
        for path in named(folder / "checkpoints"):
            checkpoint = Checkpoint(path)
            checkpoint.verify()
            whole.append(checkpoint.meta["global_step"])
        link = folder / "checkpoints" / LINK
        assert not link.is_symlink() or checkpoint_at(folder) in named(folder / "checkpoints"), f"{link} leads nowhere"
        kills.append(who)
        print(
            f"{number.name} {len(kills)}: {who} after {at - began:.1f} s, at {moment}; "
            f"all ended after {time.monotonic() - at:.1f} s; whole checkpoints of steps {sorted(whole)}",
            flush=True,
        )


def soak(kills_wanted: int, steps: int, seed: int, place: Path) -> None:
    randomness = random.Random(seed)
    print(f"seed {seed}; {place}", flush=True)
    shared = set(os.listdir("/dev/shm"))
    (place / "temporary").mkdir()
    (place / "corpus.txt").write_text("".join(f"{n} times {n} is {n * n}\n" for n in range(40_000)))
    log = place / "output.log"
    process = start(place / "undisturbed", steps, log)
    began = time.monotonic()
    assert process.wait() == 0, f"see {log}"
    duration = time.monotonic() - began
    print(f"undisturbed: {steps} steps in {duration:.1f} s", flush=True)
    temporary = set(os.listdir(place / "temporary"))  # torch's cache of what it has compiled
    expected = losses(place / "undisturbed")
    assert len(expected) == steps
    kills: list[str] = []
    finished = 0
    while len(kills) < kills_wanted:
        folder = place / f"run{finished}"
        disturbed(folder, steps, randomness, kills, kills_wanted, log, duration)
        assert losses(folder) == expected, f"losses of {folder} are not those of the undisturbed run"
        assert partials(folder) == [], f"left behind in {folder}"
        assert checkpoint_at(folder).name == f"step={steps}.ckpt"
        assert not list(cache_of(folder).glob("*.partial-*")), f"left behind in {cache_of(folder)}"
        finished += 1
        print(f"run {finished} came to its end: {steps} losses bit for bit the undisturbed run's", flush=True)
    left = sorted(set(os.listdir("/dev/shm")) - shared)
    assert not left, f"left in shared memory: {left}"
    left = sorted(set(os.listdir(place / "temporary")) - temporary)
    assert not left, f"left of temporary files: {left}"
    by_parent = kills.count("parent")
    print(f"{len(kills)} kills ({by_parent} of the parent), {finished} runs, none lost; seed {seed}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="soak"))
    soak(arguments.kills, arguments.steps, arguments.seed, place)


if __name__ == "__main__":
    main()
