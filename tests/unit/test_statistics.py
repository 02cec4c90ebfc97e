"""The statistics agree with SciPy's own tests and with slow transcriptions, and never claim more than they may."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from transfer.report.statistics import (
    Difference,
    detectable_gap,
    difference,
    hedges_g,
    holm,
    nemenyi,
    ranking,
    summarise,
)

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


@pytest.mark.parametrize("n", [2, 3, 5, 9])
def test_paired_difference_equals_scipys_related_test_and_keeps_welchs_p_beside_it(n):
    generator = np.random.default_rng(n)
    shared = generator.normal(0, 2.0, n)  # what the trials of one seed have in common
    ours, theirs = shared + generator.normal(0.5, 0.2, n), shared + generator.normal(0, 0.2, n)
    expected = stats.ttest_rel(ours, theirs)
    interval = expected.confidence_interval(0.95)
    found = difference(list(ours), list(theirs), paired=True)
    assert (found.paired, found.freedom) == (True, n - 1)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert found.welch_p == pytest.approx(stats.ttest_ind(ours, theirs, equal_var=False).pvalue, rel=1e-9)
    assert found.effect == pytest.approx(hedges_g(list(ours), list(theirs)))


def test_pairs_find_what_welch_cannot_when_the_seed_moves_all_trials_alike():
    theirs = [50.0, 54.0, 47.0, 52.0]
    ours = [value + gap for value, gap in zip(theirs, (0.9, 1.1, 1.0, 1.05), strict=True)]
    assert holm([difference(ours, theirs, paired=True)])[0].verdict == "better"
    assert holm([difference(ours, theirs)])[0].verdict == "undecided"


def test_pairs_without_any_spread_and_pairs_of_one_trial_are_not_tested():
    for found in (difference([2.0, 3.0], [1.0, 2.0], paired=True), difference([2.0], [1.0], paired=True)):
        assert (found.mean, found.p, holm([found])[0].verdict) == (1.0, None, "undecided")


def test_pairs_need_as_many_trials_on_both_sides():
    with pytest.raises(ValueError, match="zip"):
        difference([1.0, 2.0, 3.0], [1.0, 2.5], paired=True)


@pytest.mark.parametrize("freedom", [1.0, 2.7, 4.0, 30.0])
def test_the_detectable_gap_reaches_the_power_by_scipys_noncentral_t(freedom):
    gap, critical = detectable_gap(1.0, freedom), stats.t.isf(0.025, freedom)
    assert stats.nct.sf(critical, freedom, gap) + stats.nct.cdf(-critical, freedom, gap) == pytest.approx(0.8, abs=1e-6)


# Demsar (JMLR 7, 2006), table 5a: critical values of the Nemenyi test at 0.05
@pytest.mark.parametrize(("count", "value"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (7, 2.949), (10, 3.164)])
def test_nemenyi_equals_the_published_table_and_scipys_studentised_range(count, value):
    assert nemenyi(count) == pytest.approx(value, abs=1e-3)
    assert nemenyi(count) == pytest.approx(stats.studentized_range.ppf(0.95, count, np.inf) / math.sqrt(2), rel=1e-6)


@pytest.mark.parametrize("ties", [False, True])
def test_average_ranks_equal_scipys_ranks_and_friedmans_test(ties):
    table = np.random.default_rng(3).normal([0.0, 0.5, 2.0, 2.1], 0.5, (6, 4))
    table = np.round(table) if ties else table
    found = ranking(table.tolist())
    expected = np.mean([stats.rankdata(-row) for row in table], axis=0)
    assert found.ranks == pytest.approx(tuple(expected))
    assert found.p == pytest.approx(stats.friedmanchisquare(*table.T).pvalue, rel=1e-9)
    assert found.critical == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 6)), abs=1e-3)


def test_groups_are_the_largest_sets_that_the_critical_difference_does_not_part():
    table = [[4.0, 3.0, 2.0, 1.0]] * 12  # ranks 1, 2, 3, 4; critical difference 1.35
    found = ranking(table)
    assert found.ranks == (1.0, 2.0, 3.0, 4.0)
    assert found.groups == ((0, 1), (1, 2), (2, 3))
    assert ranking([[1.0, 1.0, 1.0]] * 3).groups == ((0, 1, 2),)
    assert ranking([[1.0, 1.0, 1.0]] * 3).p == 1.0


@pytest.mark.parametrize("table", [[], [[1.0, 2.0, 3.0]], [[1.0, 2.0], [2.0, 1.0]]])
def test_too_few_benchmarks_or_checkpoints_have_no_ranking(table):
    assert ranking(table) is None
