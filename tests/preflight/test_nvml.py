"""The questions to NVML, put to a library that answers in its place."""

import ctypes
from collections.abc import Callable
from typing import Any

import pytest

from project.preflight.gpus import Card, Driver, Silence
from project.preflight.nvml import ask_driver

CARDS = (Card(0, "GPU-1a", "NVIDIA H100"), Card(1, "GPU-2b", "NVIDIA A100", slices=2, capability=(8, 0)))
NOT_SUPPORTED, NOT_FOUND, MISMATCH, LOST = 3, 6, 18, 15


class Library:
    """Answers as <nvml.h> says. `failing` maps a function's name to the status that it returns."""

    def __init__(self, failing: dict[str, int] | None = None) -> None:
        self.failing = failing or {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        answer: Callable[..., int] = getattr(type(self), f"answer_{name}")

        def call(*arguments: Any) -> Any:
            if name in self.failing:
                return self.failing[name]
            given = [argument.value if hasattr(argument, "value") else argument for argument in arguments]
            for at, argument in enumerate(arguments):
                if type(argument).__name__ == "CArgObject" or isinstance(argument, ctypes.Array):
                    given[at] = getattr(argument, "_obj", argument)
            return answer(*given)

        return call

    def answer_nvmlInit_v2() -> int:
        return 0

    def answer_nvmlSystemGetDriverVersion(version: Any, room: int) -> int:
        version.value = b"550.54.15"
        return 0

    def answer_nvmlErrorString(status: int) -> bytes:
        return {MISMATCH: b"Driver/library version mismatch", LOST: b"GPU is lost"}[status]

    def answer_nvmlSystemGetCudaDriverVersion_v2(version: Any) -> int:
        version.value = 12040
        return 0

    def answer_nvmlDeviceGetCount_v2(count: Any) -> int:
        count.value = len(CARDS)
        return 0

    def answer_nvmlDeviceGetHandleByIndex_v2(number: int, handle: Any) -> int:
        handle.value = number + 1
        return 0

    def answer_nvmlDeviceGetName(handle: int, name: Any, room: int) -> int:
        name.value = CARDS[handle - 1].name.encode()
        return 0

    def answer_nvmlDeviceGetUUID(handle: int, uuid: Any, room: int) -> int:
        uuid.value = CARDS[handle - 1].uuid.encode()
        return 0

    def answer_nvmlDeviceGetCudaComputeCapability(handle: int, major: Any, minor: Any) -> int:
        major.value, minor.value = CARDS[handle - 1].capability
        return 0

    def answer_nvmlDeviceGetMigMode(handle: int, on: Any, later: Any) -> int:
        if CARDS[handle - 1].slices is None:
            return NOT_SUPPORTED
        on.value = later.value = 1
        return 0

    def answer_nvmlDeviceGetMaxMigDeviceCount(handle: int, most: Any) -> int:
        most.value = 7
        return 0

    def answer_nvmlDeviceGetMigDeviceHandleByIndex(handle: int, at: int, slice_of: Any) -> int:
        return 0 if at < (CARDS[handle - 1].slices or 0) else NOT_FOUND


def test_nvml_names_the_cards_and_the_newest_cuda_of_the_driver() -> None:
    assert ask_driver(lambda name: Library()) == Driver("550.54.15", "12.4", CARDS)


@pytest.mark.parametrize(
    ("failing", "said"),
    [
        ({"nvmlInit_v2": MISMATCH}, "Driver/library version mismatch (18); `nvidia-smi` has to work first"),
        ({"nvmlDeviceGetHandleByIndex_v2": LOST}, "GPU is lost (15)"),  # is not passed over
    ],
)
def test_a_driver_that_does_not_answer_says_why(failing: dict[str, int], said: str) -> None:
    found = ask_driver(lambda name: Library(failing))
    assert isinstance(found, Silence)
    assert said in found.reason


def test_a_library_without_a_function_does_not_answer() -> None:
    assert isinstance(ask_driver(lambda name: object()), Silence)


def test_nvml_that_is_missing_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("project.preflight.nvml.LIBRARY", "libnvidia-ml.so.none")
    found = ask_driver()
    assert isinstance(found, Silence)
    assert found.reason.startswith("libnvidia-ml.so.none (NVML), which comes with it, is missing; in a container")
