"""Pre-train a backbone: python pretrain/run.py CONFIG [key=value ...]   (also under torchrun or srun)."""

import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this folder must not come first: it holds config.py, data/

from core.errors import cli  # noqa: E402


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description="Pre-train a backbone; starting again in the same folder goes on.")
    parser.add_argument("config", type=Path, help="a file of configs/pretrain/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. train.epochs=10 run.folder=runs/try")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the same as run.folder=DIR")
    return parser


def main() -> int:
    """Parse, prepare, train; exit 143 after SIGTERM and 130 after Ctrl-C, with a checkpoint written."""
    arguments = parser().parse_intermixed_args()
    folder = [f"run.folder={arguments.out}"] if arguments.out else []

    from core import distributed
    from pretrain.setup import make_trainer

    try:
        trainer = make_trainer(arguments.config, [*arguments.overrides, *folder])
        trainer.run()
        if distributed.is_main():
            more = "; stopped, start the same command again to go on" if trainer.stopped_by else ""
            print(f"{trainer.folder}: {trainer.step} of {trainer.total} steps{more}")
    except BaseException:
        distributed.abandon()
        raise
    distributed.stop()
    return 128 + trainer.stopped_by if trainer.stopped_by else 0


if __name__ == "__main__":
    cli(main)
