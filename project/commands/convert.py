"""`project/convert.py`: weights to Hugging Face's format and back."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from project.command_line.refusal import report_lines
from project.command_line.standard_streams import open_standard_streams
from project.state.checkpoint.manifest import CheckpointError
from project.state.weights.conversion import from_hf, to_hf
from project.state.weights.source import open_weights
from project.state.weights.weights import WeightsError

PURPOSE = "Weights to Hugging Face's format and back: `python project/convert.py to_hf CKPT DIR`, `from_hf DIR CKPT`."


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="convert.py", description=PURPOSE, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    out = commands.add_parser("to_hf", help="a checkpoint's weights as a folder that transformers opens")
    out.add_argument("source", metavar="CKPT", help="a checkpoint, or a run's folder: its last one")
    out.add_argument("target", metavar="DIR", type=Path, help="the folder to be made")
    out.add_argument("--tokenizer", type=Path, help="a tokenizer.json; else the run's own")
    back = commands.add_parser("from_hf", help="the folder of a model of transformers as a checkpoint, for init_from")
    back.add_argument("source", metavar="DIR", help="a folder with config.json and safetensors")
    back.add_argument("target", metavar="CKPT", type=Path, help="the checkpoint to be made")
    return parser.parse_args()


def convert(given: argparse.Namespace) -> None:
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(TextColumn(given.target.name), *columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(given.command, total=None)
        weights = open_weights(given.source)
        if given.command == "to_hf":
            to_hf(weights, given.target, lambda done, of: bar.update(task, completed=done, total=of), given.tokenizer)
        else:
            from_hf(weights, given.target, lambda done, of: bar.update(task, completed=done, total=of))


def main() -> None:
    open_standard_streams()
    given = arguments()
    try:
        convert(given)
    except WeightsError as error:
        report_lines(error.reasons, "Nothing was written")
        sys.exit(2)
    except CheckpointError as error:
        report_lines([f"{error.path}: {error.problem}"], "Nothing was written")
        sys.exit(2)
    except OSError as error:
        report_lines([f"{error.filename or given.target}: {error.strerror}"], "Nothing was written")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    print(given.target)
