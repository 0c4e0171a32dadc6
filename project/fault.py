"""A fault in a configuration: the key at fault, its value, and what would be legal."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    key: str
    value: object
    message: str

    def __str__(self) -> str:
        return f"{self.key}={self.value}: {self.message}"
