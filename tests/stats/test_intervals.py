"""Intervals that do not collapse, against Clopper-Pearson, by hand, and by simulation."""

import numpy as np
import pytest
from scipy.special import ndtr, stdtrit
from scipy.stats import binomtest

from src.stats.bootstrap import bootstrap_metrics
from src.stats.intervals import Share, area_interval, clustered_share, share_interval, top_share, verdict


@pytest.mark.parametrize("hits", [0, 1, 7, 19, 20])
def test_one_unit_per_patient_is_clopper_pearson(hits):
    flags = np.arange(20) < hits
    found = share_interval(clustered_share(flags, patients=np.arange(20)))
    assert found == pytest.approx(tuple(binomtest(hits, 20).proportion_ci(method="exact")), abs=1e-9)


def by_hand(hits, patients):
    """The documented effective size, written as loops over the patients."""
    value, people = np.mean(hits), np.unique(patients)
    residuals = [np.sum((hits - value)[patients == person]) / len(hits) for person in people]
    variance = np.sum(np.square(residuals)) * len(people) / (len(people) - 1)
    effect = max(1, variance / (value * (1 - value) / (len(hits) - 1)))
    ratio = stdtrit(len(hits) - 1, 0.975) / stdtrit(len(people) - 1, 0.975)
    return value, len(hits) / effect * ratio**2


def test_the_effective_size_is_the_documented_one():
    rng = np.random.default_rng(0)
    patients = rng.integers(0, 25, 120)
    hits = rng.random(25)[patients] < 0.4
    share = clustered_share(hits, patients=patients)
    assert share == pytest.approx(by_hand(hits, patients))
    assert share.effective < 60


def test_all_hits_tell_as_much_as_there_are_patients_and_nothing_collapses():
    share = clustered_share(np.ones(40), patients=np.arange(40) % 20)
    assert share == (1, 20)
    assert share_interval(share) == pytest.approx(tuple(binomtest(20, 20).proportion_ci(method="exact")))
    assert share_interval(clustered_share([], patients=[])) == pytest.approx((np.nan, np.nan), nan_ok=True)
    assert share_interval(clustered_share([1, 1], patients=[3, 3])) == pytest.approx((0.025, 1))


@pytest.mark.parametrize(
    ("hits", "said"),
    [(78, "contradicted"), (79, "consistent"), (91, "consistent"), (92, "confirmed"), (100, "confirmed")],
)
def test_a_verdict_is_a_one_sided_exact_test(hits, said):
    share = clustered_share(np.arange(100) < hits, patients=np.arange(100))
    assert verdict(share, target=0.85) == said
    less = binomtest(hits, 100, 0.85, alternative="less").pvalue < 0.05
    more = binomtest(hits, 100, 0.85, alternative="greater").pvalue <= 0.05
    assert (less, more) == (said == "contradicted", said == "confirmed")


def test_without_data_there_is_no_verdict_and_a_higher_level_asks_for_more():
    assert verdict(Share(np.nan, 0), target=0.85) == ""
    share = clustered_share(np.arange(100) < 91, patients=np.arange(100))
    assert verdict(share, target=0.85, level=0.999) == "consistent"


def test_an_area_has_the_logit_interval_with_students_t():
    replicates = np.append(np.random.default_rng(0).normal(0.8, 0.03, 400), np.nan)
    logits = np.log(replicates / (1 - replicates))
    for drawn, error in ((replicates, np.nanstd(logits, ddof=1)), (np.append(replicates, 1.0), None)):
        error = np.nanstd(drawn, ddof=1) / (0.8 * 0.2) if error is None else error
        reach = stdtrit(9, 0.975) * error * np.sqrt(10 / 9)
        ends = [1 / (1 + np.exp(-(np.log(4) + sign * reach))) for sign in (-1, 1)]
        assert area_interval(0.8, drawn, patients=10) == pytest.approx(ends)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_area_at_the_end_keeps_an_interval(value):
    low, high = area_interval(value, np.full(100, value), patients=12)
    edge = binomtest(12, 12).proportion_ci(method="exact").low
    assert (low, high) == pytest.approx((edge, 1) if value else (0, 1 - edge))


@pytest.mark.parametrize("value", [0.3, 0.5, 0.97])
def test_an_area_that_does_not_vary_between_resamples_lies_in_its_interval(value):
    assert area_interval(value, np.full(100, value), patients=100) == (0, 1)


def test_an_area_that_rests_on_one_patient_or_on_nothing():
    assert area_interval(0.7, np.array([0.7, 0.8]), patients=1) == (0, 1)
    assert np.isnan(area_interval(np.nan, np.array([0.7]), patients=5)).all()
    assert np.isnan(area_interval(0.7, np.full(3, np.nan), patients=5)).all()


@pytest.mark.parametrize("most_images", [1, 8])
def test_intervals_cover_the_truth_at_20_positives(most_images):
    """400 data sets, correlation 0.5 within a patient: at 0.95 the observed rate is above 0.92 in 99% of the cases."""
    rng = np.random.default_rng(most_images)
    covered = []
    for _ in range(400):
        sizes = rng.integers(1, most_images + 1, 20)
        patients = np.repeat(np.arange(20), sizes)[:20]
        shared = rng.normal(size=20)[patients]
        flags = np.sqrt(0.5) * shared + np.sqrt(0.5) * rng.normal(size=20) > -1.0
        low, high = share_interval(clustered_share(flags, patients=patients))
        covered.append(low <= ndtr(1.0) <= high)
    assert np.mean(covered) > 0.92


def test_areas_cover_the_truth_at_10_positives():
    rng = np.random.default_rng(0)
    targets = np.tile((np.arange(50) < 10).astype(float)[:, None], 200)
    probs = ndtr(rng.normal(size=targets.shape) + 1.5 * targets)
    data = {"targets": targets, "mask": targets >= 0, "classes": range(200)}
    found = bootstrap_metrics(probs, **data, patients=np.arange(50), resamples=100)["per_class"]
    truth, covered = ndtr(1.5 / np.sqrt(2)), []
    for c, arrays in found.items():
        pairs = probs[:10, c][:, None] > probs[10:, c]
        low, high = area_interval(pairs.mean(), arrays["auroc"], patients=arrays["patients"]["auroc"])
        covered.append(low <= truth <= high)
    assert np.mean(covered) > 0.91


def test_the_share_of_the_largest_patients():
    sizes = [10, 5, *[1] * 38]
    assert top_share(np.repeat(np.arange(40), sizes)) == pytest.approx(15 / 53)
    assert np.isnan(top_share(np.arange(19)))
