"""The JSON of a checkpoint: encodes the state of callbacks, loops and schedulers, and decodes it to the same types;
`form` says what it has to hold.

A type that JSON lacks is an object whose key `!` names it. Nothing is imported by name: a file can produce numbers,
strings, containers, paths, arrays and tensors, and nothing else.
"""

import base64
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from project.spec.untrusted import Unreadable, parsed_json

TAG = "!"
DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
"""The names that safetensors gives to dtypes."""
ARRAY_DTYPE = re.compile(r"[<>|=]?[biuf]\d{1,2}", re.ASCII)


def dumps(value: Any) -> bytes:
    """Encodes `value`. Raises `TypeError` naming the place of an object of another type."""
    return json.dumps(encode(value), allow_nan=False, separators=(",", ":")).encode()


def loads(text: bytes) -> Any:
    """Decodes `text`. Raises `ValueError` for text that `dumps` does not write."""
    try:
        return decode(parsed_json(Path(), text))
    except Unreadable as error:
        raise ValueError(error.problem) from None
    except (TypeError, KeyError, AttributeError, OverflowError, RuntimeError) as error:
        raise ValueError(f"has a value that is none of ours ({type(error).__name__}: {error})") from None


def encode(value: Any, place: str = "") -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {TAG: "float", "value": repr(value)}
    if isinstance(value, list):
        return [encode(item, f"{place}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, tuple):
        return {TAG: "tuple", "items": encode(list(value), place)}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value) and TAG not in value:
            return {key: encode(item, f"{place}.{key}") for key, item in value.items()}
        items = [[encode(key, place), encode(item, f"{place}.{key}")] for key, item in value.items()]
        return {TAG: "dict", "items": items}
    if isinstance(value, PurePath):
        return {TAG: "path", "value": str(value)}
    if isinstance(value, np.generic):
        return encode(value.item(), place)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {TAG: "array", "dtype": value.dtype.str, "shape": list(value.shape), "data": text(value.tobytes())}
    if type(value) in (Tensor, torch.nn.Parameter) and value.dtype in DTYPE_NAMES:
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return {TAG: "tensor", "dtype": DTYPE_NAMES[value.dtype], "shape": list(value.shape), "data": text(data)}
    raise TypeError(f"{place.lstrip('.') or 'value'} is a {type(value).__name__}, which a checkpoint cannot hold")


def decode(value: Any) -> Any:
    if isinstance(value, list):
        return [decode(item) for item in value]
    if isinstance(value, dict):
        if TAG in value:
            return DECODERS[value[TAG]](value)
        return {key: decode(item) for key, item in value.items()}
    return value


def decode_tensor(value: dict) -> Tensor:
    data = bytearray(base64.b64decode(value["data"], validate=True))
    dtype = DTYPES[value["dtype"]]
    flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    return flat.reshape(value["shape"])  # raises if the size differs


def decode_array(value: dict) -> np.ndarray:
    if not ARRAY_DTYPE.fullmatch(value["dtype"]):  # numpy would evaluate it
        raise ValueError(f"has an array of {value['dtype'][:20]}")
    data = base64.b64decode(value["data"], validate=True)
    return np.frombuffer(data, np.dtype(value["dtype"])).reshape(value["shape"]).copy()


DECODERS: dict[str, Callable[[dict], Any]] = {
    "float": lambda value: float(value["value"]),
    "tuple": lambda value: tuple(decode(value["items"])),
    "dict": lambda value: {decode(key): decode(item) for key, item in value["items"]},
    "path": lambda value: Path(value["value"]),
    "tensor": decode_tensor,
    "array": decode_array,
}


def text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
