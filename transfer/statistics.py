"""What a handful of trials can say: intervals, corrected differences to a baseline, and the gaps they could detect."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, special, stats

LEVEL = 0.95
POWER = 0.8


@dataclass(frozen=True)
class Summary:
    """Mean, sample standard deviation (n - 1) and 95 % t-interval; the last three are None for a single value."""

    count: int
    mean: float
    std: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Difference:
    """A mean minus the baseline's mean, by Welch's test.

    ``low``, ``high`` and ``p`` are uncorrected; the ``corrected_*`` ones are Holm's, valid for the whole table at once.
    All are None where nothing can be tested: fewer than two trials on a side, or no spread at all.
    ``effect`` is Hedges' g; ``detectable`` the smallest true gap found with 80 % power at this spread and count.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    error: float = math.nan
    freedom: float = math.nan
    effect: float | None = None
    detectable: float | None = None
    corrected_low: float | None = None
    corrected_high: float | None = None
    corrected_p: float | None = None

    @property
    def verdict(self) -> str:
        """Return ``better`` or ``worse`` only where the corrected interval excludes zero, else ``undecided``."""
        if self.corrected_low is not None and self.corrected_low > 0:
            return "better"
        if self.corrected_high is not None and self.corrected_high < 0:
            return "worse"
        return "undecided"


def summarise(values: Sequence[float]) -> Summary:
    """Summarise at least one value."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Summary(count, mean)
    std = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * std / math.sqrt(count)
    return Summary(count, mean, std, mean - half, mean + half)


def difference(values: Sequence[float], baseline: Sequence[float]) -> Difference:
    """Compare two independent samples by Welch's t-test (Biometrika 34, 1947)."""
    mean = float(np.mean(values) - np.mean(baseline))
    if min(len(values), len(baseline)) < 2:
        return Difference(mean)
    ours, theirs = (float(np.var(v, ddof=1)) / len(v) for v in (values, baseline))
    error = math.sqrt(ours + theirs)
    if error <= 1e-12 * max(1.0, abs(float(np.mean(baseline)))):  # equal to rounding: trials that are not repetitions
        return Difference(mean)
    freedom = (ours + theirs) ** 2 / (ours**2 / (len(values) - 1) + theirs**2 / (len(baseline) - 1))
    low, high = _interval(mean, error, freedom, 1 - LEVEL)
    p = float(2 * stats.t.sf(abs(mean) / error, freedom))
    effect = hedges_g(values, baseline)
    return Difference(mean, low, high, p, error, freedom, effect, detectable_gap(error, freedom))


def _interval(mean: float, error: float, freedom: float, alpha: float) -> tuple[float, float]:
    half = float(stats.t.isf(alpha / 2, freedom)) * error
    return mean - half, mean + half


def hedges_g(values: Sequence[float], baseline: Sequence[float]) -> float:
    """Return the standardised difference with the exact small-sample correction (Hedges 1981, eq. 6e)."""
    freedom = len(values) + len(baseline) - 2
    squares = (len(values) - 1) * np.var(values, ddof=1) + (len(baseline) - 1) * np.var(baseline, ddof=1)
    d = (np.mean(values) - np.mean(baseline)) / math.sqrt(squares / freedom)
    log_correction = special.gammaln(freedom / 2) - special.gammaln((freedom - 1) / 2) - math.log(freedom / 2) / 2
    return float(d * math.exp(log_correction))


def detectable_gap(error: float, freedom: float, power: float = POWER, alpha: float = 1 - LEVEL) -> float:
    """Return the true difference that a two-sided t-test with this standard error finds with probability ``power``."""
    critical = float(stats.t.isf(alpha / 2, freedom))

    def missing(noncentrality: float) -> float:  # noncentral t squared is noncentral F: both tails in one call
        return float(stats.ncf.sf(critical**2, 1, freedom, noncentrality**2)) - power

    return float(optimize.brentq(missing, 1e-3, 10 * critical + 10)) * error


def holm(differences: Sequence[Difference], alpha: float = 1 - LEVEL) -> list[Difference]:
    """Correct a table of differences for their number (Holm 1979).

    Each interval has the level at which Holm's step-down tested its hypothesis, and those after the first that is kept
    have that one's level, so that an interval excludes zero exactly when its corrected p is below ``alpha``.
    """
    corrected = list(differences)
    testable = [i for i, d in enumerate(differences) if d.p is not None]
    order = sorted(testable, key=lambda i: differences[i].p or 0.0)
    p_so_far, divisor = 0.0, len(order)
    for rank, index in enumerate(order):
        found = differences[index]
        assert found.p is not None
        if p_so_far < alpha:  # all before this one were rejected
            divisor = len(order) - rank
        p_so_far = max(p_so_far, min(1.0, (len(order) - rank) * found.p))
        low, high = _interval(found.mean, found.error, found.freedom, alpha / divisor)
        corrected[index] = replace(found, corrected_low=low, corrected_high=high, corrected_p=p_so_far)
    return corrected
