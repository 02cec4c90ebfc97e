"""What a handful of trials can say: intervals, corrected differences to a baseline, detectable gaps, average ranks.

Distributions are those of ``scipy.special``: ``scipy.stats`` alone would double the time that a report takes to start.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

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
    """A mean minus the baseline's mean, by Welch's test, or by the paired one where ``paired`` says so.

    ``low``, ``high`` and ``p`` are uncorrected; the ``corrected_*`` ones are Holm's, valid for the whole table at once.
    All are None where nothing can be tested: fewer than two trials on a side, or no spread at all.
    ``effect`` is Hedges' g; ``detectable`` the smallest true gap found with 80 % power at this spread and count;
    ``welch_p`` is what Welch's test says of a paired difference, for comparison only: verdicts never choose between tests.
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
    paired: bool = False
    welch_p: float | None = None

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
    mean, count = _mean(values), len(values)
    if count < 2:
        return Summary(count, mean)
    std = math.sqrt(_variance(values))
    half = _critical(count - 1, 1 - LEVEL) * std / math.sqrt(count)
    return Summary(count, mean, std, mean - half, mean + half)


def difference(values: Sequence[float], baseline: Sequence[float], paired: bool = False) -> Difference:
    """Compare two samples by Welch's t-test (Biometrika 34, 1947), or pair by pair (Student, 1908).

    ``paired`` says that the trials at the same place share everything but what is compared; the lengths must agree.
    """
    mean = _mean(values) - _mean(baseline)
    if min(len(values), len(baseline)) < 2:
        return Difference(mean)
    welch_error, welch_freedom = _welch(values, baseline)
    error, freedom = _of_pairs(values, baseline) if paired else (welch_error, welch_freedom)
    tiny = 1e-12 * max(1.0, abs(_mean(baseline)))
    if error <= tiny:  # equal to rounding: trials that are not repetitions
        return Difference(mean, paired=paired)
    low, high = _interval(mean, error, freedom, 1 - LEVEL)
    return Difference(
        mean,
        low,
        high,
        _two_sided(mean / error, freedom),
        error,
        freedom,
        hedges_g(values, baseline) if welch_error > tiny else None,
        detectable_gap(error, freedom),
        paired=paired,
        welch_p=_two_sided(mean / welch_error, welch_freedom) if paired and welch_error > tiny else None,
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _welch(values: Sequence[float], baseline: Sequence[float]) -> tuple[float, float]:
    """Return the standard error of the difference and its degrees of freedom (Welch-Satterthwaite)."""
    ours, theirs = (_variance(v) / len(v) for v in (values, baseline))
    if ours + theirs == 0:
        return 0.0, math.nan
    freedom = (ours + theirs) ** 2 / (ours**2 / (len(values) - 1) + theirs**2 / (len(baseline) - 1))
    return math.sqrt(ours + theirs), freedom


def _of_pairs(values: Sequence[float], baseline: Sequence[float]) -> tuple[float, float]:
    gaps = [ours - theirs for ours, theirs in zip(values, baseline, strict=True)]
    return math.sqrt(_variance(gaps) / len(gaps)), len(gaps) - 1


@functools.lru_cache(maxsize=4096)
def _critical(freedom: float, alpha: float) -> float:
    """Return the t that |t| exceeds with probability ``alpha``."""
    return -float(special.stdtrit(freedom, alpha / 2))


def _two_sided(t: float, freedom: float) -> float:
    return 2 * float(special.stdtr(freedom, -abs(t)))


def _interval(mean: float, error: float, freedom: float, alpha: float) -> tuple[float, float]:
    half = _critical(freedom, alpha) * error
    return mean - half, mean + half


def hedges_g(values: Sequence[float], baseline: Sequence[float]) -> float:
    """Return the standardised difference with the exact small-sample correction (Hedges 1981, eq. 6e)."""
    freedom = len(values) + len(baseline) - 2
    squares = (len(values) - 1) * _variance(values) + (len(baseline) - 1) * _variance(baseline)
    d = (_mean(values) - _mean(baseline)) / math.sqrt(squares / freedom)
    return d * math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2) - math.log(freedom / 2) / 2)


def detectable_gap(error: float, freedom: float, power: float = POWER, alpha: float = 1 - LEVEL) -> float:
    """Return the true difference that a two-sided t-test with this standard error finds with probability ``power``."""
    return _noncentrality(freedom, power, alpha) * error


@functools.lru_cache(maxsize=4096)
def _noncentrality(freedom: float, power: float, alpha: float) -> float:
    critical = _critical(freedom, alpha)

    def found(noncentrality: float) -> float:  # noncentral t squared is noncentral F: both tails in one call
        return 1 - float(special.ncfdtr(1, freedom, noncentrality**2, critical**2))

    return _root(lambda value: found(value) - power, 0.0, 10 * critical + 10)


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Halve an interval, at whose ends the function has either sign, down to rounding."""
    while (middle := (low + high) / 2) not in (low, high) and high - low > 1e-13 * high:
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return middle


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


@dataclass(frozen=True)
class Ranking:
    """Average ranks of checkpoints over benchmarks, 1 the best; ``p`` is Friedman's, that all are the same.

    Two checkpoints whose ranks differ by less than ``critical`` (Nemenyi) are not told apart; ``groups`` holds the
    largest such sets, as indices in order of rank.
    """

    ranks: tuple[float, ...]
    benchmarks: int
    p: float
    critical: float
    groups: tuple[tuple[int, ...], ...]


def ranking(table: Sequence[Sequence[float]]) -> Ranking | None:
    """Rank the columns of a benchmarks x checkpoints table, higher values first (Demsar, JMLR 7, 2006).

    None for fewer than two benchmarks or three checkpoints, where ranks say no more than the differences do.
    """
    count, width = len(table), len(table[0]) if table else 0
    if count < 2 or width < 3:
        return None
    ranks = np.array([_ranks(row) for row in table])
    means = ranks.mean(axis=0)
    # Friedman's statistic with the correction for ties, in the form that needs no case for them
    spread = float(((ranks - (width + 1) / 2) ** 2).sum()) / (width - 1)
    statistic = count**2 * float(((means - (width + 1) / 2) ** 2).sum()) / spread if spread else 0.0
    critical = nemenyi(width) * math.sqrt(width * (width + 1) / (6 * count))
    p = float(special.chdtrc(width - 1, statistic))
    return Ranking(tuple(map(float, means)), count, p, critical, _groups(means, critical))


def _ranks(values: Sequence[float]) -> list[float]:
    """Rank from the highest, ties sharing the mean of their places."""
    return [sum(o > v for o in values) + (sum(o == v for o in values) + 1) / 2 for v in values]


def _groups(means: np.ndarray, critical: float) -> tuple[tuple[int, ...], ...]:
    order = [int(index) for index in np.argsort(means, kind="stable")]
    found: list[tuple[int, ...]] = []
    for start in range(len(order)):
        group = tuple(index for index in order[start:] if means[index] - means[order[start]] < critical)
        if len(group) > 1 and not (found and set(group) <= set(found[-1])):
            found.append(group)
    return tuple(found)


@functools.cache
def nemenyi(count: int, alpha: float = 1 - LEVEL) -> float:
    """Return the critical value for ``count`` ranks: the studentised range at infinite freedom, over the root of 2."""
    grid = np.linspace(-9.0, 9.0, 1801)
    density = np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi) * (grid[1] - grid[0])

    def below(width: float) -> float:
        return float(count * (density * (special.ndtr(grid) - special.ndtr(grid - width)) ** (count - 1)).sum())

    return _root(lambda width: below(width) - (1 - alpha), 0.0, 20.0) / math.sqrt(2)
