"""The progress bar of a corpus's preparation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from project.data.corpus import Document


class PreparationProgress:
    """A bar on standard error that counts characters of text; silent unless `enabled` and standard error is a
    terminal."""

    def __init__(self, enabled: bool, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        self._total = total
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not (enabled and console.is_terminal),
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def watch(self, description: str, documents: Iterable[Document]) -> Iterator[Document]:
        """Yields the documents and advances the bar by their characters."""
        task = self._progress.add_task(description, total=self._total)
        for document in documents:
            yield document
            self._progress.advance(task, len(document.text))
        # The total is in bytes, of which there are more than characters, or unknown: the bar ends full all the same.
        done = self._progress.tasks[task].completed
        self._progress.update(task, total=done, completed=done)
