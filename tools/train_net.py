"""Train or evaluate a detector: python tools/train_net.py --config-file FILE [--num-gpus N] [KEY VALUE ...]"""

import argparse

import checkout  # noqa: F401

from core.errors import InputError, cli


def parser() -> argparse.ArgumentParser:
    """Describe Detectron2's command line (written out here, because importing Detectron2 takes seconds)."""
    parser = argparse.ArgumentParser(description="Fine-tune a converted backbone with Detectron2 and evaluate it.")
    parser.add_argument("--config-file", default="", metavar="FILE", help="e.g. one of configs/transfer/detection")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUTPUT_DIR, if any")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS, train nothing")
    parser.add_argument("--num-gpus", type=int, default=1, help="GPUs per machine; without a GPU, processes")
    parser.add_argument("--num-machines", type=int, default=1, help="number of machines")
    parser.add_argument("--machine-rank", type=int, default=0, help="rank of this machine, from 0")
    parser.add_argument("--dist-url", default="auto", help="tcp://HOST:PORT of the first machine (one machine: found)")
    parser.add_argument("--norm", default="", metavar="NAME", help="use this for SyncBN, for example naiveSyncBN")
    parser.add_argument(
        "--images-per-device", type=int, default=0, metavar="N", help="at a time, at most; 0: as many as it holds"
    )
    parser.add_argument(
        "--scaling", choices=["batch", "linear"], default="batch",
        help="other devices than published: keep the images per iteration, or per device (lr and schedule follow)",
    )  # fmt: skip
    parser.add_argument(
        "--tiny", default="", metavar="DATA", help="a few iterations on 'shapes' or a COCO or VOC folder"
    )
    parser.add_argument("--data", default="", metavar="FOLDER", help="your own data in place of the config's")
    parser.add_argument("--skip-bad", action="store_true", help="leave out what of your data cannot be used")
    parser.add_argument("--lr-factor", type=float, default=1.0, metavar="F", help="multiply the learning rate")
    parser.add_argument(
        "--hold-out", type=share, default=0.0, metavar="SHARE", help="test on a part of the training set"
    )
    parser.add_argument(
        "--checkpoint-minutes", type=float, default=10.0, metavar="M", help="save at least so often (0: by iterations)"
    )
    parser.add_argument("--weights", metavar="FILE", help="the same as MODEL.WEIGHTS FILE, a path or an address")
    parser.add_argument("--out", metavar="DIR", help="the same as OUTPUT_DIR DIR")
    parser.add_argument(
        "opts", nargs="*", metavar="KEY=VALUE", help="config values, also as Detectron2's KEY VALUE pairs"
    )
    return parser


def pairs(given: argparse.Namespace) -> list[str]:
    """Return the overrides as Detectron2 has them, KEY and VALUE in turn; what stands last counts."""
    said: list[str] = []
    for word in given.opts:
        whole = "=" in word and len(said) % 2 == 0
        said += word.split("=", 1) if whole else [word]
    if len(said) % 2:
        raise InputError(f"KEY VALUE must come in pairs: {' '.join(given.opts)}")
    named = {"MODEL.WEIGHTS": given.weights, "OUTPUT_DIR": given.out}
    return [*said, *(part for key, value in named.items() if value for part in (key, value))]


def share(text: str) -> float:
    """Read a share of the training images, above 0 and at most one half."""
    if not 0 < (value := float(text)) <= 0.5:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 0.5")
    return value


def main() -> int:
    """Parse, then import and run."""
    arguments = parser().parse_intermixed_args()
    arguments.opts = pairs(arguments)
    from transfer.frameworks.detectron2.run import main as run

    return run(arguments)


if __name__ == "__main__":
    cli(main)
