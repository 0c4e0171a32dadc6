"""The faults of a corpus are reported before anything runs, with the key, the value and a remedy."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate

from project.data.corpus import CorpusError, corpus_faults
from project.spec.fault import Fault


def text_config(*files: object, **options: Any) -> dict[str, Any]:
    config = {
        "seq_len": 16,
        "batch_size": 4,
        "vocab_size": 300,
        "corpus": {"_target_": "project.data.text.TextCorpus", "files": [str(file) for file in files]},
    }
    return config | options


def faults_of(config: dict[str, Any]) -> list[Fault]:
    return corpus_faults(config, instantiate(config["corpus"]))


def test_a_good_corpus_has_no_faults(text_files: Path) -> None:
    assert faults_of(text_config(text_files / "*.txt")) == []


def test_the_standard_library_has_no_faults() -> None:
    assert faults_of(text_config(corpus={"_target_": "project.data.stdlib.StdlibCorpus"})) == []


def test_synthetic_data_have_no_faults() -> None:
    config = text_config(corpus={"_target_": "project.data.synthetic.SyntheticCorpus"}, vocab_size=100)
    assert faults_of(config) == []


def test_all_faults_of_a_corpus_are_listed_at_once(tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(bytes(9))
    config = text_config(
        tmp_path / "absent.txt", tmp_path / "*.md", tmp_path / "binary.txt", batch_size=0, val_fraction=2
    )
    faults = {(fault.key, Path(str(fault.value)).name) for fault in faults_of(config)}
    expected = {("data.files", name) for name in ("absent.txt", "*.md", "binary.txt")}
    assert faults == expected | {("data.batch_size", "0"), ("data.val_fraction", "2")}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("latin.txt", "caf\xe9 au lait".encode("latin-1"), "is not UTF-8 (byte 0xe9 at offset 3)"),
        ("latin.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', "is not UTF-8 (byte 0xe9 at offset 24)"),
        ("broken.jsonl", b'{"text": "a"}\n{"text"\n', "is not JSON"),
        ("other.jsonl", b'{"body": "a"}\n', "has no text under data.text_key=text; it has ['body']"),
    ],
)
def test_a_bad_file_of_a_corpus_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    (fault,) = faults_of(text_config(tmp_path / name))
    assert fault.key == "data.files"
    assert str(fault.value).startswith(str(tmp_path / name))
    assert message in fault.message


def test_a_folder_in_data_files_is_refused_with_a_glob(tmp_path: Path) -> None:
    (fault,) = faults_of(text_config(tmp_path))
    assert f"{tmp_path}/**/*.txt" in fault.message


def test_a_corpus_without_files_is_a_fault() -> None:
    (fault,) = faults_of(text_config())
    assert fault.key == "data.files"


def test_a_corpus_that_no_tokenizer_can_stretch_to_a_batch_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("too short")
    (fault,) = faults_of(text_config(tmp_path / "short.txt"))
    assert "holds 9 bytes" in fault.message
    assert "need 130 tokens" in fault.message


def test_a_data_cache_below_a_file_is_a_fault(tmp_path: Path, text_files: Path) -> None:
    (tmp_path / "file").touch()
    (fault,) = faults_of(text_config(text_files / "*.txt", cache_dir=str(tmp_path / "file" / "cache")))
    assert fault.key == "data.cache_dir"


def test_a_vocabulary_without_room_for_the_bytes_is_a_fault(text_files: Path) -> None:
    (fault,) = faults_of(text_config(text_files / "*.txt", vocab_size=256))
    assert fault.key == "model.vocab_size"
    assert "257" in fault.message


def test_a_missing_hugging_face_folder_is_a_fault() -> None:
    pytest.importorskip("datasets", reason="the extra 'hf' is not installed")
    target = "project.data.hugging_face.HuggingFaceCorpus"
    (fault,) = faults_of(text_config(corpus={"_target_": target, "dataset": "./nowhere"}))
    assert fault.key == "data.dataset"


def test_a_corpus_error_survives_a_process_boundary() -> None:
    error = CorpusError(Fault("data.files", "x", "is empty"))
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "data.files=x: is empty"


def test_checking_a_corpus_needs_no_heavy_import() -> None:
    script = "import sys, project.data.corpus, project.data.text, project.data.stdlib, project.data.hugging_face\n"
    script += (
        "print([name for name in ('torch', 'lightning', 'tokenizers', 'numpy', 'datasets') if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert run.stdout.strip() == "[]"
