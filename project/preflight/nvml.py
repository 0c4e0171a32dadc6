"""NVIDIA's management library (NVML), by its C interface: it names the cards without touching CUDA, which would
forbid a later fork."""

import ctypes
from collections.abc import Callable
from ctypes import byref, c_char_p, c_int, c_uint, c_void_p, create_string_buffer
from typing import Any

from project.preflight.gpus import Card, Driver, Silence

LIBRARY = "libnvidia-ml.so.1"
_NOT_SUPPORTED, _NOT_FOUND, _INVALID = 3, 6, 2  # <nvml.h>
_LONGEST = 96  # bytes of a name or a UUID


class NoAnswer(RuntimeError):
    """NVML does not say what it is asked."""


def ask_driver(load: Callable[[str], Any] = ctypes.CDLL) -> Driver | Silence:
    """Returns what the driver says of itself and of the machine's cards, or why it says nothing."""
    try:
        library = load(LIBRARY)
    except OSError:
        missing = f"{LIBRARY} (NVML), which comes with it, is missing"
        return Silence(f"{missing}; in a container set NVIDIA_DRIVER_CAPABILITIES=compute,utility")
    try:
        return _driver(_asking(library))
    except (NoAnswer, AttributeError) as reason:  # ctypes' error of a function that the library lacks
        return Silence(str(reason))


def _driver(ask: Callable[..., int]) -> Driver:
    cuda, count, version = c_int(), c_uint(), create_string_buffer(_LONGEST)
    ask("nvmlInit_v2")
    ask("nvmlSystemGetDriverVersion", version, c_uint(_LONGEST))
    ask("nvmlSystemGetCudaDriverVersion_v2", byref(cuda))
    ask("nvmlDeviceGetCount_v2", byref(count))
    cards = tuple(_card(ask, number) for number in range(count.value))
    return Driver(version.value.decode(), f"{cuda.value // 1000}.{cuda.value % 1000 // 10}", cards)


def _asking(library: Any) -> Callable[..., int]:
    def ask(name: str, *arguments: Any, allowed: tuple[int, ...] = ()) -> int:
        status = getattr(library, name)(*arguments)
        if status and status not in allowed:
            library.nvmlErrorString.restype = c_char_p
            said = (library.nvmlErrorString(status) or b"").decode()
            raise NoAnswer(f"NVML says of {name}: {said} ({status}); `nvidia-smi` has to work first")
        return status

    return ask


def _card(ask: Callable[..., int], number: int) -> Card:
    handle, major, minor = c_void_p(), c_int(), c_int()
    name, uuid = create_string_buffer(_LONGEST), create_string_buffer(_LONGEST)
    ask("nvmlDeviceGetHandleByIndex_v2", c_uint(number), byref(handle))
    ask("nvmlDeviceGetName", handle, name, c_uint(_LONGEST))
    ask("nvmlDeviceGetUUID", handle, uuid, c_uint(_LONGEST))
    ask("nvmlDeviceGetCudaComputeCapability", handle, byref(major), byref(minor))
    capability = (major.value, minor.value)
    return Card(number, uuid.value.decode(), name.value.decode(), _slices(ask, handle), capability)


def _slices(ask: Callable[..., int], handle: c_void_p) -> int | None:
    on, later = c_uint(), c_uint()
    ask("nvmlDeviceGetMigMode", handle, byref(on), byref(later), allowed=(_NOT_SUPPORTED,))
    if not on.value:
        return None
    most, slice_of = c_uint(), c_void_p()
    ask("nvmlDeviceGetMaxMigDeviceCount", handle, byref(most))
    by_index = ("nvmlDeviceGetMigDeviceHandleByIndex", handle)
    absent = (_NOT_FOUND, _INVALID)
    return sum(not ask(*by_index, c_uint(at), byref(slice_of), allowed=absent) for at in range(most.value))
