"""What a file of JSON, YAML or CSV may hold that nobody would write there, and what may stand in a file's place."""

import os
from collections.abc import Callable
from pathlib import Path

CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "zeros": b"\0" * 64,
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "half": b'{"a": [1, 2',
    "a number": b"7",
    "a text": b'"x"',
    "null": b"null",
    "a list": b"[1, 2]",
    "an empty list": b"[]",
    "an empty object": b"{}",
    "keys twice": b'{"a": 1, "a": 2}',
    "NaN": b'{"format": NaN, "model": Infinity}',
    "a huge number": b'{"format": 1e999}',
    "a huge whole number": b'{"format": ' + b"9" * 5000 + b"}",
    "deep": b'{"a":' * 2000 + b"1" + b"}" * 2000,
    "deep list": b"[" * 200_000,
    "wrong kinds": b'{"format": [], "files": 3, "model": [], "jobs": 7, "claims": "x", "layout": 3, "ranks": "y",'
    b' "traceEvents": {}, "metadata": [], "weight_map": 3, "version": {}, "model_type": 1, "nodes": {}, "status": []}',
    "kinds inside wrong": b'{"format": 1, "files": {"meta.json": {"bytes": "x"}}, "model": {"vocab": 3},'
    b' "jobs": [{}], "claims": [3], "layout": {"pp": "x"}, "ranks": [{"rank": []}], "traceEvents": [3],'
    b' "metadata": {"steps": 3}, "weight_map": {"a": 3}, "model_type": "mixtral"}',
    "alias bomb": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(98, 106)),
    "a tag": b"!!python/object/apply:os.system ['touch run']\n",
    "an interpolation": b"a: ${oc.env:HOME}\n",
    "control characters": b'{"status": "\\u001b]0;x\\u0007", "error": "\\u001b[2J"}',
    "lone surrogate": b'{"status": "\\ud800", "a": "\\udfff"}',
}


def _folder(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _link_out(path: Path) -> None:
    outside = path.parents[1] / f"outside_{path.name}"
    outside.write_text("{}")
    path.symlink_to(outside)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _dangling(path: Path) -> None:
    path.symlink_to("absent")


PLACES: dict[str, Callable[[Path], None]] = {
    "a folder": _folder,
    "a pipe": _pipe,
    "a link out": _link_out,
    "a device": _device,
    "a link to itself": _loop,
    "a link to nothing": _dangling,
}
