"""Where a program made its host wait for the device, and copied between the two: by file and function."""

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from tests.gpu_check.event import Event

ROOT = Path(__file__).resolve().parent.parent.parent
OURS = (f"{ROOT}/project/", f"{ROOT}/tests/gpu_check/undone.py")
AROUND_ALL = ("/launchers/", "strategy/launcher.py")  # on every stack of a rank
BETWEEN = ("_dynamo/", "_compile.py", "_ops.py", "utils/_contextlib.py")  # around every operator, or nearly so
SYNCHRONISED = ((torch.cuda, "synchronize"), (torch.cuda.Stream, "synchronize"), (torch.cuda.Event, "synchronize"))


class Seen:
    def __init__(self) -> None:
        self.events: Counter[Event] = Counter()

    def waited(self, how: str) -> None:
        self.events[Event("wait", place(), how)] += 1

    def copied(self, direction: str, how: str) -> None:
        self.events[Event("copy", place(), f"{direction}, {how}")] += 1

    @contextlib.contextmanager
    def calls(self) -> Iterator[None]:
        """Notes calls that have the host wait and are no operators."""
        with contextlib.ExitStack() as stack:
            for owner, name in SYNCHRONISED:
                stack.enter_context(mock.patch.object(owner, name, self.noted(getattr(owner, name))))
            yield

    def noted(self, call: Callable) -> Callable:
        def noting(*args: Any, **kwargs: Any) -> Any:
            self.waited(call.__qualname__)
            return call(*args, **kwargs)

        return noting


def place() -> str:
    """The innermost function that is running of the project or of Lightning, else of torch's Python."""
    in_torch = "autograd"
    frame = sys._getframe(2)
    while frame is not None:
        file, function = frame.f_code.co_filename, frame.f_code.co_qualname.replace(".<locals>", "")
        library, _, inside = file.partition("site-packages/")[2].partition("/")
        if function.endswith("__torch_dispatch__") or any(part in file for part in AROUND_ALL):
            pass  # a mode that looks on, or what every stack has
        elif file.startswith(OURS):
            return f"{file.removeprefix(f'{ROOT}/')}:{function}"
        elif library == "lightning":
            return f"lightning/{inside}:{function}"
        elif library == "torch" and in_torch == "autograd" and not inside.startswith(BETWEEN):
            in_torch = f"torch/{inside}:{function}"
        frame = frame.f_back
    return in_torch
