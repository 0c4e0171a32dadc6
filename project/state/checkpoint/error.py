"""The error of a checkpoint, in one line: the file, the problem, and the remedy."""

from pathlib import Path

from project.spec.fault import Told


class CheckpointError(Told, ValueError):
    """A checkpoint that cannot be read or used; `path` is the file or folder at fault."""

    def __init__(self, path: str | Path, problem: str, remedy: str) -> None:
        super().__init__(f"{path}: {problem}; {remedy}")
        self.path, self.problem, self.remedy = Path(path), problem, remedy

    def __reduce__(self) -> tuple:
        return type(self), (self.path, self.problem, self.remedy)


ANOTHER = "resume from another checkpoint"
"""The remedy for a damaged checkpoint."""
BEGIN = "begin with them by init_from"
"""The remedy for a checkpoint of weights alone."""
