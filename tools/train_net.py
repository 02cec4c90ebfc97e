"""Train or evaluate a detector: python tools/train_net.py --config-file FILE [--num-gpus N] [KEY VALUE ...]"""

import argparse

from core.errors import cli


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
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys and values, last")
    return parser


def main() -> int:
    """Parse, then import and run."""
    arguments = parser().parse_args()
    if len(arguments.opts) % 2:
        raise ValueError(f"KEY VALUE must come in pairs: {' '.join(arguments.opts)}")
    from transfer.detection.run import main as run

    return run(arguments)


if __name__ == "__main__":
    cli(main)
