"""Writing a run's checkpoints, each rank its share, while training goes on.

A save copies this rank's share and hands it to a thread. Each rank's thread writes its files and then a receipt into
the hidden folder; rank 0's waits for all receipts, writes the manifest and gives the folder its name. Threads agree by
files alone: no process group is used by two at once. What is to happen once the checkpoint is whole (the link to the
last one, the removal of an older one) waits for that.

The format: `project.state.checkpoint`.
"""

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
from filelock import FileLock, Timeout
from torch import Tensor

from project.state.checkpoint.agreement import all_done, any_rank, each_for_itself, ended, nothing
from project.state.checkpoint.manifest import META, CheckpointError, Hashed, rank_file, tensor_file
from project.state.checkpoint.partial import LOCK, PartialFolder, remove_leftovers
from project.state.checkpoint.snapshot import Kinds, Snapshot
from project.state.checkpoint.tensor_file import Chunk
from project.state.checkpoint.values import dumps

POLL_S = 0.02
OWN_FOLDER = "give each run a folder of its own (hydra.run.dir, or dirpath of ModelCheckpoint)"


class Write:
    """One checkpoint, as one rank writes it. `texts` are its files of JSON; `others` says how many ranks' receipts to
    wait for, on rank 0, else 0."""

    def __init__(
        self,
        partial: PartialFolder,
        rank: int,
        others: int,
        chunks: Mapping[str, list[Chunk]],
        tensors: Mapping[str, Tensor],
        texts: Mapping[str, bytes],
    ) -> None:
        self.partial, self.rank, self.others = partial, rank, others
        self.chunks, self.tensors, self.texts = chunks, tensors, texts
        self.error: CheckpointError | None = None
        self.written, self.abandoned = threading.Event(), threading.Event()
        self.whole, self.lock = False, threading.Lock()
        self.afterwards: list[Callable[[], None]] = []
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        self.thread = threading.Thread(target=self.run, name=f"write {self.partial.final.name}", daemon=True)
        self.thread.start()

    def run(self) -> None:
        try:
            self.write()
            self.written.set()
            if self.rank == 0 and self.receipts():
                self.seal()
        except OSError as error:
            self.error = told(error, self.partial.path)
        except Exception as error:
            self.error = CheckpointError(self.partial.path, f"{type(error).__name__}: {error}", "nothing was replaced")
        finally:
            self.written.set()
            self.tensors = {}

    def write(self) -> None:
        self.partial.create()
        for kind, chunks in self.chunks.items():
            self.partial.write_tensors(tensor_file(kind, self.rank), chunks, lambda chunk: self.tensors[chunk.name])
        for name, text in self.texts.items():
            self.partial.write(name, text)
        receipt = self.partial.path / receipt_name(self.rank)
        hidden = receipt.with_suffix(".tmp")
        hidden.write_text(json.dumps(self.partial.files))
        os.replace(hidden, receipt)

    def receipts(self) -> bool:
        """Returns whether all ranks' receipts have come."""
        waited_for = set(range(self.others))
        while waited_for and not self.abandoned.is_set():
            for rank in list(waited_for):
                receipt = self.partial.path / receipt_name(rank)
                if receipt.exists():
                    self.partial.files |= {
                        name: Hashed(*entry) for name, entry in json.loads(receipt.read_text()).items()
                    }
                    receipt.unlink()
                    waited_for.remove(rank)
            if waited_for:
                time.sleep(POLL_S)
        return not waited_for

    def seal(self) -> None:
        self.partial.seal(self.partial.files)
        with self.lock:
            self.whole = True
            for action in self.afterwards:
                action()

    def then(self, action: Callable[[], None]) -> None:
        """Runs `action` on rank 0 once the checkpoint is whole; never if it does not become so."""
        with self.lock:
            if self.whole:
                action()
            else:
                self.afterwards.append(action)

    def join(self) -> None:
        if self.thread is not None:
            self.thread.join()


class CheckpointWriter:
    """One rank's writer. All methods but `failed` and `then` are collective."""

    def __init__(self, asynchronous: bool = True) -> None:
        self.asynchronous = asynchronous
        self.snapshots: dict[tuple[str, ...], Snapshot] = {}
        self.underway: Write | None = None
        self.saved = 0
        self.token = ""
        self.claims: dict[Path, FileLock] = {}

    def save(self, final: Path, kinds: Kinds, rank_state: Any, meta: Any, *, at_once: bool = False) -> None:
        """Returns when this rank's share is copied; `at_once`, or unless asynchronous, when the checkpoint is whole.

        Raises:
            CheckpointError: on all ranks, if any could not write this checkpoint or the last.
        """
        self.drain()
        rank, background = dist.get_rank(), self.asynchronous and not at_once
        self.claim(final.parent)
        snapshot = self.snapshot(kinds)
        texts = {rank_file(rank): dumps(rank_state)} | ({META: dumps(meta)} if rank == 0 else {})
        tensors = snapshot.copy(kinds) if background else snapshot.tensors(kinds)
        self.saved += 1
        folder = PartialFolder(final, f"{self.token}-{self.saved}")
        others = dist.get_world_size() if rank == 0 else 0
        self.underway = Write(folder, rank, others, snapshot.chunks, tensors, texts)
        self.underway.start()
        if not background:
            self.drain()

    def snapshot(self, kinds: Kinds) -> Snapshot:
        key = tuple(kinds)
        known = self.snapshots.get(key)
        if any(any_rank(known is None or not known.fits(kinds))):
            known = self.snapshots[key] = Snapshot(kinds)
        assert known is not None
        return known

    @property
    def failed(self) -> bool:
        """Says whether this rank knows of a failure that the others may not know of yet."""
        return self.underway is not None and self.underway.error is not None

    def drain(self) -> None:
        """Waits until the checkpoint underway is whole.

        Raises:
            CheckpointError: on all ranks, if any could not write its part.
        """
        write, self.underway = self.underway, None
        if write is None:
            return
        saving = f"writing {write.partial.final.name}"
        try:
            all_done(write.written.wait, saving, lambda: write.error)
        except CheckpointError:
            write.abandoned.set()
            write.join()
            if write.rank == 0:
                write.partial.discard()
            raise
        assert write.thread is not None
        all_done(ended(write.thread), saving, lambda: write.error)

    def then(self, action: Callable[[], None]) -> None:
        """Runs `action` on rank 0: when the checkpoint underway is whole, or now if there is none."""
        if dist.get_rank() == 0:
            if self.underway is None:
                action()
            else:
                self.underway.then(action)

    def claim(self, folder: Path) -> None:
        """Claims the folder for this run as long as it lives, and removes what dead runs left half-written there.

        Raises:
            CheckpointError: on all ranks, where another run writes.
        """
        if folder in self.claims:
            return
        lock = FileLock(folder / LOCK, thread_local=False)  # it is taken in another thread
        each_for_itself(partial(take, folder, lock) if dist.get_rank() == 0 else nothing, f"tidying {folder}")
        self.claims[folder] = lock
        token = [f"{os.getpid():x}{time.time_ns():x}"]
        dist.broadcast_object_list(token)
        self.token = token[0]

    def release(self) -> None:
        for lock in self.claims.values():
            lock.release()
        self.claims.clear()


def take(folder: Path, lock: FileLock) -> None:
    """Takes the folder's lock, and removes what dead runs left half-written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=1)  # another may be looking whether there is anything to tidy
        remove_leftovers(folder)
    except Timeout:
        raise CheckpointError(folder, "another run writes its checkpoints here", OWN_FOLDER) from None
    except OSError as failure:
        raise told(failure, folder) from None


def receipt_name(rank: int) -> str:
    return f"receipt-{rank:05d}"


def told(error: OSError, path: Path) -> CheckpointError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "free some space" if full else "make it writable, or name another folder"
    return CheckpointError(
        error.filename or path, error.strerror or str(error), f"{remedy}; older checkpoints are whole"
    )
