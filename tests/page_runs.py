"""Run folders such as the stages leave: drawn scores in the place of models, or models of random weights."""

import functools
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import check_split
import eda_labels
import ensemble_alpha_search
import ensemble_threshold_search
from src.artifacts.io import sha256, write_json, write_table
from src.artifacts.manifest import read_manifest, write_manifest
from src.artifacts.probs import write_probs
from src.artifacts.truth import EvalLabels, Truth, Units
from src.labels.policy import LabelPolicy
from src.plots import results as plots
from src.stages.metric_tables import all_views, calibration_before_and_after, reliability_curves
from tests.trees import make_chexpert

CLASSES = ("Edema", "Rare", "Common", "Never")
RATES = {"Edema": 0.3, "Rare": 0.03, "Common": 0.8, "Never": 0.0}
MODELS = ("resnet50", "efficientnet_b1")
RESAMPLES = 60


def draw_table(
    classes: tuple[str, ...],
    *,
    patients: int,
    seed: int,
    mark: str = "",
    splits: tuple[str, ...] = ("train", "val", "test"),
) -> pd.DataFrame:
    """A manifest's table: one to three studies a patient, one or two images a study, `mark` in every id."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(patients):
        split = splits[patient % len(splits)]
        for study in range(rng.integers(1, 4)):
            rates = [RATES.get(name, 0.3) for name in classes]
            findings = [
                float(rng.random() < rate) if rng.random() < 0.8 else rng.choice([-1, np.nan]) for rate in rates
            ]
            for view in range(rng.integers(1, 3)):
                ids = (f"{mark}p{patient}/s{study}/{view}.png", f"{mark}p{patient}", f"{mark}p{patient}s{study}")
                rows.append((*ids, "frontal", split, *findings))
    return pd.DataFrame(rows, columns=["image_id", "patient_id", "study_id", "view", "split", *classes])


def write_split(run: Path, classes: tuple[str, ...] = CLASSES, **drawn) -> pd.DataFrame:
    """The files of stage 1."""
    table = draw_table(classes, **drawn)
    meta = {"dataset": "csv", "image_root": "/nowhere", "classes": classes, "split": "by patient", "seed": 0}
    numbers = table["patient_id"].str.extract(r"(\d+)$", expand=False).astype(int)
    known = {"sex": np.where(numbers % 2, "M", "F"), "age": 20 + 7 * numbers % 70}
    clear = ~table[list(classes)].isin([1, -1]).any(axis=1)
    context = table[["image_id"]].assign(**known, study_order=0, no_finding=clear.astype(float))
    write_manifest(run, table, meta | {"images": "skip", "failed": [], "sources": {}}, context)
    return table


def write_model(run: Path, model: str, *, seed: int) -> None:
    """What training and testing a model leave, but for the weights."""
    rng = np.random.default_rng(seed)
    manifest = read_manifest(run)
    classes, digest, splits = manifest.classes, manifest.sha256, manifest.scored
    folder = run / model
    for split in splits:
        truth = Truth.of_split(manifest, split)
        units = Units.of(truth, unit="study", aggregate="max")
        probs = 1 / (1 + np.exp(1 - rng.normal(size=truth.labels.shape) - 1.5 * (truth.labels == 1)))
        probs = probs.round(3)  # with ties
        write_probs(folder / f"probs_{split}.csv", ids=truth.ids, classes=classes, values=probs)
        probs, view = units.probs(probs), EvalLabels.of(units.truth, LabelPolicy.parse(classes=classes))
        metrics = {"unit": "study"} | all_views(probs, view, resamples=RESAMPLES, seed=0)
        metrics |= {"loss": 0.5, "calibration": calibration_before_and_after(probs, probs, view, method="prior")}
        write_json(folder / f"metrics_{split}.json", metrics)
    plots.reliability(reliability_curves(probs, probs, view, method="prior"), path=folder / "reliability_test.png")
    digests = {split: sha256(folder / f"probs_{split}.csv") for split in splits}
    story = {"manifest_sha256": digest, "checkpoint_sha256": model, "probs_sha256": digests}
    story |= {"calibration": {"method": "prior", "maps": dict.fromkeys(classes, {"slope": 1.0, "weight": 2.0})}}
    write_json(folder / "probs.json", story)
    write_json(folder / "config.json", {"manifest_sha256": digest})
    scores = {"train_loss": [0.6, 0.5], "val_loss": [0.6, 0.55], "val_auroc": [0.7, 0.8], "val_auprc": [0.5, 0.6]}
    history = pd.DataFrame({"epoch": [1, 2], **scores, "lr": [1e-3, 1e-3]})
    write_table(folder / "history.csv", history)
    plots.learning_curves(history, folder=folder, title=model)


def make_run(run: Path, classes: tuple[str, ...] = CLASSES, *, patients: int = 240, **drawn) -> Path:
    """A run that has gone through stages 1 to 6; `drawn` goes to `draw_table`."""
    write_split(run, classes, patients=patients, seed=1, **drawn)
    eda_labels.main(["--run-dir", str(run)])
    for number, model in enumerate(MODELS, 1):
        write_model(run, model, seed=number)
    ensemble_alpha_search.main(["--run-dir", str(run), "--resamples", str(RESAMPLES), "--step", "0.5"])
    search(run)
    return run


@functools.cache
def random_run(parent: Path) -> Path:
    """A run with checkpoints of random weights, through all stages but training; made once, so not to be changed."""
    import torch

    import test_efficientnet
    import test_resnet
    from src.checkpoint import save_checkpoint
    from src.models import build_model

    root = Path(tempfile.mkdtemp(dir=parent))
    make_chexpert(root / "data", patients=16, valid_patients=6)
    common = ["--run-dir", str(root / "run")]
    check_split.main(["--data", str(root / "data"), "--val-fraction", "0.4", *common])
    manifest = read_manifest(root / "run")
    for seed, (arch, size) in enumerate((("resnet50", 32), ("efficientnet_b1", 48))):
        torch.manual_seed(seed)
        model = build_model(arch, num_classes=len(manifest.classes))
        state = {"arch": arch, "classes": list(manifest.classes), "image_size": size, "epoch": 1, "score": 0.5}
        state |= {"manifest_sha256": manifest.sha256, "model": model.net.state_dict()}
        state |= {"pos_weight": [1.0 + 0.3 * c for c in range(len(manifest.classes))]}
        save_checkpoint(root / "run" / arch / "best.pt", state)
    for script in (test_resnet, test_efficientnet):
        script.main([*common, "--resamples", "0", "--workers", "0", "--calibration-method", "platt"])
    ensemble_alpha_search.main([*common, "--select", "best", "--resamples", "0"])
    thresholds = ["--recall", "0.85", "0.9", "--rule", "empirical", "--resamples", "0", "--no-pictures"]
    ensemble_threshold_search.main([*common, *thresholds])
    return root / "run"


def search(run: Path, *flags: str) -> None:
    """Stage 6 once more; without flags at 0.85 and 0.90."""
    flags = flags or ("--recall", "0.85", "0.90")
    ensemble_threshold_search.main(["--run-dir", str(run), "--no-pictures", "--overwrite", *flags])


def page_data(path: Path) -> dict:
    """What a report holds."""
    text = path.read_text(encoding="utf-8")
    start = text.index('type="application/json">') + len('type="application/json">')
    return json.loads(text[start : text.index("</script>", start)])
