"""What a handful of trials can say: intervals, corrected differences to a baseline, detectable gaps, trials needed, ranks.

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
    ``effect`` is Hedges' g; ``level`` the error rate at which the test of this difference was made, after correction;
    ``welch_p`` is what Welch's test says of a paired difference, for comparison only: verdicts never choose between tests.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    error: float = math.nan
    freedom: float = math.nan
    effect: float | None = None
    corrected_low: float | None = None
    corrected_high: float | None = None
    corrected_p: float | None = None
    paired: bool = False
    welch_p: float | None = None
    sides: tuple[tuple[float, int], ...] = ()  # of Welch's test: variance of the mean and number of trials
    level: float = 1 - LEVEL
    percent: bool = False
    look: int = 0  # the number of trials at which a sequential test looked; 0 without

    @property
    def detectable(self) -> float | None:
        """Return the true gap that this many trials of this spread find with 80 % power at the level of this test."""
        if self.p is None:
            return None
        if self.paired:
            return noncentrality(self.freedom, POWER, self.level) * self.error
        (ours, n), (theirs, m) = self.sides
        return welch_noncentrality(n, m, round(ours / (ours + theirs), 2), POWER, self.level) * self.error

    @property
    def verdict(self) -> str:
        """Return ``better`` or ``worse`` only where the corrected interval excludes zero, else ``undecided``."""
        if self.corrected_low is not None and self.corrected_low > 0:
            return "better"
        if self.corrected_high is not None and self.corrected_high < 0:
            return "worse"
        return "undecided"


def summarise(values: Sequence[float]) -> Summary:
    """Summarise at least one value; the interval of percentages ends at 0 and 100."""
    mean, count = _mean(values), len(values)
    if count < 2:
        return Summary(count, mean)
    std = math.sqrt(_variance(values))
    half = _critical(count - 1, 1 - LEVEL) * std / math.sqrt(count)
    low, high = mean - half, mean + half
    return (
        Summary(count, mean, std, max(low, 0.0), min(high, 100.0))
        if _percent(values)
        else Summary(count, mean, std, low, high)
    )


def _percent(values: Sequence[float]) -> bool:
    return all(0 <= value <= 100 for value in values)


def difference(values: Sequence[float], baseline: Sequence[float], paired: bool = False) -> Difference:
    """Compare two samples by Welch's t-test (Biometrika 34, 1947), or pair by pair (Student, 1908).

    ``paired`` says that the trials at the same place share what moves both alike (``pairs_pay``); the lengths must agree.
    Of percentages no interval goes beyond -100 or 100.
    """
    mean = _mean(values) - _mean(baseline)
    if min(len(values), len(baseline)) < 2:
        return Difference(mean)
    sides = tuple((_variance(side) / len(side), len(side)) for side in (values, baseline))
    welch_error, welch_freedom = _welch(sides)
    error, freedom = _of_pairs(values, baseline) if paired else (welch_error, welch_freedom)
    tiny = 1e-12 * max(1.0, abs(_mean(baseline)))
    if error <= tiny:  # equal to rounding: trials that are not repetitions
        return Difference(mean, paired=paired)
    raw = Difference(
        mean,
        p=_two_sided(mean / error, freedom),
        error=error,
        freedom=freedom,
        effect=hedges_g(values, baseline) if welch_error > tiny else None,
        paired=paired,
        welch_p=_two_sided(mean / welch_error, welch_freedom) if paired and welch_error > tiny else None,
        sides=sides,
        percent=_percent(values) and _percent(baseline),
    )
    low, high = _interval(raw, 1 - LEVEL)
    return replace(raw, low=low, high=high)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _welch(sides: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Return the standard error of the difference and its degrees of freedom (Welch-Satterthwaite)."""
    total = sum(variance for variance, _ in sides)
    if total == 0:
        return 0.0, math.nan
    return math.sqrt(total), total**2 / sum(variance**2 / (count - 1) for variance, count in sides)


def _of_pairs(values: Sequence[float], baseline: Sequence[float]) -> tuple[float, float]:
    gaps = [ours - theirs for ours, theirs in zip(values, baseline, strict=True)]
    return math.sqrt(_variance(gaps) / len(gaps)), len(gaps) - 1


@functools.lru_cache(maxsize=4096)
def _critical(freedom: float, alpha: float) -> float:
    """Return the t that |t| exceeds with probability ``alpha``."""
    return -float(special.stdtrit(freedom, alpha / 2))


def _two_sided(t: float, freedom: float) -> float:
    return 2 * float(special.stdtr(freedom, -abs(t)))


def _interval(found: Difference, alpha: float) -> tuple[float, float]:
    half = _critical(found.freedom, alpha) * found.error
    edge = 100.0 if found.percent else math.inf
    return max(found.mean - half, -edge), min(found.mean + half, edge)


def hedges_g(values: Sequence[float], baseline: Sequence[float]) -> float:
    """Return the standardised difference with the exact small-sample correction (Hedges 1981, eq. 6e)."""
    freedom = len(values) + len(baseline) - 2
    squares = (len(values) - 1) * _variance(values) + (len(baseline) - 1) * _variance(baseline)
    d = (_mean(values) - _mean(baseline)) / math.sqrt(squares / freedom)
    return d * math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2) - math.log(freedom / 2) / 2)


@functools.lru_cache(maxsize=4096)
def noncentrality(freedom: float, power: float, alpha: float) -> float:
    """Return the true difference, in standard errors, that a two-sided t-test finds with probability ``power``."""
    critical = _critical(freedom, alpha)

    def found(distance: float) -> float:  # noncentral t squared is noncentral F: both tails in one call
        return 1 - float(special.ncfdtr(1, freedom, distance**2, critical**2))

    return _root(lambda value: found(value) - power, 0.0, 10 * critical + 10)


NODES, WEIGHTS = (values / 2 for values in np.polynomial.legendre.leggauss(40))  # of probabilities, from -1/2 to 1/2


@functools.lru_cache(maxsize=4096)
def welch_noncentrality(n: int, m: int, share: float, power: float, alpha: float) -> float:
    """Return the true difference, in true standard errors, that Welch's test finds with probability ``power``.

    ``share`` is the first side's part of the squared standard error. Welch's degrees of freedom are estimated, which costs
    power where trials are few; so the power is the mean over both variances' distributions.
    """
    quantile = NODES + 0.5
    ours, theirs = (
        part * 2 * special.gammaincinv((count - 1) / 2, quantile) / (count - 1)
        for part, count in ((share, n), (1 - share, m))
    )
    total = ours[:, None] + theirs[None, :]
    freedom = total**2 / (ours[:, None] ** 2 / (n - 1) + theirs[None, :] ** 2 / (m - 1))
    critical = -special.stdtrit(freedom, alpha / 2) * np.sqrt(total)
    weights = WEIGHTS[:, None] * WEIGHTS[None, :]

    def found(distance: float) -> float:
        return float((weights * (special.ndtr(distance - critical) + special.ndtr(-distance - critical))).sum())

    return _root(lambda value: found(value) - power, 0.0, 10 * float(critical.max()) + 10)


def gap_found(spread: float, trials: int, comparisons: int = 1, paired: bool = False) -> float:
    """Return the true gap that ``trials`` a cell find with 80 % power among that many comparisons (Holm's first step).

    ``spread`` is the standard deviation of trials, for pairs that of their differences.
    """
    level = (1 - LEVEL) / comparisons
    if paired:
        return noncentrality(trials - 1, POWER, level) * spread / math.sqrt(trials)
    return welch_noncentrality(trials, trials, 0.5, POWER, level) * spread * math.sqrt(2 / trials)


def trials_needed(
    gap: float, spread: float, comparisons: int = 1, paired: bool = False, most: int = 1000
) -> int | None:
    """Return the fewest trials a cell, at least two, that find ``gap`` with 80 % power; None for more than ``most``."""
    if gap <= 0 or gap_found(spread, most, comparisons, paired) > gap:
        return None
    low, high = 1, most  # low is too few
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if gap_found(spread, middle, comparisons, paired) <= gap else (middle, high)
    return high


CERTAIN = 0.99  # that the seeds move trials alike at least as much as pairing needs


def pairs_pay(table: Sequence[Sequence[float]], alpha: float) -> bool:
    """Tell whether trials of equal seeds are to be compared in pairs, from a checkpoints x seeds table of one benchmark.

    Pairs halve the degrees of freedom, which pays only where the seeds move all checkpoints alike: where the correlation
    is above 1 - (t of 2n - 2 degrees / t of n - 1 degrees)^2 at the level of the test. Its lower bound is measured over all
    checkpoints, each scaled to its own spread, by the F of a two-way table (for two rows (1 + r) / (1 - r) is F with n - 2
    and n - 2 degrees). The rule is fixed before any mean is seen; means are independent of what it looks at.
    """
    seeds = len(table[0]) if table else 0
    if seeds < 3:
        return False
    scaled = [[(v - _mean(row)) / math.sqrt(spread) for v in row] for row in table if (spread := _variance(row)) > 0]
    rows = len(scaled)
    if rows < 2:
        return False
    values = np.array(scaled)
    between = float(rows * (values.mean(axis=0) ** 2).sum())
    within = float(((values - values.mean(axis=0)) ** 2).sum()) / (rows - 1)
    bound = between / max(within, 1e-300) / float(special.fdtri(seeds - 2, (rows - 1) * (seeds - 2), CERTAIN))
    correlation = (bound - 1) / (bound + rows - 1)
    return correlation > 1 - (_critical(2 * seeds - 2, alpha) / _critical(seeds - 1, alpha)) ** 2


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
        corrected[index] = _at(found, alpha / divisor, p_so_far)
    return corrected


def _at(found: Difference, level: float, p: float) -> Difference:
    low, high = _interval(found, level)
    return replace(found, corrected_low=low, corrected_high=high, corrected_p=p, level=level)


def looks(budget: int, first: int = 3) -> tuple[int, ...]:
    """Return the numbers of trials a cell at which comparisons are looked at, each half as much again: 3, 5, 8, 12, ..."""
    found = [min(first, budget)]
    while found[-1] < budget:
        found.append(min(budget, math.ceil(found[-1] * 1.5)))
    return tuple(found)


def sequential(
    pairs: Sequence[tuple[Sequence[float], Sequence[float]]], at: Sequence[int], alpha: float = 1 - LEVEL
) -> list[Difference]:
    """Compare samples that may still grow, each with its baseline, and stop at the first look that decides.

    ``at`` are the looks (``looks``), fixed before the first one. A look takes the first so many trials of both sides and
    tests what is undecided by Holm's procedure at ``alpha`` over the number of looks; what an earlier look decided stays as
    it was. The sum over the looks bounds the chance of any false verdict by ``alpha``, however often one stops.
    """
    found = [Difference(_mean(ours) - _mean(theirs)) for ours, theirs in pairs]
    for count in at:
        open_ = [
            i for i, (x, y) in enumerate(pairs) if found[i].verdict == "undecided" and min(len(x), len(y)) >= count
        ]
        if not open_:
            break
        waiting = sum(d.verdict == "undecided" for d in found)
        raw = [difference(pairs[i][0][:count], pairs[i][1][:count]) for i in open_]
        left = alpha / len(at) * len(open_) / waiting  # those that lack trials keep their share
        for index, d in zip(open_, holm(raw, left), strict=True):
            p = None if d.corrected_p is None else min(1.0, d.corrected_p * alpha / left)
            found[index] = replace(d, corrected_p=p, look=count)
    return found


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
