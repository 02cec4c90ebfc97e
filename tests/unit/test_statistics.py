"""The statistics agree with SciPy's own tests and with slow transcriptions, and never claim more than they may."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from transfer.statistics import Difference, detectable_gap, difference, hedges_g, holm, summarise

A = [57.0, 57.3, 56.8, 57.1, 57.2]
B = [56.5, 56.9, 56.6, 56.4, 56.8]


def test_summary_equals_the_textbook_interval():
    found = summarise(A)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(A), scale=stats.sem(A))
    assert (found.count, found.mean) == (5, pytest.approx(57.08))
    assert found.std == pytest.approx(math.sqrt(sum((a - 57.08) ** 2 for a in A) / 4))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_one_value_has_no_spread():
    found = summarise([3.5])
    assert (found.count, found.mean, found.std, found.low, found.high) == (1, 3.5, None, None, None)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (5, 3), (4, 9)])
def test_difference_equals_scipys_welch_test(n, m):
    generator = np.random.default_rng(n * m)
    ours, theirs = generator.normal(1, 0.3, n), generator.normal(0, 1.0, m)
    expected = stats.ttest_ind(ours, theirs, equal_var=False)
    interval = expected.confidence_interval(0.95)
    found = difference(list(ours), list(theirs))
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.freedom == pytest.approx(expected.df, rel=1e-9)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_hedges_g_equals_the_pooled_difference_times_the_exact_correction():
    pooled = math.sqrt((4 * np.var(A, ddof=1) + 4 * np.var(B, ddof=1)) / 8)
    correction = math.gamma(4) / (math.sqrt(4) * math.gamma(3.5))
    assert hedges_g(A, B) == pytest.approx((np.mean(A) - np.mean(B)) / pooled * correction, rel=1e-12)


@pytest.mark.parametrize(("ours", "theirs"), [([1.0], [2.0, 3.0]), ([1.0, 2.0], [3.0]), ([2.0, 2.0], [1.0, 1.0])])
def test_a_single_trial_or_identical_trials_are_never_better(ours, theirs):
    found = holm([difference(ours, theirs)])[0]
    assert found.mean == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert (found.p, found.corrected_p, found.low, found.verdict) == (None, None, None, "undecided")


def test_detectable_gap_is_found_with_the_power_asked_for_by_simulation():
    error, n = 0.2 * math.sqrt(2 / 5), 5
    gap = detectable_gap(error, 2 * n - 2)
    generator = np.random.default_rng(0)
    ours, theirs = generator.normal(gap, 0.2, (40_000, n)), generator.normal(0, 0.2, (40_000, n))
    found = (stats.ttest_ind(ours, theirs, axis=1).pvalue < 0.05).mean()
    assert found == pytest.approx(0.8, abs=0.008)


def test_five_runs_with_std_02_need_a_gap_of_029_for_significance():
    half = stats.t.isf(0.025, 8) * 0.2 * math.sqrt(2 / 5)  # the figure in the published tables' footnote
    assert half == pytest.approx(0.29, abs=0.005)
    assert detectable_gap(0.2 * math.sqrt(2 / 5), 8) > half


def _slow_holm(ps):
    """Transcribe Holm's procedure: adjusted p of rank k is the running maximum of (m - k) p."""
    adjusted, running = [0.0] * len(ps), 0.0
    for rank, index in enumerate(np.argsort(ps)):
        running = max(running, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = running
    return adjusted


def test_holm_p_values_equal_the_slow_transcription_and_skip_what_cannot_be_tested():
    generator = np.random.default_rng(4)
    base = list(generator.normal(0, 1, 5))
    table = [difference(list(generator.normal(shift, 1, 5)), base) for shift in (0.0, 1.0, 4.0, 8.0)]
    found = holm([*table, difference([1.0], base)])
    assert [d.corrected_p for d in found[:4]] == pytest.approx(_slow_holm([d.p for d in table]))
    assert found[4].corrected_p is None


def test_a_corrected_interval_excludes_zero_exactly_when_the_corrected_p_is_below_five_percent():
    generator = np.random.default_rng(7)
    verdicts = set()
    for shifts in itertools.product((0.0, 1.2, 2.4, 6.0), repeat=3):
        base = list(generator.normal(0, 1, 4))
        for found in holm([difference(list(generator.normal(s, 1, 4)), base) for s in shifts]):
            excludes = found.corrected_low > 0 or found.corrected_high < 0
            assert excludes == (found.corrected_p < 0.05) == (found.verdict != "undecided")
            assert found.corrected_low <= found.low <= found.high <= found.corrected_high
            verdicts.add(found.verdict)
    assert {"better", "undecided"} <= verdicts


def test_a_clear_loss_is_called_worse():
    assert holm([difference(B, [b + 5 for b in A])])[0].verdict == "worse"


def test_a_difference_without_correction_is_undecided():
    assert Difference(mean=3.0, low=2.0, high=4.0, p=0.001).verdict == "undecided"
