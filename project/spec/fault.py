"""A fault in a configuration: the key at fault, its value, and what would be legal."""

from dataclasses import dataclass


class Told(Exception):
    """An error whose message says all there is to say: what happened, where, and what to do. It needs no traceback."""


@dataclass(frozen=True)
class Fault:
    key: str
    value: object
    message: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}: {self.message}"
