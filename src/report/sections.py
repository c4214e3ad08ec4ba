"""The report's sections beside the explorer, from what the other stages left; a stage that left nothing is said.

Each part is a mapping JSON can hold. Where there is nothing to show it is {"absent": a sentence that names the stage}.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src.artifacts.io import MODELS, entry, read_json, read_stage_table, read_table
from src.artifacts.manifest import SPLITS, Manifest
from src.artifacts.probs import EvalLabels, EvalSplit, read_stage_probs
from src.labels.eda import ALL, STATES, count_states
from src.stats.calibration import correct_probs, reliability

HISTORY = ("epoch", "train_loss", "val_loss", "val_auroc", "val_auprc", "lr")
FIGURES = ("auroc", "auprc", "accuracy", "positives", "negatives", "prevalence", "classes")


def data_part(manifest: Manifest | None) -> dict[str, Any]:
    """The data set, the sizes of the splits, and the checks they failed."""
    if manifest is None:
        return absent(
            "The probabilities were from another program, so this folder has no split; check_split.py makes one."
        )
    table = manifest.table
    sizes = [
        (split, len(rows), rows["study_id"].nunique(), rows["patient_id"].nunique())
        for split in SPLITS
        if len(rows := table[table["split"] == split])
    ]
    sizes.append((ALL, len(table), table["study_id"].nunique(), table["patient_id"].nunique()))
    about = {key: manifest.meta[key] for key in ("dataset", "split", "failed")}
    return about | {"sizes": sizes, "findings": len(manifest.classes)}


def labels_part(run_dir: Path, manifest: Manifest | None) -> dict[str, Any]:
    """Images per label state, by split and class, as stage 2 counted them.

    Raises ValueError where its table is of another manifest.
    """
    path = Path(run_dir) / "eda" / "label_states.csv"
    if manifest is None or not path.exists():
        return absent("The labels of this run were not described; eda_labels.py does.")
    table = read_table(path, dtype={"split": str, "class": str}, keep_default_na=False)
    order = (ALL, *SPLITS)
    expected = count_states(
        manifest.labels(),
        groups=manifest.table["split"].to_numpy(),
        order=order,
        classes=manifest.classes,
        name="split",
    )
    if not table.astype(str).equals(expected.astype(str)):
        raise ValueError(f"{path} counts another manifest than the run's; run eda_labels.py --overwrite")
    splits = {split: rows[list(STATES)].to_numpy() for split, rows in table.groupby("split", sort=False)}
    return {"classes": manifest.classes, "states": STATES, "splits": splits}


def history_part(run_dir: Path, model: str, manifest: Manifest | None) -> dict[str, Any]:
    """A model's learning curves; ValueError where it was trained on another manifest."""
    folder = Path(run_dir) / model
    script = f"train_{MODELS[model]}.py"
    if not (folder / "history.csv").exists():
        return absent(f"{model} was not trained in this run; {script} does.")
    if manifest is not None and read_json(folder / "config.json").get("manifest_sha256") != manifest.sha256:
        raise ValueError(f"{folder} was trained on another manifest than the run's; run {script} --overwrite")
    table = read_stage_table(folder / "history.csv", HISTORY)[list(HISTORY)]
    numbers = table.apply(pd.to_numeric, errors="coerce")
    if table.empty or numbers["epoch"].isna().any() or (numbers.isna() & table.notna()).any(axis=None):
        raise ValueError(
            f"{folder / 'history.csv'} has no epochs, or a value that is not a number; run {script} --overwrite"
        )
    score = numbers["val_auprc"]
    kept = int(table["epoch"][score.idxmax()]) if score.notna().any() else None
    return {"kept": kept, **{column: numbers[column].to_numpy() for column in HISTORY}}


def metrics_part(folder: Path, split: str, *, script: str) -> dict[str, Any]:
    """`metrics_<split>.json` of a model or of the blend, both views of the labels; `script` writes it."""
    path = Path(folder) / f"metrics_{split}.json"
    if not path.exists():
        return absent(f"{path.parent.name} has no metrics on {split}; {script} makes them.")
    found = read_json(path)
    try:
        part = {"masked": _view(found), "blank": _view(found["blank_as_negative"])}
        if not found["per_class"] or found["per_class"].keys() != found["blank_as_negative"]["per_class"].keys():
            raise KeyError("per_class")
        if "calibration" in found:
            part["calibration"] = {name: found["calibration"][name]["macro"] for name in ("raw", "corrected")}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not what {script} writes ({error}); run {script} --overwrite") from None
    return part | {"loss": found.get("loss")}


def _view(metrics: Mapping[str, Any]) -> dict[str, Any]:
    kept = [*FIGURES, *(f"{name}_ci" for name in FIGURES[:3])]

    def only(values: Mapping[str, Any]) -> dict[str, Any]:
        return {key: values[key] for key in kept if key in values}

    return {
        "macro": only(metrics["macro"]),
        "per_class": [{"name": name, **only(values)} for name, values in metrics["per_class"].items()],
    }


def alpha_part(folder: Path) -> dict[str, Any]:
    """The weights of the blend, and validation scores over alpha where two models were blended."""
    folder = Path(folder)
    if not (folder / "alpha.json").exists():
        return absent("Nothing was blended in this run; ensemble_alpha_search.py does.")
    part = {key: read_json(folder / "alpha.json").get(key) for key in ("members", "weights", "alpha", "select")}
    weights = part["weights"]
    if not isinstance(part["members"], list) or not isinstance(weights, list) or len(weights) != len(part["members"]):
        raise ValueError(
            f"{folder / 'alpha.json'} has no weight for each member; run ensemble_alpha_search.py --overwrite"
        )
    if part["alpha"] is None:
        return part
    if not (folder / "alpha_search.csv").exists():
        return part | {"gone": "Its scores over alpha are gone; ensemble_alpha_search.py --overwrite makes them again."}
    table = read_stage_table(folder / "alpha_search.csv", ("alpha", "auprc", "auroc", "accuracy"))
    return part | {"curve": {name: table[name].to_numpy() for name in table}}


def reliability_part(run_dir: Path, eval_split: EvalSplit, manifest: Manifest | None) -> list[dict[str, Any]]:
    """Observed share over predicted probability in ten bins: the blend's probabilities, then each model's on test.

    A list of {"name", "classes": per class a list of series {"kind", "predicted", "observed", "counts"}}.
    """
    groups = [{"name": "ensemble", "classes": _bins({"blend": eval_split.probs}, eval_split.view)}]
    if manifest is None or eval_split.view.truth.classes != manifest.classes or eval_split.name != "test":
        return groups
    for model in MODELS:
        folder = Path(run_dir) / model
        if not (folder / "probs.json").exists():
            continue
        story = read_json(folder / "probs.json")
        truth = eval_split.view.truth
        probs = read_stage_probs(folder, "test", manifest)
        if len(probs.ids) != len(truth.ids) or set(probs.ids) != set(truth.ids):
            continue  # test probabilities from another program, of other images
        probs = probs.aligned(truth.ids, truth.classes)
        recorded = entry(story, "pos_weight", dict, path=folder / "probs.json")
        weight = np.array([entry(recorded, name, float, path=folder / "probs.json") for name in truth.classes])
        if entry(story, "prior_correction", bool, path=folder / "probs.json"):
            pair = {"before": correct_probs(probs, pos_weight=1 / weight), "after": probs}
        else:
            pair = {"before": probs, "after": correct_probs(probs, pos_weight=weight)}
        groups.append({"name": model, "classes": _bins(pair, eval_split.view)})
    return groups


def _bins(kinds: Mapping[str, np.ndarray], view: EvalLabels) -> list[list[dict[str, Any]]]:
    classes = []
    for c in range(len(view.truth.classes)):
        valid, series = view.mask[:, c], []
        for kind, probs in kinds.items():
            bins = reliability(probs[valid, c], targets=view.targets[valid, c])
            shares = {"predicted": bins.prob.round(4), "observed": bins.rate.round(4), "counts": bins.count}
            series.append({"kind": kind, **shares})
        classes.append(series)
    return classes


def absent(sentence: str) -> dict[str, str]:
    """A part that is not there, and which stage would make it."""
    return {"absent": sentence}
