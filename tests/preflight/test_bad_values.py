"""Every bad value is named with its key, itself, and what would be legal."""

from collections.abc import Callable

import pytest

CASES = [
    # the layout against the model
    (["parallel.tp=3"], "parallel.tp=3: does not divide model.num_heads=8, model.num_kv_heads=8"),
    (["parallel.tp=3"], "legal: 1, 2, 4, 8; nearest 2 or 4"),
    (["parallel.tp=16"], "parallel.tp=16: does not divide model.num_heads=8"),
    (["parallel.tp=4", "model.num_kv_heads=2"], "parallel.tp=4: does not divide model.num_kv_heads=2"),
    (["parallel.tp=4", "data.seq_len=30"], "parallel.tp=4: does not divide data.seq_len=30; legal: 1, 2; nearest 2"),
    (["parallel.tp=4", "model.d_model=1022"], "parallel.tp=4: does not divide model.d_model=1022"),
    (["parallel.tp=4", "model.d_ff=4098"], "parallel.tp=4: does not divide model.d_ff=4098"),
    (["parallel.tp=8", "parallel.ep=8"], "parallel.ep=8: does not divide model.num_experts=4"),
    (["parallel.ep=4"], "parallel.ep=4: ep x etp = 4 does not divide parallel.dp x parallel.tp = 1"),
    (["parallel.pp=9"], "parallel.pp=9: makes 9 stages (pp x virtual_stages), more than model.num_layers=8"),
    (["parallel.partition=[4,5]", "parallel.pp=2"], "parallel.partition=[4,5]: must give each of 2 stages"),
    (["parallel.pp=2", "parallel.partition=[4,5]"], "for instance [4,4] or null"),
    # the layout against the batch
    (["data.batch_size=12"], "data.batch_size=12: is not divisible by parallel.dp x parallel.microbatches = 1 x 8"),
    (["data.batch_size=12"], "parallel.microbatches=1, 2, 3, 4, 6 or 12 would do; nearest 8 or 16"),
    (["parallel.pp=4", "parallel.microbatches=2"], "parallel.microbatches=2: 1F1B needs at least as many"),
    (["parallel.pp=4", "parallel.microbatches=2"], "legal: 4, 8; nearest 4"),
    # words
    (["parallel.schedule=1f1b"], "parallel.schedule=1f1b: is not known; legal: 1F1B, GPipe; nearest 1F1B"),
    (["parallel.recompute=ful"], "parallel.recompute=ful: is not known; legal: none, selective, full; nearest full"),
    (["model.score=soft"], "model.score=soft: is not known; legal: softmax, sigmoid; nearest softmax"),
    (["trainer.precision=fp32"], "trainer.precision=fp32: is not known; legal: 32-true"),
    (["trainer.precision=bf16-mix"], "nearest bf16-mixed"),
    (["trainer.accelerator=cdua"], "trainer.accelerator=cdua: is not known; legal: auto, cpu, cuda, gpu; nearest cuda"),
    # the model by itself
    (["model.top_k=5"], "model.top_k=5: is more than model.num_experts=4; legal: 1, 2, 3, 4; nearest 4"),
    (["model.num_kv_heads=3"], "model.num_kv_heads=3: does not divide model.num_heads=8"),
    (["model.head_dim=127"], "model.head_dim=127: is odd"),
    (["data.seq_len=8192"], "data.seq_len=8192: is more than model.max_seq_len=4096; nearest 4096"),
    (["data.vocab_size=9000"], "data.vocab_size=9000: is more than model.vocab_size=8192"),
    # types
    (["parallel.tp=four"], "parallel.tp=four: must be a whole number of at least 1"),
    (["parallel.tp="], "parallel.tp='': must be a whole number of at least 1"),
    (["parallel.pp=0"], "parallel.pp=0: must be a whole number of at least 1; nearest 1"),
    (["model.top_k=true"], "model.top_k=true: must be a whole number"),
    (["trainer.max_steps=-3"], "trainer.max_steps=-3: must be a whole number of at least 1"),
    (["training.learning_rate=fast"], "training.learning_rate=fast: must be a number above 0"),
    (["training.betas=[0.9]"], "training.betas=[0.9]: must be two numbers"),
    (["seed=x"], "seed=x: must be a whole number"),
    (["model.d_ff=${nope}"], "model.d_ff=${nope}: Interpolation key 'nope' not found"),
    (["model.d_ff=???"], "model.d_ff=???: must be given"),
    # keys that Hydra lets one add
    (["+parallel.tpp=2"], "parallel.tpp=2: is no key of parallel; legal: pp, dp, tp"),
    (["+trainer.max_stepz=3"], "trainer.max_stepz=3: is no key of trainer; nearest max_steps"),
    # what does not run yet
    (["parallel.dp=2"], "parallel.dp=2: is not supported yet; legal: 1; nearest 1"),
    (["parallel.tp=4", "parallel.ep=2"], "parallel.ep=2: is not supported yet; legal: 1, 4"),
    (["parallel.tp=2", "parallel.etp=2"], "parallel.etp=2: is not supported yet"),
    (["parallel.virtual_stages=2"], "parallel.virtual_stages=2: is not supported yet"),
    # the corpus and the folders
    (["data=text", "data.files=[nowhere.txt]"], "data.files=nowhere.txt: does not exist"),
    (["resume=nowhere.ckpt"], "resume=nowhere.ckpt: does not exist"),
    (["hydra.run.dir=/dev/null/run"], "hydra.run.dir=/dev/null/run: cannot be created, because /dev/null is a file"),
]


@pytest.mark.parametrize(("overrides", "words"), CASES, ids=[" ".join(case[0]) for case in CASES])
def test_a_bad_value_is_named_with_what_is_legal(
    overrides: list[str], words: str, complaint: Callable[..., str]
) -> None:
    assert words in complaint(*overrides)


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "is empty"), (b"caf\xe9 " * 9999, "is not UTF-8"), (b"short", "holds 5 bytes of text")]
)
def test_a_bad_corpus_is_named(content: bytes, words: str, complaint: Callable[..., str], tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    corpus = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    corpus.write_bytes(content)
    said = complaint("data=text", f"data.files=[{corpus}]")
    assert "data.files=" in said
    assert words in said


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["+experiment=tp4_ep4_pp4"],
        ["+experiment=tp4_ep4_pp4", "model=small"],
        ["+experiment=tp4_ep4_pp4", "model=tiny", "parallel.microbatches=4"],
        ["parallel=tp4_ep4", "parallel.ep=1"],
        ["parallel.pp=3", "parallel.partition=[3,3,2]"],
        ["trainer.precision=64-true", "data=synthetic"],
        ["parallel.pp=8", "parallel.microbatches=2", "parallel.schedule=GPipe"],
    ],
    ids=" ".join,
)
def test_what_is_sound_passes_in_silence(overrides: list[str], accepted: Callable[..., str]) -> None:
    assert accepted(*overrides) == ""
