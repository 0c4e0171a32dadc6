"""The real `datasets` loads a local folder, as it would load a name on the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from project.data.corpus import CorpusError
from project.data.hugging_face import HuggingFaceCorpus

datasets = pytest.importorskip("datasets", reason="the extra 'hf' is not installed")

ROWS = ["first text", "second text", ""]


@pytest.fixture(autouse=True)
def quiet_and_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    datasets.disable_progress_bars()


def texts(corpus: HuggingFaceCorpus) -> list[str]:
    assert corpus.faults() == []
    return [document.text for document in corpus.documents()]


def test_a_saved_hugging_face_dataset_is_a_corpus(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"body": ROWS, "n": [1, 2, 3]}).save_to_disk(tmp_path / "saved")
    assert texts(HuggingFaceCorpus(str(tmp_path / "saved"), text_key="body")) == ROWS[:2]


def test_a_split_of_a_saved_hugging_face_dataset_is_a_corpus(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"text": ROWS})
    datasets.DatasetDict({"train": rows.select([0]), "extra": rows}).save_to_disk(tmp_path / "saved")
    assert texts(HuggingFaceCorpus(str(tmp_path / "saved"), split="extra")) == ROWS[:2]
    with pytest.raises(CorpusError, match=r"data.split=test: is no split of .*'extra', 'train'"):
        texts(HuggingFaceCorpus(str(tmp_path / "saved"), split="test"))


def test_a_folder_of_hugging_face_data_files_is_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "train.jsonl").write_text('{"text": "first text"}\n{"text": "second text"}\n')
    assert texts(HuggingFaceCorpus(str(tmp_path / "files"))) == ROWS[:2]


def test_a_wrong_column_of_a_hugging_face_dataset_is_refused_with_the_right_ones(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"body": ROWS}).save_to_disk(tmp_path / "saved")
    with pytest.raises(CorpusError, match=r"data.text_key=text: .*\['body'\]"):
        texts(HuggingFaceCorpus(str(tmp_path / "saved")))


def test_a_hugging_face_folder_without_data_cannot_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(CorpusError, match=r"data.dataset=.*cannot be loaded"):
        texts(HuggingFaceCorpus(str(tmp_path / "bare")))


def test_a_hugging_face_dataset_with_other_content_has_another_identity(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": ROWS}).save_to_disk(tmp_path / "saved")
    corpus = HuggingFaceCorpus(str(tmp_path / "saved"))
    before = corpus.identity()
    (tmp_path / "saved" / "more").write_text("x")
    assert corpus.identity() != before
