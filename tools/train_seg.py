"""Train and measure a segmentation network: python tools/train_seg.py CONFIG --weights FILE --work-dir DIR"""

import argparse
from pathlib import Path

import checkout  # noqa: F401

from core.errors import cli


def share(text: str) -> float:
    """Read a share of the training images, above 0 and at most one half."""
    if not 0 < (value := float(text)) <= 0.5:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 0.5")
    return value


def parser() -> argparse.ArgumentParser:
    """Describe MMSegmentation's command line, with ``--weights``, ``--seed`` and plain ``key=value`` added."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="a native MMSegmentation config")
    parser.add_argument("--work-dir", "--out", type=Path, help="where everything is written (work_dirs/<config name>)")
    parser.add_argument(
        "--weights", type=Path, help="backbone, from tools/convert_to_mmseg.py: a path or an address (none: random)"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in the work folder")
    parser.add_argument("--amp", action="store_true", help="mixed precision (CUDA only)")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm"], default="none", help="pytorch: torchrun")
    parser.add_argument("--seed", type=int, help="seed of everything random")
    parser.add_argument("--tiny", default="", metavar="DATA", help="a few iterations on 'shapes' or a VOC folder")
    parser.add_argument("--data", default="", metavar="FOLDER", help="your own data in place of the config's")
    parser.add_argument("--skip-bad", action="store_true", help="leave out what of your data cannot be used")
    parser.add_argument("--lr-factor", type=float, default=1.0, metavar="F", help="multiply the learning rate")
    parser.add_argument(
        "--hold-out", type=share, default=0.0, metavar="SHARE", help="test on a part of the training set"
    )
    parser.add_argument(
        "--checkpoint-minutes", type=float, default=10.0, metavar="M", help="save at least so often (0: by iterations)"
    )
    parser.add_argument(
        "--images-per-device", type=int, default=0, metavar="N", help="at a time, at most; 0: as many as it holds"
    )
    parser.add_argument(
        "--scaling", choices=["batch", "linear"], default="batch",
        help="other devices than published: keep the images per iteration, or per device (lr and schedule follow)",
    )  # fmt: skip
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="override config values")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="the same as --cfg-options")
    return parser


def main() -> None:
    """Parse, then import and run."""
    given = vars(parser().parse_intermixed_args())
    given["cfg_options"] = [*given["cfg_options"], *given.pop("overrides")]
    from transfer.frameworks.mmseg.run import run  # here: torch and MMSegmentation load for seconds, --help must not

    run(**given)


if __name__ == "__main__":
    cli(main)
