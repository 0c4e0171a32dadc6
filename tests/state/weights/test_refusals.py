"""A conversion that is impossible is refused with status 2 and the reason, and leaves nothing behind."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from project.commands import convert
from project.spec.model import ModelConfig
from project.state.checkpoint.manifest import META
from project.state.checkpoint.partial import PartialFolder
from tests.harness.a_run import CASE, Run

Refusal = Callable[..., str]


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """Returns what `convert.py` prints on stderr, on one line; its exit status has to be 2."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["convert.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            convert.main()
        assert ended.value.code == 2
        return " ".join(capsys.readouterr().err.split())

    return run


def of_model(folder: Path, model: ModelConfig) -> Path:
    """A checkpoint with this model's config and no tensor."""
    partial = PartialFolder(folder, "0").create()
    partial.write_json(META, {"config": {"model": asdict(model)}})
    partial.seal(partial.files)
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"expert_balance": "bias"}, "model.expert_balance=bias: a Mixtral has no bias in its router"),
        ({"num_shared_experts": 1}, "model.num_shared_experts=1: a Mixtral has no expert that every token goes to"),
        ({"num_dense_layers": 1}, "model.num_dense_layers=1: a Mixtral has experts in every layer"),
        ({"score": "sigmoid"}, "model.score=sigmoid: a Mixtral routes by a softmax"),
        ({"capacity_factor": 1.25}, "model.capacity_factor=1.25: a Mixtral drops no token"),
    ],
)
def test_converting_a_model_that_the_format_cannot_hold_is_refused(
    change: dict, said: str, tmp_path: Path, refusal: Refusal
) -> None:
    checkpoint = of_model(tmp_path / "ckpt", replace(CASE.model, **change))
    assert said in refusal("to_hf", checkpoint, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_converting_lists_everything_that_the_format_cannot_hold_at_once(tmp_path: Path, refusal: Refusal) -> None:
    model = replace(CASE.model, score="sigmoid", expert_balance="bias", num_shared_experts=2)
    told = refusal("to_hf", of_model(tmp_path / "ckpt", model), tmp_path / "hf")
    assert all(f"model.{key}=" in told for key in ("score", "expert_balance", "num_shared_experts"))


@pytest.mark.parametrize("model", ["x", {"num_layers": "x"}, {"top_k": "x"}, {"score": "loudest"}, None])
def test_converting_a_checkpoint_without_a_model_config_is_refused(
    model: object, tmp_path: Path, refusal: Refusal
) -> None:
    partial = PartialFolder(tmp_path / "ckpt", "0").create()
    partial.write_json(META, {"config": {"model": model}})
    partial.seal(partial.files)
    assert "does not say of what model it is" in refusal("to_hf", tmp_path / "ckpt", tmp_path / "hf")


def test_converting_with_a_file_that_is_no_tokenizer_is_refused(a_run: Run, tmp_path: Path, refusal: Refusal) -> None:
    source = shutil.copytree(a_run.folder, tmp_path / "run", symlinks=True)
    (source / "tokenizer.json").write_text("{")
    assert "tokenizer" in refusal("to_hf", source, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_converting_from_a_path_that_does_not_exist_is_refused(tmp_path: Path, refusal: Refusal) -> None:
    assert f"{tmp_path}/no: is no folder" in refusal("to_hf", tmp_path / "no", tmp_path / "hf")
    assert "is no checkpoint" in refusal("from_hf", tmp_path, tmp_path / "ckpt")


def test_converting_into_a_folder_that_is_not_empty_is_refused(
    a_run: Run, exported: Path, tmp_path: Path, refusal: Refusal
) -> None:
    (tmp_path / "mine").write_text("precious")
    assert f"{tmp_path}: is not empty" in refusal("to_hf", a_run.folder, tmp_path)
    assert f"{tmp_path}: is not empty" in refusal("from_hf", exported, tmp_path)
    assert "is a file" in refusal("to_hf", a_run.folder, tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "precious"


def test_converting_weights_with_a_missing_tensor_is_refused(exported: Path, tmp_path: Path, refusal: Refusal) -> None:
    source = shutil.copytree(exported, tmp_path / "source")
    file = source / json.loads((source / "model.safetensors.index.json").read_text())["weight_map"]["lm_head.weight"]
    save_file({name: tensor for name, tensor in load_file(file).items() if name != "lm_head.weight"}, file)
    assert f"{source}: lm_head.weight is missing" in refusal("from_hf", source, tmp_path / "ckpt")
    empty = of_model(tmp_path / "empty.ckpt", CASE.model)
    assert "has 3 layers, but 0 tensors" in refusal("to_hf", empty, tmp_path / "hf")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 10**12}, "has 1000000000000 layers, but"),
        ({"num_local_experts": 10**12}, "and more tensors"),
        ({"vocab_size": 10**18, "hidden_size": 10**18}, f"instead of [{10**18}, {10**18}]"),
        ({"vocab_size": 10**30}, f"instead of [{10**30}, "),
    ],
)
def test_converting_a_config_of_gigantic_sizes_is_refused(
    changes: dict, said: str, exported: Path, tmp_path: Path, refusal: Refusal
) -> None:
    source = shutil.copytree(exported, tmp_path / "source")
    content = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(content | changes))
    assert said in refusal("from_hf", source, tmp_path / "ckpt")


def test_converting_a_checkpoint_with_one_flipped_bit_is_refused(a_run: Run, tmp_path: Path, refusal: Refusal) -> None:
    (whole,) = (a_run.folder / "checkpoints").glob("step=*.ckpt")
    damaged = tmp_path / "damaged.ckpt"
    damaged.mkdir()
    for file in whole.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    file = damaged / "weights-00001.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert f"{file}: is damaged" in refusal("to_hf", damaged, tmp_path / "hf")
    assert not any(tmp_path.glob("*hf*"))


def test_converting_onto_a_full_disk_leaves_nothing(
    a_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "hf" / "model.safetensors"))

    monkeypatch.setattr("project.state.weights.conversion.write_shards", full)
    monkeypatch.setattr(sys, "argv", ["convert.py", "to_hf", str(a_run.folder), str(tmp_path / "hf")])
    with pytest.raises(SystemExit) as ended:
        convert.main()
    assert ended.value.code == 1
    assert "No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_converting_a_config_of_a_family_that_is_not_known_is_refused(
    exported: Path, tmp_path: Path, refusal: Refusal
) -> None:
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    said = refusal("from_hf", tmp_path / "gpt2", tmp_path / "c")
    assert "model_type=gpt2: is none of what can be read: mixtral, qwen2_moe, qwen3_moe, olmoe, qwen3, llama" in said
