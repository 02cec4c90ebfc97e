"""The statistics agree with SciPy's own tests and with slow transcriptions, and never claim more than they may."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from transfer.report.statistics import (
    Difference,
    difference,
    gap_found,
    hedges_g,
    holm,
    looks,
    nemenyi,
    noncentrality,
    pairs_pay,
    ranking,
    sequential,
    summarise,
    trials_needed,
)

EXPERIMENTS = 10_000

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


def _welch_p(table):
    """Return Welch's p of every row but the first against the first, of [experiments, rows, trials]."""
    return np.stack(
        [stats.ttest_ind(row, table[:, 0], axis=1, equal_var=False).pvalue for row in np.moveaxis(table, 1, 0)[1:]], 1
    )


def _paired_p(table):
    return np.stack([stats.ttest_rel(row, table[:, 0], axis=1).pvalue for row in np.moveaxis(table, 1, 0)[1:]], 1)


def _pays(table, alpha):
    """Transcribe ``pairs_pay`` for many tables at once."""
    if table.shape[2] < 3:
        return np.zeros(len(table), dtype=bool)
    z = (table - table.mean(2, keepdims=True)) / table.std(2, ddof=1, keepdims=True)
    _, rows, seeds = z.shape
    between = rows * (z.mean(1) ** 2).sum(1)
    within = ((z - z.mean(1, keepdims=True)) ** 2).sum((1, 2)) / (rows - 1)
    bound = between / within / stats.f.ppf(0.99, seeds - 2, (rows - 1) * (seeds - 2))
    worth = 1 - (stats.t.isf(alpha / 2, 2 * seeds - 2) / stats.t.isf(alpha / 2, seeds - 1)) ** 2
    return (bound - 1) / (bound + rows - 1) > worth


def _rejected(p, alpha=0.05):
    """Transcribe Holm's step-down for many tables of p-values at once."""
    order = np.argsort(p, axis=1)
    level = alpha / np.arange(p.shape[1], 0, -1)
    kept = np.logical_and.accumulate(np.take_along_axis(p, order, 1) < level, axis=1)
    found = np.zeros_like(kept)
    np.put_along_axis(found, order, kept, 1)
    return found


def _judged(table):
    """Judge many tables of one benchmark as a report does: the test chosen by the rule, then Holm."""
    pays = _pays(table, 0.05 / (table.shape[1] - 1))
    return _rejected(np.where(pays[:, None], _paired_p(table), _welch_p(table)))


def _tables(seed, rows, trials, gap=0.0, correlation=0.0):
    """Draw tables of unit spread; ``gap`` is the second row's, the seeds move all rows alike by ``correlation``."""
    generator = np.random.default_rng(seed)
    shared = generator.normal(size=(EXPERIMENTS, 1, trials)) * math.sqrt(correlation)
    made = shared + generator.normal(size=(EXPERIMENTS, rows, trials)) * math.sqrt(1 - correlation)
    made[:, 1] += gap
    return made


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9, 0.98])
@pytest.mark.parametrize(("rows", "trials"), [(2, 3), (2, 5), (5, 3), (5, 5), (12, 5), (5, 10)])
def test_where_nothing_differs_a_report_claims_something_in_at_most_five_percent_of_experiments(
    rows, trials, correlation
):
    found = _judged(_tables(rows * trials, rows, trials, correlation=correlation)).any(1).mean()
    assert found <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / EXPERIMENTS)


@pytest.mark.parametrize(("rows", "trials"), [(2, 2), (2, 3), (2, 5), (5, 3), (5, 5), (12, 5), (5, 10)])
def test_the_gap_that_is_said_to_be_found_in_eight_of_ten_cases_is(rows, trials):
    gap = gap_found(1.0, trials, rows - 1)
    assert _judged(_tables(trials, rows, trials, gap))[:, 0].mean() == pytest.approx(0.8, abs=0.02)
    difference_of = difference([0.0, *[math.sqrt(2)] * (trials - 1)], [0.0, *[math.sqrt(2)] * (trials - 1)])
    own = holm([difference_of] * (rows - 1))[0]  # of any spread, here of the same on both sides
    spread = math.sqrt(own.error**2 * trials / 2)
    assert own.detectable / spread == pytest.approx(gap, rel=0.01)


@pytest.mark.parametrize(("freedom", "level"), [(1.0, 0.05), (2.7, 0.05), (4.0, 0.01), (30.0, 0.001)])
def test_the_detectable_gap_of_pairs_reaches_the_power_by_scipys_noncentral_t(freedom, level):
    gap, critical = noncentrality(freedom, 0.8, level), stats.t.isf(level / 2, freedom)
    assert stats.nct.sf(critical, freedom, gap) + stats.nct.cdf(-critical, freedom, gap) == pytest.approx(0.8, abs=1e-6)


def test_unequal_spreads_and_numbers_of_trials_have_their_own_gap():
    generator = np.random.default_rng(1)
    ours, theirs = generator.normal(0, 3.0, 4), generator.normal(0, 1.0, 8)
    ours, theirs = (ours - ours.mean()) * 3 / ours.std(ddof=1), (theirs - theirs.mean()) / theirs.std(ddof=1)
    gap = difference(list(ours), list(theirs)).detectable
    many = generator.normal(gap, 3.0, (EXPERIMENTS, 4)), generator.normal(0, 1.0, (EXPERIMENTS, 8))
    assert (stats.ttest_ind(*many, axis=1, equal_var=False).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.02)


def test_the_rule_for_pairs_equals_its_transcription_and_leaves_independent_noise_its_power():
    tables = np.concatenate([_tables(9, 12, 5)[:40], _tables(9, 12, 5, correlation=0.9)[:40]])
    assert [pairs_pay(table.tolist(), 0.05 / 88) for table in tables] == _pays(tables, 0.05 / 88).tolist()
    table = _tables(3, 12, 5)
    table += np.linspace(0, 4, 12)[:, None]
    assert _judged(table).sum() >= 0.995 * _rejected(_welch_p(table)).sum() > 1.2 * _rejected(_paired_p(table)).sum()


def test_the_trials_a_gap_needs_are_the_fewest_that_find_it():
    for gap, spread, comparisons in ((1.0, 0.5, 1), (0.5, 1.0, 12), (3.0, 1.0, 88)):
        count = trials_needed(gap, spread, comparisons)
        assert gap_found(spread, count, comparisons) <= gap < gap_found(spread, count - 1, comparisons)
    assert trials_needed(50.0, 0.1) == 2
    assert trials_needed(0.01, 1.0) is None
    assert trials_needed(0.0, 1.0) is None


def test_looks_grow_by_half_up_to_the_budget():
    assert looks(20) == (3, 5, 8, 12, 18, 20)
    assert looks(3) == (3,)
    assert looks(2) == (2,)


@pytest.mark.parametrize("differing", [0, 2])
def test_deciding_as_one_goes_claims_something_false_in_at_most_five_percent_of_experiments(differing):
    """Four checkpoints; with two that differ, those stop early, and the others' share must not grow beyond its due."""
    at = looks(12)
    generator = np.random.default_rng(differing)
    table = generator.normal(size=(EXPERIMENTS, 5, 12))
    table[:, 1 : 1 + differing] += 5.0
    decided = np.zeros((EXPERIMENTS, 4), dtype=bool)
    for count in at:
        p = np.where(decided, 2.0, _welch_p(table[:, :, :count]))
        order = np.argsort(p, axis=1)
        left = 4 - decided.sum(1, keepdims=True)
        level = 0.05 / len(at) / np.maximum(left - np.arange(4), 1)
        kept = np.logical_and.accumulate(np.take_along_axis(p, order, 1) < level, axis=1)
        np.put_along_axis(decided, order, kept | np.take_along_axis(decided, order, 1), 1)
    assert decided[:, differing:].any(1).mean() <= 0.05
    assert decided[:, :differing].all()
    for index in range(100):
        rows = table[index].tolist()
        found = [d.verdict != "undecided" for d in sequential([(row, rows[0]) for row in rows[1:]], at)]
        assert found == decided[index].tolist()


def test_a_sequential_test_stops_at_the_look_that_decides_and_keeps_what_it_said():
    base, far = [10.0, 10.2, 9.9, 10.1, 10.0], [20.0, 20.1, 19.9, 0.0, 0.0]
    (found,) = sequential([(far, base)], (3, 5))
    assert (found.verdict, found.look, found.mean) == ("better", 3, pytest.approx(10.0 - 0.1 / 3, abs=0.01))
    assert found.corrected_p < 0.05
    (near,) = sequential([([10.1, 10.3, 9.8], base)], (3, 5))
    assert (near.verdict, near.look) == ("undecided", 3)
    (single,) = sequential([([10.1], base)], (3, 5))
    assert (single.verdict, single.look, single.corrected_p) == ("undecided", 0, None)


def test_intervals_of_percentages_stay_within_what_percentages_can_be():
    found = summarise([0.0, 3.0, 99.0])
    assert (found.low, found.high) == (0.0, 100.0)
    wide = holm([difference([0.0, 90.0], [5.0, 60.0])] * 5)[0]
    assert (wide.corrected_low, wide.corrected_high, wide.low, wide.high) == (-100.0, 100.0, -100.0, 100.0)
    other = summarise([-200.0, 300.0])
    assert other.low < -200 < 300 < other.high


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
