"""Prints one line about the machine: cards, driver, torch, CUDA and NCCL. In a process of its own: it uses CUDA."""

import platform
import subprocess
import sys

import torch

from project.observe.provenance import device_name


def main(accelerator: str) -> None:
    python = f"Python {platform.python_version()}, torch {torch.__version__}"
    if accelerator == "cpu":
        print(f"{device_name(torch.device('cpu'))}, no GPU, {python}")
        return
    cards = torch.cuda.device_count()
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(query, text=True, capture_output=True).stdout.split()
    nccl = ".".join(map(str, torch.cuda.nccl.version()))
    name = device_name(torch.device("cuda"))
    print(f"{cards} x {name}, driver {driver[0] if driver else '?'}, {python}, CUDA {torch.version.cuda}, NCCL {nccl}")


if __name__ == "__main__":
    main(sys.argv[1])
