"""Counts the GPUs as a run does, forks, and computes on each GPU in the child; says so, or fails."""

import multiprocessing
import sys

from project.engine.host import count_gpus


def main(accelerator: str) -> None:
    gpus = count_gpus() if accelerator == "cuda" else 0
    if gpus == 0:
        print("no GPU to use")
        return
    child = multiprocessing.get_context("fork").Process(target=compute, args=(gpus,))
    child.start()
    child.join()
    if child.exitcode != 0:
        sys.exit(f"failed: the child ended with {child.exitcode}")
    print(f"{gpus} of {gpus}")


def compute(gpus: int) -> None:
    import torch

    for gpu in range(gpus):
        assert torch.ones(2, device=f"cuda:{gpu}").sum().item() == 2


if __name__ == "__main__":
    main(sys.argv[1])
