"""Two hosts, as two network namespaces with a name and an address each; in each the recipe's torchrun; one dies.

    make two-hosts                  # as root; Linux

Seen, of sixteen ranks in two times eight, for each way to lose a host:

- when all processes of one host are killed, or its cable is pulled, the other ends by itself, with another status than
  0, and names the host, or its ranks,
- the same commands in the same folder then go on from the newest whole checkpoint to the end,
- and the losses are bit for bit those of sixteen ranks that one process forked, whom nobody disturbed.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.harness.command import ROOT, TRAIN, environment, losses

ADDRESSES = {"twohosts-a": "10.77.0.1", "twohosts-b": "10.77.0.2"}
RECIPE = ROOT / "docs" / "recipes.md"
STEPS = 8
SMALL = [
    *("model=tiny", "data=synthetic", "data.seq_len=32", "data.batch_size=8", "parallel.microbatches=4", "logger=csv"),
    *("trainer.accelerator=cpu", "trainer.limit_val_batches=1", "callbacks.checkpoint.every_n_train_steps=1"),
    *("callbacks.layout_table=null", "watchdog.timeout_s=90", f"trainer.max_steps={STEPS}"),
]
UP_WITHIN_S = 600.0
ENDS_WITHIN_S = 300.0


def recipe(folder: Path) -> list[str]:
    """The command of `docs/recipes.md` for two nodes."""
    (line,) = [line for line in RECIPE.read_text().splitlines() if line.startswith("torchrun --nnodes 2 ")]
    words = line.replace("HOST", next(iter(ADDRESSES))).replace("FOLDER", str(folder)).split()
    return [str(Path(sys.executable).with_name(words[0])), *words[1:], *SMALL]


@contextmanager
def hosts() -> Iterator[None]:
    """The two namespaces, connected by a cable."""
    with ExitStack() as undo:
        for name in ADDRESSES:
            ip("netns", "add", name)
            undo.callback(ip, "netns", "del", name)
            names = Path("/etc/netns", name, "hosts")  # `ip netns exec` lays it over /etc/hosts
            names.parent.mkdir(parents=True)
            undo.callback(names.parent.rmdir)
            names.write_text("".join(f"{address} {known}\n" for known, address in ADDRESSES.items()))
            undo.callback(names.unlink)
        a, b = ADDRESSES
        ip("link", "add", "cable", "netns", a, "type", "veth", "peer", "name", "cable", "netns", b)
        for name, address in ADDRESSES.items():
            ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            for device in ("lo", "cable"):
                ip("-n", name, "link", "set", device, "up")
        yield


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def on(host: str, command: Sequence[str], log: Path) -> subprocess.Popen:
    """Starts a command on a host, which has its own name, too."""
    named = ["ip", "netns", "exec", host, "unshare", "--uts", "sh", "-c", f'hostname {host} && exec "$@"', "sh"]
    with log.open("wb") as output:
        return subprocess.Popen([*named, *command], stdout=output, stderr=output, cwd=ROOT, env=environment())


def kill_all(host: str) -> None:
    """Ends every process of a host at once, as a loss of power does."""
    pids = subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True, check=True).stdout.split()
    for pid in pids:
        os.kill(int(pid), signal.SIGKILL)


def pull_cable(host: str) -> None:
    """Leaves the host alive and unheard of, as a switch that fails does."""
    ip("-n", host, "link", "set", "cable", "down")


def plug_in_cable(host: str) -> None:
    ip("-n", host, "link", "set", "cable", "up")


def names_of(host: str) -> tuple[str, ...]:
    """What a message may call the host: its name, its address, or the first of its ranks."""
    return host, ADDRESSES[host], f"rank {8 * list(ADDRESSES).index(host)} failed"


def steps_saved(folder: Path) -> int:
    return len(list((folder / "checkpoints").glob("step=*.ckpt")))


def started(folder: Path, logs: Path, attempt: str) -> dict[str, subprocess.Popen]:
    return {host: on(host, recipe(folder), logs / f"{attempt}-{host}.log") for host in ADDRESSES}


def wait_for_a_step(folder: Path, running: dict[str, subprocess.Popen], logs: Path) -> None:
    deadline = time.monotonic() + UP_WITHIN_S
    while steps_saved(folder) < 2:
        over = [host for host, process in running.items() if process.poll() is not None]
        assert not over, f"{over} ended: {said(logs)}"
        assert time.monotonic() < deadline, f"no step: {said(logs)}"
        time.sleep(0.1)


def said(logs: Path) -> str:
    return "\n".join(log.read_text()[-3000:] for log in logs.glob("*.log"))


def main() -> None:
    if os.geteuid() != 0:
        raise SystemExit("two-hosts needs root, to make network namespaces")
    with tempfile.TemporaryDirectory() as scratch, hosts():
        alone, logs = (Path(scratch) / name for name in ("alone", "logs"))
        logs.mkdir()
        # The undisturbed run is one of forked ranks, on this machine as it is.
        forked = [*TRAIN, "+experiment=tp4_ep4_pp4", *SMALL, f"hydra.run.dir={alone}"]
        subprocess.run(forked, check=True, env=environment(), capture_output=True)
        print(f"forked: {len(losses(alone))} steps", flush=True)

        for how, lose in (("killed", kill_all), ("cut off", pull_cable)):
            lose_and_go_on(Path(scratch) / how.replace(" ", "_"), logs, how, lose)
            assert losses(Path(scratch) / how.replace(" ", "_")) == losses(alone), "the resumed run has other losses"
            print("started again: to the end, bit for bit the forked run's losses", flush=True)


def lose_and_go_on(folder: Path, logs: Path, how: str, lose: Callable[[str], None]) -> None:
    living, dead = ADDRESSES
    running = started(folder, logs, how)
    wait_for_a_step(folder, running, logs)
    lose(dead)
    lost = time.monotonic()
    status = running[living].wait(ENDS_WITHIN_S)
    kill_all(dead)
    running[dead].wait()
    heard = (logs / f"{how}-{living}.log").read_text()
    assert status != 0
    named = [line.strip() for line in heard.splitlines() if any(name in line for name in names_of(dead))]
    assert named, f"{dead} is not named:\n{heard[-5000:]}"
    after = (
        f"after {len(losses(folder))} steps: {living} ended with status {status} after {time.monotonic() - lost:.1f} s"
    )
    print(f"{dead} {how} {after}, and said: {named[0][:300]}", flush=True)
    plug_in_cable(dead)
    for host, process in started(folder, logs, f"{how}, again").items():
        assert process.wait(UP_WITHIN_S) == 0, f"{host}: {said(logs)}"


if __name__ == "__main__":
    main()
