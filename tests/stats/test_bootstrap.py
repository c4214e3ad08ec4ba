import numpy as np
import pytest
from scipy.special import ndtr
from sklearn import metrics as sk

from src.evaluate import masked_metrics
from src.stats.bootstrap import bootstrap_metrics, interval, resample, with_intervals


def case(decimals=None):
    """Four masked classes of 80 patients; the last has only negatives."""
    rng, rows = np.random.default_rng(0), 300
    targets = (rng.random((rows, 4)) < [0.5, 0.3, 0.1, 0.0]).astype(float)
    probs = ndtr(rng.normal(size=(rows, 4)) + targets)
    mask = rng.random((rows, 4)) < 0.7
    probs, targets = np.where(mask, probs, np.nan), np.where(mask, targets, -1)
    patients = rng.integers(0, 80, rows)
    return {
        "probs": probs if decimals is None else np.round(probs, decimals),
        "targets": targets,
        "mask": mask,
        "classes": list("abcd"),
        "patients": np.array([f"patient{n}" for n in patients]),
    }


def replicates(data, **options):
    return bootstrap_metrics(data["probs"], **{k: v for k, v in data.items() if k != "probs"}, **options)


@pytest.mark.parametrize("decimals", [None, 1])
def test_replicates_are_scikit_learns_weighted_metrics(decimals):
    data = case(decimals=decimals)
    found = replicates(data, resamples=20, seed=3)
    _, codes = np.unique(data["patients"], return_inverse=True)
    for index in range(20):
        image_weights = resample(codes.max() + 1, seed=3, index=index)[codes]
        areas = []
        for c, name in enumerate("abc"):
            valid = data["mask"][:, c]
            y, p, weights = data["targets"][valid, c], data["probs"][valid, c], image_weights[valid]
            expected = {
                "auroc": sk.roc_auc_score(y, p, sample_weight=weights),
                "auprc": sk.average_precision_score(y, p, sample_weight=weights),
                "accuracy": sk.accuracy_score(y, p >= 0.5, sample_weight=weights),
            }
            values = {key: found["per_class"][name][key][index] for key in expected}
            assert values == pytest.approx(expected, rel=0, abs=1e-12)
            areas.append([expected["auroc"], expected["auprc"]])
        macro = [found["macro"][key][index] for key in ("auroc", "auprc")]
        np.testing.assert_allclose(macro, np.mean(areas, axis=0), atol=1e-12)
        right = (data["probs"] >= 0.5) == (data["targets"] == 1)
        weights = image_weights[:, None] * data["mask"]
        assert found["macro"]["accuracy"][index] == pytest.approx((right * weights).sum() / weights.sum())


def test_a_resample_draws_whole_patients():
    weights = resample(80, seed=1, index=0)
    assert weights.sum() == 80 and weights.dtype.kind == "i"
    assert not np.array_equal(weights, resample(80, seed=1, index=1))
    mean = np.mean([resample(80, seed=1, index=r) for r in range(500)], axis=0)
    assert np.abs(mean - 1).max() < 0.2


def test_same_seed_same_replicates_whatever_the_threads_and_the_row_order():
    data = case()
    once = replicates(data, resamples=30, seed=5, workers=1)["macro"]["auprc"]
    order = np.random.default_rng(0).permutation(300)
    shuffled = {k: v if k == "classes" else v[order] for k, v in data.items()}
    again = replicates(shuffled, resamples=30, seed=5, workers=3)["macro"]["auprc"]
    np.testing.assert_allclose(again, once, atol=1e-12)
    assert not np.array_equal(replicates(data, resamples=30, seed=6)["macro"]["auprc"], once)


def test_differences_of_two_models_are_paired():
    data = case()
    same = {**data, "probs": data["probs"] ** 2}  # another scale, the same ranking
    for key in ("auroc", "auprc"):
        differences = replicates(data)["macro"][key] - replicates(same)["macro"][key]
        np.testing.assert_allclose(differences, 0, atol=1e-12)


def test_a_class_of_one_label_stays_out_of_the_macro():
    data = case()
    found = replicates(data, resamples=10)
    assert np.isnan(found["per_class"]["d"]["auroc"]).all()
    assert np.isfinite(found["per_class"]["d"]["accuracy"]).all()
    assert np.isfinite(found["macro"]["auroc"]).all()


def test_undefined_resamples_are_left_out_and_counted():
    rare = np.arange(20) == 2  # one positive patient: absent from 36% of the resamples
    data = {
        "probs": np.repeat(np.linspace(0.9, 0.1, 20)[:, None], 2, axis=1),
        "targets": np.stack([rare, np.arange(20) % 2], axis=1).astype(float),
        "mask": np.ones((20, 2), bool),
        "classes": ["a", "b"],
        "patients": np.arange(20),
    }
    found = replicates(data, resamples=500)
    absent = np.isnan(found["per_class"]["a"]["auroc"])
    assert 0.25 < absent.mean() < 0.45
    assert np.array_equal(absent, np.isnan(found["macro"]["auroc"]))
    metrics = masked_metrics(data["probs"], targets=data["targets"], mask=data["mask"], classes=data["classes"])
    extended = with_intervals(metrics, found)
    assert extended["macro"]["undefined_resamples"] == absent.sum()
    low, high = extended["per_class"]["a"]["auroc_ci"]
    assert low < metrics["per_class"]["a"]["auroc"] < high


def test_intervals_stand_beside_the_metrics():
    data = case()
    arguments = {key: data[key] for key in ("targets", "mask", "classes")}
    metrics = masked_metrics(data["probs"], **arguments)
    extended = with_intervals(metrics, replicates(data))
    for values in (extended["macro"], *(extended["per_class"][name] for name in "abc")):
        for key in ("auroc", "auprc", "accuracy"):
            low, high = values[f"{key}_ci"]
            assert low < values[key] < high
    assert np.isnan(extended["per_class"]["d"]["auroc_ci"]).all()
    assert extended["per_class"]["d"]["undefined_resamples"] == 1000
    assert "auroc_ci" not in metrics["macro"]


def test_every_figure_says_on_how_many_patients_it_rests():
    data = case()
    found = replicates(data, resamples=200)
    for c, name in enumerate("abc"):
        valid = data["mask"][:, c]
        sides = [len(set(data["patients"][valid & (data["targets"][:, c] == value)])) for value in (0, 1)]
        assert found["per_class"][name]["patients"]["auprc"] == min(sides)
        assert found["per_class"][name]["patients"]["accuracy"] == len(set(data["patients"][valid]))
    rests = [found["per_class"][name]["patients"]["auroc"] for name in "abc"]
    assert min(rests) < found["macro"]["patients"]["auroc"] <= sum(rests) - 2  # Satterthwaite


def test_interval_is_the_percentiles_of_what_is_defined():
    values = np.append(np.arange(101.0), np.nan)
    assert interval(values) == pytest.approx((2.5, 97.5))
    assert np.isnan(interval(np.full(3, np.nan))).all()


def test_intervals_cover_the_truth_and_image_resampling_would_not():
    """60 patients of 4 images, within-patient correlation 0.7, true AUROC Phi(1 / sqrt 2).

    200 data sets: the rate of a true 95% interval has a standard error of 0.015, hence 0.90 to 0.99.
    """
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(60), 4)
    targets = np.tile((patients % 2).astype(float)[:, None], 200)
    shared = rng.normal(size=(60, 200))[patients]
    probs = ndtr(np.sqrt(0.7) * shared + np.sqrt(0.3) * rng.normal(size=(240, 200)) + targets)
    arguments = {"targets": targets, "mask": targets >= 0, "classes": range(200), "resamples": 200}
    truth, covered = ndtr(1 / np.sqrt(2)), []
    for units in (patients, np.arange(240)):
        found = bootstrap_metrics(probs, patients=units, **arguments)["per_class"].values()
        bounds = np.array([interval(arrays["auroc"]) for arrays in found])
        covered.append(np.mean((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])))
    assert 0.90 <= covered[0] <= 0.99
    assert covered[1] < 0.85


def test_bad_arguments_are_refused():
    data = case()
    with pytest.raises(ValueError, match="resamples is 0"):
        replicates(data, resamples=0)
    with pytest.raises(ValueError, match="299 patients were given for 300 rows"):
        replicates({**data, "patients": data["patients"][1:]})
