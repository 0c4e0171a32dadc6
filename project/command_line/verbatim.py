"""Values of the command line that are taken as the shell gave them are quoted for Hydra's grammar."""

import re
from collections.abc import Collection, Sequence


def verbatim(argv: Sequence[str], *, texts: Collection[str] = (), paths: Collection[str] = ()) -> list[str]:
    """Quotes the values that are meant as the shell gave them. Hydra's grammar would trim a text, read numbers, lists
    and sweeps into it, and stumble over a path with an equals sign, such as `step=10.ckpt`.

    `texts` and `paths` are keys. A path without an equals sign is left alone, so that several can make a sweep.
    """

    def quoted(argument: str) -> str:
        key, _, value = argument.partition("=")
        if key in texts or (key in paths and "=" in value and value[0] not in "'\""):
            return f"{key}='{_escaped(value)}'"
        return argument

    return [quoted(argument) for argument in argv]


def _escaped(value: str) -> str:
    """Escapes for single quotes in Hydra's grammar: backslashes count before a quote alone, and `${` is OmegaConf's."""
    doubled = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
    return doubled.replace("${", "\\${")
