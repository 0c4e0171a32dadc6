"""Values that are meant as the shell gave them, put into the quotes of Hydra's grammar: which would trim a text, read
numbers, lists and sweeps into it, and stumble over a path with an equals sign, such as `step=10.ckpt`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence


def verbatim(argv: Sequence[str], *, texts: Collection[str] = (), paths: Collection[str] = ()) -> list[str]:
    """`texts` and `paths` are keys. A path without an equals sign is left alone, so that several can make a sweep."""
    return [_verbatim(argument, texts, paths) for argument in argv]


def _verbatim(argument: str, texts: Collection[str], paths: Collection[str]) -> str:
    key, _, value = argument.partition("=")
    if key in texts or (key in paths and "=" in value and value[0] not in "'\""):
        return f"{key}='{_escaped(value)}'"
    return argument


def _escaped(value: str) -> str:
    """Within the grammar's single quotes: backslashes count before a quote alone, and `${` is OmegaConf's."""
    doubled = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
    return doubled.replace("${", "\\${")
