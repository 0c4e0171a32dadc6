"""What is wrong with a checkpoint, in one line: the file, what it is, and what to do."""

from pathlib import Path

from project.spec.fault import Told


class CheckpointError(Told, ValueError):
    """`path` is the file or folder at fault."""

    def __init__(self, path: str | Path, problem: str, remedy: str) -> None:
        super().__init__(f"{path}: {problem}; {remedy}")
        self.path, self.problem, self.remedy = Path(path), problem, remedy

    def __reduce__(self) -> tuple:
        return type(self), (self.path, self.problem, self.remedy)


ANOTHER = "resume from another checkpoint"
"""What is left to do with one that is damaged."""
BEGIN = "begin with them by init_from"
"""What is left to do with one that has weights and nothing else of a run."""
