"""A fault in a configuration: the key at fault, its value, and what would be legal."""

from dataclasses import dataclass


class Told(Exception):
    """An error that is printed without its traceback: the message says what happened, where, and what to do."""


@dataclass(frozen=True)
class Fault:
    key: str
    value: object
    message: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}: {self.message}"
