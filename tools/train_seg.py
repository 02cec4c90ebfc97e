"""Train and measure a segmentation network: python tools/train_seg.py CONFIG --weights FILE --work-dir DIR"""

import argparse
from pathlib import Path

from core.errors import cli


def main() -> None:
    """Parse MMSegmentation's command line, with ``--weights`` and ``--seed`` added, and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="a native MMSegmentation config")
    parser.add_argument("--work-dir", type=Path, help="where everything is written (work_dirs/<config name>)")
    parser.add_argument("--weights", type=Path, help="backbone, from tools/convert_to_mmseg.py (none: random)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in the work folder")
    parser.add_argument("--amp", action="store_true", help="mixed precision (CUDA only)")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm"], default="none", help="pytorch: torchrun")
    parser.add_argument("--seed", type=int, help="seed of everything random")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="override config values")
    arguments = parser.parse_args()
    from transfer.segmentation.runner import run  # here: torch and MMSegmentation load for seconds, --help must not

    run(**vars(arguments))


if __name__ == "__main__":
    cli(main)
