"""Measure one checkpoint on one benchmark, once: convert, fine-tune, test, and write DIR/result.json."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

import checkout  # noqa: F401

from core.errors import InputError, cli

if TYPE_CHECKING:
    from transfer.suite.trial import Job


def default_folder(job: "Job") -> Path:
    """Return ``results/BENCHMARK/CHECKPOINT--trialN``, with the file's sha256 and what departs from the protocol."""
    from core import files

    digest = files.sha256(job.checkpoint)[:8] if job.checkpoint.is_file() else ""
    said = job.departure.said()
    marks = "".join(f"--{re.sub(r'[^A-Za-z0-9.=,]+', '-', option.strip('-'))}" for option in said)
    return Path("results") / job.row.replace(":", "-") / f"{job.checkpoint.stem}-{digest}--trial{job.trial}{marks}"


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?", metavar="CHECKPOINT", help="a path or an address")
    parser.add_argument("--benchmark", metavar="NAME", help="a row of configs/benchmarks, or FILE.yaml:NAME")
    parser.add_argument(
        "--job", type=Path, metavar="FILE", help="a trial that a suite wrote down, instead of all other options"
    )
    parser.add_argument("--trial", type=int, default=0, help="counts from 0 and sets the seed")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of this one trial; by default below results/")
    parser.add_argument("--num-gpus", type=int, default=1, metavar="N", help="devices; without a GPU, processes")
    parser.add_argument(
        "--images-per-device", type=int, default=0, metavar="N", help="at a time, at most; 0: as many as it holds"
    )
    parser.add_argument(
        "--scaling", choices=["batch", "linear"], default="batch",
        help="other devices than published: keep the images per iteration, or per device (lr and schedule follow)",
    )  # fmt: skip
    parser.add_argument(
        "--tiny", nargs="?", const="shapes", default="", metavar="DATA",
        help="a smoke run of a few iterations on the embedded set, or on a folder in COCO or VOC layout",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="your own images and annotations (docs/your-data.md)"
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out what of your data cannot be used, and say so"
    )
    parser.add_argument(
        "--lr-sweep",
        default="",
        metavar="F,F,...",
        help="choose among these factors of the lr on held-out training images",
    )
    parser.add_argument("--source", default="auto", help="the checkpoint's dialect; found from its tensors by default")
    parser.add_argument("--label", default="", help="what reports call the benchmark; its name by default")
    parser.add_argument(
        "--name", default="", help="what reports call the checkpoint; how it was made, or its file name, by default"
    )
    parser.add_argument("--method", default="", help="pre-training method, if the file does not say")
    parser.add_argument("--branches", default="", help="its branches, separated by commas")
    parser.add_argument("--notes", default="")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config values for the framework")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="the rest goes to the framework")
    return parser


def settle(given: argparse.Namespace) -> None:
    """Give back what ``--tiny`` took for its folder: the checkpoint, or a config value."""
    checkpoint = given.checkpoint and str(given.checkpoint)
    if "=" in given.tiny:
        given.tiny, given.overrides = "shapes", [given.tiny, *given.overrides]
    elif given.tiny not in ("", "shapes") and (checkpoint is None or "=" in checkpoint):
        given.overrides = [checkpoint, *given.overrides] if checkpoint else given.overrides
        given.tiny, given.checkpoint = "shapes", Path(given.tiny)


def job(given: argparse.Namespace) -> "Job":
    """Return the trial that the options describe, or the one in the file that a suite wrote."""
    from core import bounds, config
    from transfer.suite import lr_sweep
    from transfer.suite.trial import Job

    settle(given)
    if given.job:
        return config.parse(Job, bounds.json_value(given.job, "a job", bounds.TEXT), given.job)
    if given.checkpoint is None or given.benchmark is None:
        raise InputError("give a CHECKPOINT and --benchmark NAME (or --job FILE of a suite)")
    same = (
        "checkpoint",
        "benchmark",
        "trial",
        "label",
        "name",
        "method",
        "notes",
        "source",
        "tiny",
        "data",
        "skip_bad",
    )
    made = Job(
        **{key: getattr(given, key) for key in (*same, "images_per_device", "scaling")},
        out=given.out or Path(),
        branches=tuple(filter(None, given.branches.split(","))),
        options=(*given.overrides, *given.options),
        devices=given.num_gpus,
        lr_sweep=lr_sweep.parse(given.lr_sweep) if given.lr_sweep else (),
    )
    return made if given.out else made.model_copy(update={"out": default_folder(made)})


def main() -> None:
    """Parse, measure, and print the metrics and where the result is."""
    given = parser().parse_intermixed_args()
    from transfer.suite import process  # here: --help must not wait
    from transfer.suite.trial import run_trial

    wanted = job(given)
    with process.sigterm_ends_cleanly():
        result = run_trial(wanted)
    shown = {
        name: value for name, value in result.metrics.items() if name in result.protocol.metrics or "-" not in name
    }
    for name, value in shown.items():  # the classes' own scores are in the file
        print(f"{name:>24} {'no value' if value is None else f'{value:8.2f}'}")
    print(f"{wanted.out / 'result.json'}")


if __name__ == "__main__":
    cli(main)
