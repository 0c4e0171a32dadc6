"""A Hugging Face dataset as a corpus, by its name on the hub or from a folder. Needs the optional package
`datasets`."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from project.data.corpus import CorpusError, Document
from project.data.records import value_of
from project.spec.fault import Fault


class HuggingFaceCorpus:
    """One split of a dataset; each row is a document, from the column `text_key`.

    `dataset` is a name on the hub, a folder that `Dataset.save_to_disk` wrote, or a folder of data files. `revision`
    pins a dataset of the hub: without it, a copy that is already prepared is used whatever the hub holds now.
    """

    name = "hf"
    key = "data.dataset"

    def __init__(
        self,
        dataset: str | None,
        config: str | None = None,
        split: str = "train",
        text_key: str = "text",
        revision: str | None = None,
    ) -> None:
        self.dataset = self.value = dataset
        self.config = config
        self.split = split
        self.text_key = text_key
        self.revision = revision

    def identity(self) -> dict[str, Any]:
        folder = self._folder()
        files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder else []
        return {
            "corpus": self.name,
            "dataset": str(folder.absolute()) if folder else self.dataset,
            "config": self.config,
            "split": self.split,
            "text_key": self.text_key,
            "revision": self.revision,
            "files": [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files],
        }

    def size_bytes(self) -> None:
        return None

    def documents(self) -> Iterator[Document]:
        rows = self._load()
        if self.text_key not in rows.column_names:
            message = f"is no column of {self.dataset}; it has {rows.column_names}"
            raise CorpusError(Fault("data.text_key", self.text_key, message))
        for number, row in enumerate(rows.select_columns([self.text_key])):
            value = value_of(row, self.text_key, self._misfit)
            if len(value):
                yield Document.of(str(number), value)

    def _misfit(self, reason: str) -> CorpusError:
        return CorpusError(Fault("data.text_key", self.text_key, f"{reason}, in {self.dataset}"))

    def faults(self) -> list[Fault]:
        if not self.dataset:
            return [Fault(self.key, self.dataset, "names no dataset; give a name on the hub or a folder")]
        if importlib.util.find_spec("datasets") is None:
            return [Fault(self.key, self.dataset, "needs the package datasets: pip install 'project[hf]'")]
        looks_local = self.dataset.startswith((".", "/", "~"))
        if looks_local and self._folder() is None:
            return [Fault(self.key, self.dataset, f"is no folder; relative names start from {Path.cwd()}")]
        return []

    def _folder(self) -> Path | None:
        folder = Path(str(self.dataset)).expanduser()
        return folder if folder.is_dir() else None

    def _load(self) -> Any:
        import datasets

        folder = self._folder()
        try:
            if folder and (folder / "dataset_dict.json").is_file():
                return self._chosen(datasets.load_from_disk(str(folder)))
            if folder and (folder / "dataset_info.json").is_file():
                return datasets.load_from_disk(str(folder))
            source = str(folder) if folder else str(self.dataset)
            return datasets.load_dataset(source, self.config, split=self.split, revision=self.revision)
        except CorpusError:
            raise
        except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
            # Offline, misspelled, private or gated: the library's message tells which.
            reason = str(error).strip().splitlines()[0]
            raise CorpusError(Fault(self.key, self.dataset, f"cannot be loaded: {reason}")) from error

    def _chosen(self, splits: Any) -> Any:
        if self.split not in splits:
            message = f"is no split of {self.dataset}; it has {sorted(splits)}"
            raise CorpusError(Fault("data.split", self.split, message))
        return splits[self.split]
