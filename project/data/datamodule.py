"""The datamodule: batches of tokens for a Lightning Trainer, from any corpus."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from project.data.corpus import Corpus, CorpusError, tokens_needed
from project.data.prepare import PreparedCorpus, prepare
from project.data.sampler import StepLoader, StepSampler
from project.data.synthetic import MarkovWindows, SyntheticCorpus
from project.data.token_file import TokenWindows
from project.spec.fault import Fault


class TokenDataModule(LightningDataModule):
    """Yields batches of `tokens` and `targets`, int64 `[batch_size / dp, seq_len]` each.

    `batch_size` counts the sequences of all replicas in one iteration. `vocab_size` is the number of rows of the
    model's embedding; the tokenizer has at most as many tokens. `tokenizer` is the path of a `tokenizer.json`,
    `end_of_text` its end-of-text token (None: the one that the files beside it name).

    `lifted` are keys of the corpus that its config group offers on its own level (`data.files`). The corpus gets them
    by interpolation; here they are only checked to be keys of the corpus.
    """

    def __init__(
        self,
        corpus: Corpus | SyntheticCorpus,
        *,
        seq_len: int,
        batch_size: int,
        vocab_size: int,
        seed: int = 0,
        tokenizer: str | None = None,
        end_of_text: str | None = None,
        cache_dir: str = "~/.cache/project",
        val_fraction: float = 0.05,
        num_workers: int = 0,
        pin_memory: bool = True,
        show_progress: bool = True,
        **lifted: Any,
    ) -> None:
        super().__init__()
        if unknown := [name for name in lifted if not hasattr(type(corpus), name) and name not in vars(corpus)]:
            raise TypeError(f"neither {type(self).__name__} nor {type(corpus).__name__} knows {', '.join(unknown)}")
        self.corpus = corpus
        self.seq_len = seq_len
        self.batch_size = batch_size
        self.vocab_size = vocab_size
        self.seed = seed
        self.tokenizer, self.end_of_text = tokenizer, end_of_text
        self.cache_dir = cache_dir
        self.val_fraction = val_fraction
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.show_progress = show_progress
        self.prepared: PreparedCorpus | None = None
        self._windows: dict[str, TokenWindows | MarkovWindows] = {}
        self._position = 0

    def prepare(self) -> None:
        """Writes the token files that are missing, and checks that they fill a batch. Called before any process is
        started, the work is done once and a fault reported once. A second call is a no-op.

        Raises:
            CorpusError: for what the user has to mend.
        """
        if self._windows:
            return
        if isinstance(self.corpus, SyntheticCorpus):
            train_tokens, seed = self.corpus.num_tokens, self.corpus.seed
            val_tokens = max(train_tokens // 20, tokens_needed(8 * self.batch_size, self.seq_len))
            for stream, (split, tokens) in enumerate((("train", train_tokens), ("val", val_tokens))):
                self._windows[split] = MarkovWindows(tokens, self.seq_len, self.vocab_size, seed, stream)
        else:
            self.prepared = prepare(
                self.corpus,
                cache_dir=self.cache_dir,
                vocab_size=self.vocab_size,
                tokenizer=self.tokenizer,
                end_of_text=self.end_of_text,
                val_fraction=self.val_fraction,
                show_progress=self.show_progress,
            )
            train_tokens, val_tokens = self.prepared.train_tokens, self.prepared.val_tokens
            self._windows = {
                "train": TokenWindows(self.prepared.train, self.seq_len),
                "val": TokenWindows(self.prepared.val, self.seq_len),
            }
        self._require("training", train_tokens, "give more text, or lower data.batch_size or data.seq_len")
        self._require("validation", val_tokens, "give more text, or raise data.val_fraction")

    def prepare_data(self) -> None:
        self.prepare()

    def setup(self, stage: str) -> None:
        self.prepare()
        if stage == "fit":
            self._position = 0  # a checkpoint is loaded after this

    def train_dataloader(self) -> DataLoader[Any]:
        overfit = getattr(self.trainer, "overfit_batches", 0)
        sampler = self._sampler("train", shuffle=True)
        # In a Trainer a float is a share of all batches.
        sampler.repeat_first = (int(overfit * len(sampler)) if isinstance(overfit, float) else overfit) or None
        sampler.position = self._position
        return StepLoader(sampler, **self._loader_options("train"))

    def val_dataloader(self) -> DataLoader[Any]:
        """The same full batches in the same order every time; `Trainer(limit_val_batches=)` bounds them."""
        return DataLoader(batch_sampler=self._sampler("val", shuffle=False), **self._loader_options("val"))

    def test_dataloader(self) -> DataLoader[Any]:
        """The validation batches, because a corpus has no third split."""
        return self.val_dataloader()

    def state_dict(self) -> dict[str, int]:
        """The number of global batches that have been trained on, and the values that their order depends on."""
        return {"position": self._trained(), **self._order()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._position = state_dict["position"]
        changed = [
            f"{name} {state_dict.get(name)} -> {value}"
            for name, value in self._order().items()
            if state_dict.get(name) != value
        ]
        if changed:
            warnings.warn(
                f"The run goes on with data in another order than it began with ({', '.join(changed)}): some samples "
                "will be seen again, others later.",
                stacklevel=2,
            )

    def _order(self) -> dict[str, int]:
        self.prepare()
        return {"seed": self.seed, "batch_size": self.batch_size, "samples": len(self._windows["train"])}

    def _trained(self) -> int:
        """The number of global batches trained on, as the Trainer counts them: the loader counts a batch whose step
        failed."""
        if self.trainer is None:
            return self._position
        batches: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
        return batches.processed

    def _sampler(self, split: str, shuffle: bool) -> StepSampler:
        self.prepare()
        replicas = (self.trainer.distributed_sampler_kwargs if self.trainer else None) or {"rank": 0, "num_replicas": 1}
        return StepSampler(
            len(self._windows[split]),
            self.batch_size,
            seed=self.seed,
            dp_rank=replicas["rank"],
            dp_size=replicas["num_replicas"],
            shuffle=shuffle,
        )

    def _loader_options(self, split: str) -> dict[str, Any]:
        # Lightning advises worker processes, but copying a window from a memory map is faster than a queue.
        warnings.filterwarnings("ignore", message=r".*does not have many workers")
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        return {
            "dataset": self._windows[split],
            "collate_fn": collate,
            "num_workers": self.num_workers,
            "pin_memory": self.pin_memory and device.type == "cuda",
        }

    def _require(self, split: str, tokens: int, remedy: str) -> None:
        needed = tokens_needed(self.batch_size, self.seq_len)
        if tokens < needed:
            self._windows = {}
            message = (
                f"has {tokens} tokens for {split}, but one batch needs {needed} (data.batch_size={self.batch_size} x "
                f"data.seq_len={self.seq_len} + 1): {remedy}"
            )
            raise CorpusError(Fault(self.corpus.key, self.corpus.value, message))


def collate(windows: Sequence[npt.NDArray[np.int64]]) -> dict[str, torch.Tensor]:
    """Makes a batch of windows: `tokens` and `targets`, int64 `[batch, seq_len]` each. A token's target is the next
    one."""
    window_BS = torch.from_numpy(np.stack(windows))
    return {"tokens": window_BS[:, :-1].contiguous(), "targets": window_BS[:, 1:].contiguous()}
