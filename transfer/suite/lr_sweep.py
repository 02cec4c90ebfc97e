"""Choose a checkpoint's learning rate on a held-out part of the training set; every rate that was tried is reported.

One fixed rate can move a method by 20 points (mmselfsup: SimSiam on VOC12), so a comparison at one rate says something about
the rate. The test set plays no part in the choice.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.errors import InputError

HOLD_OUT = 0.1
HOLD_OUT_TINY = 0.25  # of a few dozen images


def parse(text: str) -> tuple[float, ...]:
    """Read factors of the published learning rate, such as ``0.3,1,3``; raise InputError for what are not some."""
    try:
        factors = tuple(float(part) for part in text.split(","))
    except ValueError:
        factors = ()
    if len(set(factors)) != len(factors) or len(factors) < 2 or not all(0 < factor < math.inf for factor in factors):
        raise InputError(f"--lr-sweep {text}: give two or more different factors of the published lr, such as 0.3,1,3")
    return factors


def sweep(
    factors: Sequence[float], measure: Callable[[float], Mapping[str, Any]], headline: str, hold_out: float
) -> dict[str, Any]:
    """Measure every factor and return all scores and the chosen factor.

    ``measure`` returns what ``evaluation.json`` holds. A rate that failed (the loss diverged) is reported with the reason.
    Of equal scores the one nearest the published rate is chosen. Raises InputError when all failed.
    """
    runs: list[dict[str, Any]] = []
    for factor in factors:
        try:
            evaluation = measure(factor)
        except InputError as error:
            runs.append({"factor": factor, "score": None, "error": str(error)})
            continue
        effective = evaluation.get("recipe", {}).get("effective", {})
        score = mean_of(evaluation["metrics"], headline)
        runs.append({
            "factor": factor, "lr": effective.get("lr"), "score": score,
            "metrics": {name: value for name, value in evaluation["metrics"].items() if "-" not in name},
            "seconds": evaluation.get("seconds"),
        })  # fmt: skip
    if all("error" in run for run in runs):
        raise InputError(f"every learning rate of the sweep failed; at the first: {runs[0]['error']}")
    able = [run for run in runs if "error" not in run]
    best = max(able, key=lambda run: (_number(run["score"]), -abs(math.log(run["factor"]))))
    return {"metric": headline, "hold_out": hold_out, "chosen": best["factor"], "runs": runs}


def mean_of(metrics: Mapping[str, float | None], headline: str) -> float | None:
    """Return the headline metric; with several held-out sets (``SET/bbox/AP``) its mean over those that have a value."""
    found = [value for name, value in metrics.items() if name == headline or name.endswith(f"/{headline}")]
    values = [value for value in found if value is not None]
    return sum(values) / len(values) if values else None


def _number(score: float | None) -> float:
    return -math.inf if score is None else score
