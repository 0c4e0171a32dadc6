"""What was typed for a key on the command line, before the configuration is composed."""

from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException


def typed(argv: Sequence[str], key: str) -> object:
    """Returns the value of the last of a key's overrides, as Hydra reads it; None if it has none."""
    return next((value for one in reversed(argv) if (value := value_of(one, key)) is not None), None)


def value_of(override: str, key: str) -> object:
    """Returns the override's value if it is the key's, else None; also where Hydra cannot parse it, of which the check
    of the whole command line says why."""
    if override.partition("=")[0] != key:
        return None
    try:
        return OverridesParser.create().parse_override(override).value()
    except OverrideParseException:
        return None
