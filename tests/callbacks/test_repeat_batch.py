"""The callback that repeats the first batch, for debugging by overfitting."""

from lightning.pytorch.callbacks import Callback

from project.callbacks.repeat_batch import RepeatBatch


def test_repeat_batch_gives_every_step_the_first_batch(fit):
    seen = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append(batch["tokens"][0, 0].item())

    fit(RepeatBatch(), Watch(), steps=3)
    assert seen == [0, 0, 0]
