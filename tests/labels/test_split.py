from itertools import product

import numpy as np
import pytest

from src.labels.split import PATIENT_WEIGHT, patient_split

FRACTIONS = {"val": 0.1, "test": 0.1}


def synthetic(n_patients, *, seed=0, prevalences=(0.5, 0.2, 0.05, 0.01)):
    """labels [N, C] of 1, 0, -1, NaN and patients [N]: study counts with a heavy tail, findings that stay."""
    rng = np.random.default_rng(seed)
    sizes = np.minimum(np.ceil(rng.pareto(1.5, n_patients) + 0.2), 80).astype(int)
    patients = np.repeat(np.arange(n_patients), sizes)
    inclined = rng.beta(0.3, 0.3 * (1 / np.array(prevalences) - 1), size=(n_patients, len(prevalences)))
    labels = (rng.random((len(patients), len(prevalences))) < inclined[patients]).astype(float)
    labels[rng.random(labels.shape) < 0.3] = np.nan
    labels[rng.random(labels.shape) < 0.05] = -1
    return labels, patients


def imbalance(labels, split, fractions):
    """Worst relative deviation in val and test where a count is 500 or more, worst count deviation below."""
    hits = np.hstack([labels == 1, labels == 0])
    counts = hits.sum(axis=0)
    target = np.outer(list(fractions.values()), counts)
    off = np.abs([hits[split == name].sum(axis=0) for name in fractions] - target)
    return (off / target)[:, counts >= 500].max(), off[:, counts < 500].max()


def test_twenty_equal_patients_are_dealt_out_exactly():
    labels = np.array([[1.0, np.nan], [1.0, 0.0]] * 10 + [[0.0, 1.0], [0.0, -1.0]] * 10)
    split = patient_split(labels, np.repeat(np.arange(20), 2), fractions=FRACTIONS, seed=0)
    for name, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        for value in (1, 0):
            np.testing.assert_allclose(np.sum(labels[split == name] == value, axis=0), share * np.array([20, 10]))


@pytest.mark.parametrize("fractions", [FRACTIONS, {"val": 0.1}, {"val": 0.1, "test": 0.3}])
def test_tolerances_hold_where_a_random_split_breaks_them(fractions):
    labels, patients = synthetic(6000)
    edges = np.cumsum(list(fractions.values()))
    for seed in range(3):
        deviation, off = imbalance(labels, patient_split(labels, patients, fractions=fractions, seed=seed), fractions)
        assert deviation <= 0.02 and off <= 5
        place = np.searchsorted(edges, np.random.default_rng(seed).random(6000))
        at_random = np.array([*fractions, "train"])[place][patients]
        assert imbalance(labels, at_random, fractions)[0] > 0.05


@pytest.mark.parametrize("fractions", [FRACTIONS, {"val": 0.5, "test": 0.45}, {"val": 0.5, "test": 0.5}, {"val": 1.0}])
@pytest.mark.parametrize("n_patients", [3, 4, 30, 3000])
def test_each_patient_is_in_one_split_and_no_split_is_empty(n_patients, fractions):
    labels, patients = synthetic(n_patients, seed=n_patients)
    for seed in range(3):
        split = patient_split(labels, patients, fractions=fractions, seed=seed)
        assert set(split) == ({*fractions} if sum(fractions.values()) == 1 else {"train", *fractions})
        assert all(len(set(split[patients == patient])) == 1 for patient in range(n_patients))


def test_small_data_with_a_patient_of_56_images_stay_within_four_images():
    labels, patients = synthetic(200, prevalences=(0.5, 0.3, 0.2, 0.1, 0.1, 0.05, 0.05, 0.03))
    assert np.bincount(patients).max() == 56
    for seed in range(20):
        split = patient_split(labels, patients, fractions=FRACTIONS, seed=seed)
        for name, value in product(FRACTIONS, (0, 1)):
            held = (labels == value)[split == name].sum(axis=0)
            assert np.abs(held - 0.1 * (labels == value).sum(axis=0)).max() <= 4


def test_no_move_and_no_swap_of_two_patients_would_be_better():
    labels, patients = synthetic(16, seed=3, prevalences=(0.5, 0.3))
    fractions = {"val": 0.25, "test": 0.25}
    names = np.array(["train", *fractions])
    images = np.hstack([labels == 1, labels == 0, np.ones((len(labels), 1))])
    counts = np.array([images[patients == patient].sum(axis=0) for patient in range(16)])
    counts = np.hstack([counts, counts > 0])
    assert counts.any(axis=0).all()
    importance = np.repeat([1, PATIENT_WEIGHT], counts.shape[1] // 2)

    def cost(home):
        target = np.outer([0.5, 0.25, 0.25], counts.sum(axis=0))
        held = np.array([counts[home == name].sum(axis=0) for name in names])
        return (importance * (held - target) ** 2 / target).sum()

    for seed in range(5):
        split = patient_split(labels, patients, fractions=fractions, seed=seed)
        home = split[np.unique(patients, return_index=True)[1]]
        least = cost(home) - 1e-5
        for patient, other in product(range(16), range(16)):
            swapped = home.copy()
            swapped[[patient, other]] = home[[other, patient]]
            assert cost(swapped) >= least
        for patient, name in product(range(16), names):
            moved = home.copy()
            moved[patient] = name
            assert cost(moved) >= least


def test_images_and_patients_stay_in_proportion():
    labels, patients = synthetic(4000)
    labels[patients % 2 == 0] = np.nan  # half the patients have no label to go by
    _, first = np.unique(patients, return_index=True)
    for seed in range(3):
        split = patient_split(labels, patients, fractions=FRACTIONS, seed=seed)
        for name in FRACTIONS:
            assert np.mean(split == name) == pytest.approx(0.1, abs=0.0005)
            assert np.mean(split[first] == name) == pytest.approx(0.1, abs=0.004)


def test_row_order_and_type_of_the_ids_do_not_matter():
    labels, patients = synthetic(300)
    split = patient_split(labels, patients, fractions=FRACTIONS, seed=5)
    shuffled = np.random.default_rng(1).permutation(len(patients))
    again = patient_split(labels[shuffled], patients[shuffled].astype(str), fractions=FRACTIONS, seed=5)
    np.testing.assert_array_equal(again, split[shuffled])


def test_a_seed_repeats_and_another_seed_is_as_good_as_a_fresh_draw():
    labels, patients = synthetic(2000)
    splits = [patient_split(labels, patients, fractions=FRACTIONS, seed=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(splits[0], splits[1])
    first, other = (set(patients[split == "val"]) for split in splits[1:])
    assert len(first & other) < 0.2 * len(first)  # 0.1 by chance


def test_a_patient_with_many_images_can_be_in_any_split_that_has_room():
    labels = np.vstack([np.ones((40, 1)), np.tile([[1.0], [0.0]], (500, 1))])
    patients = np.concatenate([np.zeros(40), np.arange(1, 1001)])
    where = [patient_split(labels, patients, fractions=FRACTIONS, seed=seed)[0] for seed in range(40)]
    assert set(where) == {"train", "val", "test"}
    assert where.count("train") > 20


def test_a_patient_too_large_for_val_goes_to_train():
    labels, patients = synthetic(60, prevalences=(0.5,))
    patients = np.concatenate([patients % 60, np.full(200, 60)])
    labels = np.vstack([labels, np.ones((200, 1))])
    for seed in range(10):
        assert patient_split(labels, patients, fractions=FRACTIONS, seed=seed)[-1] == "train"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fractions": {"val": 0.0}}, "fraction of val is 0.0"),
        ({"fractions": {"val": float("nan")}}, "fraction of val is nan"),
        ({"fractions": {"val": 0.5, "test": 0.6}}, "sum to 1.1"),
        ({"fractions": {}}, "name each split but train"),
        ({"fractions": {"train": 0.8}}, "name each split but train"),
        ({"patients": ["a", "b"]}, r"patients has shape \(2,\); expected one patient id for each of 4 rows"),
        ({"patients": ["a", None, "b", "c"]}, "1 of 4 rows have no patient id, the first is row 1"),
        ({"patients": ["a", "b", " ", "c"]}, "1 of 4 rows have no patient id, the first is row 2"),
        ({"patients": ["a", "a", "b", "b"]}, r"3 splits \(train, val, test\) need as many patients, got 2"),
        ({"patients": ["a"] * 4, "fractions": {"val": 0.5}}, r"2 splits \(train, val\) need as many patients, got 1"),
        ({"labels": np.ones(4)}, r"labels have shape \(4,\)"),
        ({"labels": np.ones((0, 2)), "patients": []}, r"labels have shape \(0, 2\)"),
        ({"labels": np.array([[1], [0], [0.5], [-1]])}, "labels hold 0.5 at row 2, column 0"),
    ],
)
def test_bad_arguments_are_told_in_one_line(change, message):
    good = {"labels": np.ones((4, 2)), "patients": ["a", "b", "c", "d"], "fractions": FRACTIONS}
    arguments = good | change
    with pytest.raises(ValueError, match=message) as caught:
        patient_split(arguments["labels"], arguments["patients"], fractions=arguments["fractions"], seed=0)
    assert "\n" not in str(caught.value)
