import numpy as np
import pytest
from scipy.special import betaincinv, ndtr, ndtri, stdtrit

from src.stats.intervals import share_interval, verdict
from src.stats.thresholds import (
    bonferroni,
    build_curve,
    certified_rule,
    empirical_rule,
    patients_needed,
    recall_lower_bound,
)


def scored(seed, decimals=None):
    rng = np.random.default_rng(seed)
    targets = (rng.random(300) < 0.3).astype(float)
    probs = 1 / (1 + np.exp(-(rng.normal(size=300) + 1.5 * targets)))
    return (probs if decimals is None else np.round(probs, decimals)), targets


def count(probs, targets, threshold):
    """True and false positives, by the definition."""
    flags = np.asarray(probs) >= threshold
    return np.sum(flags & (np.asarray(targets) == 1)), np.sum(flags & (np.asarray(targets) == 0))


def precision_and_recall(probs, targets, threshold):
    tp, fp = count(probs, targets, threshold)
    return tp / (tp + fp), tp / np.sum(targets)


@pytest.mark.parametrize("decimals", [None, 2])
@pytest.mark.parametrize("recall", [0.5, 0.85, 1.0])
def test_empirical_rule_is_the_exhaustive_search(decimals, recall):
    probs, targets = scored(3, decimals=decimals)
    outcomes = [(*precision_and_recall(probs, targets, t), t) for t in np.unique(probs)]
    best = max((precision, threshold) for precision, found, threshold in outcomes if found >= recall)
    point = empirical_rule(build_curve(probs, targets=targets), recall=recall)
    assert (point.precision, point.threshold, point.status) == (*best, "ok")
    assert (point.precision, point.recall) == precision_and_recall(probs, targets, point.threshold)


def test_recall_equal_to_the_target_is_enough():
    probs = np.linspace(0.99, 0.5, 20)  # 17 / 20 is exactly 0.85
    assert empirical_rule(build_curve(probs, targets=np.ones(20)), recall=0.85).threshold == probs[16]


def test_ties_in_precision_go_to_the_higher_threshold():
    point = empirical_rule(build_curve([0.9, 0.8, 0.7, 0.6], targets=[1, 0, 1, 0]), recall=0.5)
    assert (point.threshold, point.precision) == (0.9, 1)
    point = empirical_rule(build_curve([0.9, 0.8, 0.7, 0.6], targets=[1, 0, 0, 1]), recall=1.0)
    assert (point.threshold, point.precision) == (0.6, 0.5)
    point = empirical_rule(build_curve([0.9, 0.8, 0.7, 0.6], targets=[0, 1, 0, 1]), recall=0.5)
    assert (point.threshold, point.precision) == (0.8, 0.5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("decimals", [None, 2])
def test_exact_search_is_never_less_precise_than_the_grid(seed, decimals):
    probs, targets = scored(seed, decimals=decimals)
    for recall in (0.8, 0.85, 0.9, 0.95):
        exact = empirical_rule(build_curve(probs, targets=targets), recall=recall)
        grid = empirical_rule(build_curve(probs, targets=targets, grid=0.01), recall=recall)
        assert exact.precision >= grid.precision
        assert (grid.precision, grid.recall) == precision_and_recall(probs, targets, grid.threshold)
        assert round(grid.threshold * 100) / 100 == grid.threshold


def test_small_probabilities_keep_a_threshold_above_zero():
    probs, targets = scored(1)
    assert empirical_rule(build_curve(probs * 1e-3, targets=targets, grid=0.01), recall=0.85).threshold == 0
    assert empirical_rule(build_curve(probs * 1e-3, targets=targets), recall=0.85).threshold > 0


def test_without_positives_all_is_flagged():
    point = empirical_rule(build_curve([0.2, 0.4], targets=[0, 0]), recall=0.85)
    assert (point.threshold, point.status, point.precision) == (0.0, "infeasible", 0.0)
    assert np.isnan(point.recall)


@pytest.mark.parametrize("grid", [None, 0.05])
def test_counts_at_any_threshold(grid):
    probs, targets = scored(2, decimals=2)
    curve = build_curve(probs, targets=targets, grid=grid)
    thresholds = np.array([1.5, 1, 0.9, 0.5, 0.35, 0.05, 0] if grid else [1.5, 0.905, 0.5, probs.min(), 0])
    expected = [count(probs, targets, threshold) for threshold in thresholds]
    assert np.transpose(curve.counts_at(thresholds)).tolist() == np.array(expected).tolist()
    assert curve.counts_at(thresholds[2]) == expected[2]
    assert (curve.positives, curve.negatives, curve.entries) == (*expected[-1], 300)


@pytest.mark.parametrize("recall", [0, -0.1, 1.01, float("nan")])
def test_bad_recall_is_refused(recall):
    with pytest.raises(ValueError, match="recall target is"):
        empirical_rule(build_curve([0.5], targets=[1]), recall=recall)


LEAST, DIVIDES = "of at least 0.00001", "that divides 1, such as"


@pytest.mark.parametrize(
    ("grid", "says"), [(0, LEAST), (-0.1, LEAST), (1e-06, LEAST), (float("nan"), LEAST), (0.03, DIVIDES), (2, DIVIDES)]
)
def test_bad_grid_is_refused(grid, says):
    with pytest.raises(ValueError, match=f"--grid is {grid}; expected a step {says}"):
        build_curve([0.5], targets=[1], grid=grid)


def clustered(seed, positives=150, correlation=0.5, negatives=200, sizes=(1, 9)):
    """Positives of patients with several images each, scores N(1.5, 1) correlated within a patient."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(positives), rng.integers(*sizes, positives))[:positives]
    shared = rng.normal(size=positives)[patients]
    scores = 1.5 + np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * rng.normal(size=positives)
    probs = ndtr(np.append(scores, rng.normal(size=negatives)))
    targets = np.append(np.ones(positives), np.zeros(negatives))
    return probs, targets, np.append(patients, rng.integers(0, positives, negatives))


def bound_by_hand(probs, targets, patients, confidence):
    """The documented bound, written as loops over thresholds and patients."""
    scores, people = probs[targets == 1], patients[targets == 1]
    groups = [scores[people == person] for person in np.unique(people)]
    total, count = len(scores), len(groups)
    images = sum(len(np.unique(group)) for group in groups)
    variances, binomials = {}, {}
    for cut in np.unique(scores)[1:]:
        recall = np.mean(scores >= cut)
        residuals = [np.sum(group >= cut) - recall * len(group) for group in groups]
        variances[cut] = np.sum(np.square(residuals)) / total**2 * count / (count - 1)
        binomials[cut] = recall * (1 - recall) / (images - 1)
    pooled = sum(variances.values()) / sum(binomials.values())
    bounds = []
    for threshold in np.unique(probs)[::-1]:
        recall = np.mean(scores >= threshold)
        lower = [variances[cut] / binomials[cut] for cut in variances if np.mean(scores >= cut) >= recall]
        size = images / max([1, pooled, *lower])
        size *= (stdtrit(images - 1, confidence) / stdtrit(count - 1, confidence)) ** 2
        size = max(size, count) if recall == 1 else size
        hits = recall * size
        bounds.append(betaincinv(hits, size - hits + 1, 1 - confidence) if hits else 0)
    return np.array(bounds)


@pytest.mark.parametrize("decimals", [9, 2])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.99])
def test_bound_is_the_documented_one(decimals, seed, correlation):
    probs, targets, patients = clustered(seed, positives=60, correlation=correlation, negatives=50)
    probs = np.round(probs, decimals)
    curve = build_curve(probs, targets=targets, patients=patients)
    bounds = recall_lower_bound(curve, confidence=0.9)
    np.testing.assert_allclose(bounds, bound_by_hand(probs, targets, patients, 0.9), rtol=1e-9)
    assert np.all(np.diff(bounds) >= -1e-12)  # only falls as the threshold rises


def test_one_image_per_patient_is_clopper_pearson():
    hits = np.arange(1, 61)
    curve = build_curve(np.linspace(0.9, 0.1, 60), targets=np.ones(60))
    expected = betaincinv(hits, 60 - hits + 1, 0.05)
    np.testing.assert_allclose(recall_lower_bound(curve, confidence=0.95), expected, rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("recall", [0.8, 0.9])
def test_certified_rule_is_the_most_precise_certified_threshold(seed, recall):
    probs, targets, patients = clustered(seed, positives=200)
    curve = build_curve(probs, targets=targets, patients=patients)
    bounds = recall_lower_bound(curve, confidence=0.95)
    point = certified_rule(curve, recall=recall)
    best = max(zip(curve.precision[bounds >= recall], curve.thresholds[bounds >= recall], strict=True))
    assert (point.precision, point.threshold, point.status) == (*best, "ok")
    assert point.recall_lower == bounds[curve.thresholds == point.threshold]
    assert point.recall_lower >= recall
    assert point.threshold < empirical_rule(curve, recall=recall).threshold
    assert point.threshold >= certified_rule(curve, recall=recall, confidence=0.99).threshold
    coarse = certified_rule(build_curve(probs, targets=targets, patients=patients, grid=0.01), recall=recall)
    assert coarse.precision <= point.precision


@pytest.mark.parametrize(("recall", "needed"), [(0.85, 19), (0.9, 29), (0.95, 59)])
def test_feasible_from_as_many_patients_as_prove_it(recall, needed):
    assert patients_needed(recall, confidence=0.95) == needed
    scores = np.linspace(0.9, 0.5, needed)
    point = certified_rule(build_curve(scores, targets=np.ones(needed)), recall=recall)
    assert (point.status, point.threshold, point.positives_needed) == ("ok", 0.5, 0)
    assert point.recall_lower == pytest.approx(0.05 ** (1 / needed))
    point = certified_rule(build_curve(scores[3:], targets=np.ones(needed - 3)), recall=recall)
    assert (point.status, point.threshold, point.positives_needed) == ("infeasible", 0.0, 3)
    assert point.recall_lower < recall and point.recall == 1


def test_many_images_of_few_patients_prove_little():
    scores, patients = np.linspace(0.9, 0.5, 90), np.arange(90) % 9
    point = certified_rule(build_curve(scores, targets=np.ones(90), patients=patients), recall=0.85)
    assert (point.status, point.positives_needed) == ("infeasible", 10)


@pytest.mark.parametrize("scores", [[], [0.4], [0.4] * 5])
def test_certified_rule_without_positives_or_with_one_score(scores):
    curve = build_curve([*scores, 0.2], targets=[1] * len(scores) + [0])
    point = certified_rule(curve, recall=0.85)
    assert (point.status, point.positives_needed) == ("infeasible", 19 - len(scores))
    assert np.isnan(point.recall_lower) == (not scores)


def test_constant_scores_of_enough_patients_are_flagged_together():
    curve = build_curve([0.4] * 40, targets=[1] * 20 + [0] * 20)
    assert certified_rule(curve, recall=0.85).threshold == 0.4


def test_flags_depend_on_ranks_only_and_not_on_order_or_names():
    probs, targets, patients = clustered(7)
    point = certified_rule(build_curve(probs, targets=targets, patients=patients), recall=0.85)
    mapped = certified_rule(build_curve(probs**3 / 2, targets=targets, patients=patients), recall=0.85)
    assert np.array_equal(probs >= point.threshold, probs**3 / 2 >= mapped.threshold)
    order = np.random.default_rng(0).permutation(len(probs))
    names = np.array([f"patient{900 - number}" for number in patients])
    shuffled = build_curve(probs[order], targets=targets[order], patients=names[order])
    assert certified_rule(shuffled, recall=0.85) == point


@pytest.mark.parametrize("correlation", [0.0, 0.6])
@pytest.mark.parametrize("sizes", [(1, 2), (1, 9), (4, 5)])
@pytest.mark.parametrize("copies", [2, 5])
def test_duplicated_images_do_not_tighten_the_bound(correlation, sizes, copies):
    for seed in range(5):
        data = clustered(seed, correlation=correlation, sizes=sizes)
        once, again = (
            recall_lower_bound(build_curve(probs, targets=targets, patients=patients), confidence=0.95)
            for probs, targets, patients in (data, [np.tile(column, copies) for column in data])
        )
        assert np.all(again <= once + 1e-12)


def test_correlated_images_loosen_the_bound():
    bounds = [
        recall_lower_bound(build_curve(probs, targets=targets, patients=patients), confidence=0.95)
        for probs, targets, patients in (clustered(3, correlation=rho, negatives=0) for rho in (0.0, 0.7))
    ]
    assert np.all(bounds[1][100:] < bounds[0][100:])


def test_bound_is_looser_the_more_confidence_is_asked():
    probs, targets, patients = clustered(2)
    curve = build_curve(probs, targets=targets, patients=patients)
    bounds = [recall_lower_bound(curve, confidence=level) for level in (0.3, 0.5, 0.8, 0.95, 0.999)]
    assert np.all(np.diff(np.array(bounds)[:, curve.tp > 0], axis=0) < 0)


def test_bonferroni():
    assert bonferroni(0.95, classes=1) == pytest.approx(0.95)
    assert bonferroni(0.95, classes=10) == pytest.approx(0.995)


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_the_promise_is_kept_by_simulation(correlation):
    """True recall is Phi(1.5 - z(threshold)); of 400 choices >= 93% hold, of the empirical rule's ~half.

    3 standard errors of a rate of 0.96 over 400 are 0.03: the seeds are fixed, so the test is deterministic.
    """
    kept = {recall: np.zeros(2) for recall in (0.8, 0.9)}
    for seed in range(400):
        probs, targets, patients = clustered(seed, positives=300, correlation=correlation)
        curve = build_curve(probs, targets=targets, patients=patients)
        for recall, counts in kept.items():
            points = certified_rule(curve, recall=recall), empirical_rule(curve, recall=recall)
            counts += [ndtr(1.5 - ndtri(point.threshold)) >= recall for point in points]
    for holds, plain in kept.values():
        assert 0.93 <= holds / 400 <= 0.995
        assert plain / 400 < 0.65


@pytest.mark.parametrize("confidence", [-0.1, 0, 1, 95, float("nan")])
def test_bad_confidence_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence is"):
        certified_rule(build_curve([0.5], targets=[1]), recall=0.85, confidence=confidence)


def test_recall_1_cannot_be_promised():
    with pytest.raises(ValueError, match="--recall 1 cannot be promised"):
        certified_rule(build_curve([0.5], targets=[1]), recall=1.0)


def test_recall_by_patient_is_the_mean_of_the_patients_recalls():
    probs, targets, patients = clustered(4, positives=80)
    curve = build_curve(probs, targets=targets, patients=patients, by_patient=True)
    ill = targets == 1
    for at in range(0, len(curve.thresholds), 17):
        flags = probs >= curve.thresholds[at]
        each = [flags[ill & (patients == person)].mean() for person in np.unique(patients[ill])]
        assert curve.recall[at] == pytest.approx(np.mean(each))
        assert curve.recall_share(curve.thresholds[at]).value == curve.recall[at]
    plain = build_curve(probs, targets=targets, patients=patients)
    assert np.array_equal(curve.tp, plain.tp) and not np.allclose(curve.recall, plain.recall)
    assert curve.recall_share(1.5).value == 0


def test_the_bound_by_patient_is_korn_and_graubards_with_survey_weights():
    probs, targets, patients = clustered(5, positives=90)
    curve = build_curve(probs, targets=targets, patients=patients, by_patient=True)
    scores, people = probs[targets == 1], patients[targets == 1]
    groups = [scores[people == person] for person in np.unique(people)]
    count, total = len(groups), len(scores)

    def effect(cut):
        each = np.array([np.mean(group >= cut) for group in groups])
        return np.var(each, ddof=1) / count, each.mean() * (1 - each.mean()) / (total - 1)

    cuts = np.unique(scores)[1:]
    variance, binomial = np.transpose([effect(cut) for cut in cuts])
    pooled = variance.sum() / binomial.sum()
    for at in np.flatnonzero(np.isin(curve.thresholds, cuts))[::9]:
        lower = cuts <= curve.thresholds[at]
        size = total / max([1, pooled, *(variance / binomial)[lower]])
        size *= (stdtrit(total - 1, 0.95) / stdtrit(count - 1, 0.95)) ** 2
        hits = curve.recall[at] * size
        bound = betaincinv(hits, size - hits + 1, 0.05)
        assert recall_lower_bound(curve, confidence=0.95)[at] == pytest.approx(bound)


def test_by_patient_and_by_unit_are_the_same_with_one_unit_per_patient():
    probs, targets = scored(6)
    unit, patient = (build_curve(probs, targets=targets, by_patient=weighted) for weighted in (False, True))
    for rule in (certified_rule, empirical_rule):
        assert rule(unit, recall=0.85).threshold == rule(patient, recall=0.85).threshold
    bounds = [recall_lower_bound(curve, confidence=0.95) for curve in (unit, patient)]
    np.testing.assert_allclose(*bounds, atol=1e-9)


def test_recall_by_patient_is_certified_where_large_patients_are_easier():
    """One patient in ten owns 20 units each, and they score 0.7 higher: the next unit says little of the next patient.

    300 data sets of 150 patients: the rate of a promise kept in 95% has a standard error of 0.013.
    """
    rng = np.random.default_rng(0)
    kept = {False: [], True: []}
    for _ in range(300):
        large = rng.random(150) < 0.1
        patients = np.repeat(np.arange(150), np.where(large, rng.integers(10, 30, 150), rng.integers(1, 3, 150)))
        shared, own = rng.normal(size=150)[patients], rng.normal(size=len(patients))
        scores = 1.5 + 0.7 * large[patients] + np.sqrt(0.4) * shared + np.sqrt(0.6) * own
        for by_patient, rates in kept.items():
            data = {"targets": np.ones(len(scores)), "patients": patients, "by_patient": by_patient}
            cut = ndtri(certified_rule(build_curve(ndtr(scores), **data), recall=0.85).threshold)
            rates.append(0.1 * ndtr(2.2 - cut) + 0.9 * ndtr(1.5 - cut) >= 0.85)
    assert np.mean(kept[True]) >= 0.91
    assert np.mean(kept[False]) < 0.7


def test_a_probability_that_is_nan_is_refused():
    with pytest.raises(ValueError, match="1 of 3 probabilities are NaN"):
        build_curve([0.5, np.nan, 0.2], targets=[1, 1, 0])


def test_one_miss_never_tells_more_than_none():
    """Of 18 patients with 6 positives each, as alike as can be but for the misses."""
    lows = []
    for misses in range(4):
        probs = np.tile(np.linspace(0.9, 0.55, 18), 6) + np.linspace(0, 1e-3, 108)
        probs[:misses] = 0.4 - 0.01 * np.arange(misses)
        curve = build_curve(probs, targets=np.ones(108), patients=np.tile(np.arange(18), 6))
        lows.append(share_interval(curve.recall_share(0.5))[0])
    assert np.all(np.diff(lows) < 0)


def test_a_promise_that_is_just_kept_is_confirmed_in_one_test_of_twenty_or_fewer():
    """40 patients of 6 images with correlation 0.8: at the cut itself the correlation cannot be seen."""
    rng, said = np.random.default_rng(0), []
    patients = np.repeat(np.arange(40), 6)
    for _ in range(300):
        scores = np.sqrt(0.8) * rng.normal(size=40)[patients] + np.sqrt(0.2) * rng.normal(size=240)
        curve = build_curve(ndtr(scores), targets=np.ones(240), patients=patients)
        said.append(verdict(curve.recall_share(0.05), target=0.95))
    assert said.count("confirmed") <= 15


def test_by_patient_a_recall_equal_to_the_target_is_enough():
    probs = np.append(np.tile(np.where(np.arange(20) < 17, 0.9, 0.1), 7), [0.5] * 10)
    patients = np.append(np.tile(np.arange(20), 7), 20 + np.arange(10))
    curve = build_curve(probs, targets=np.append(np.ones(140), np.zeros(10)), patients=patients, by_patient=True)
    assert empirical_rule(curve, recall=0.85).threshold == 0.9
