"""The report's sections beside the explorer, from what the other stages left; a stage that left nothing is said.

Each part is a mapping JSON can hold. Where there is nothing to show it is {"absent": a sentence that names the stage}.
"""

import base64
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from PIL import Image

from src.artifacts.io import MODELS, read_json, read_stage_table, read_table, writer_of
from src.artifacts.lineage import COUNTED
from src.artifacts.manifest import Manifest
from src.artifacts.probs import read_stage_probs
from src.artifacts.truth import EvalSplit
from src.labels.eda import ALL, STATES, count_states, with_rates
from src.labels.files import SPLITS
from src.plots.results import CURVES, MONITORS, kept_epoch
from src.plots.results import reliability as draw_reliability
from src.runtime.flags import flag_of
from src.runtime.system_errors import in_words
from src.runtime.tables import plural, with_interval
from src.stats.calibration import masked_calibration, reliability
from src.stats.calibration_maps import METHODS
from src.stats.subgroups import COLUMNS as SUBGROUPS

HISTORY = ("epoch", "train_loss", "val_loss", "val_auroc", "val_auprc", "lr")
LEARNING_CURVES = {
    "train_loss": "Training loss",
    "val_loss": "Validation loss: if it rises while the training loss falls, the model overfits",
    "val_auprc": "Validation AUPRC, mean over findings",
}
READER_CURVES = {"precision_recall": "Precision over recall", "roc": "Recall over 1 - specificity"}
CALIBRATION = ("raw", "corrected")
FIGURES = ("auroc", "auprc", "accuracy", "positives", "negatives", "prevalence", "classes")


def data_part(manifest: Manifest | None) -> dict[str, Any]:
    """The data set, the sizes of the splits, and the checks they failed."""
    if manifest is None:
        return absent(
            "The probabilities come from another program, so this folder has no split; check_split.py makes one."
        )
    table = manifest.table
    sizes = [
        (split, len(rows), rows["study_id"].nunique(), rows["patient_id"].nunique())
        for split in SPLITS
        if len(rows := table[table["split"] == split])
    ]
    sizes.append((ALL, len(table), table["study_id"].nunique(), table["patient_id"].nunique()))
    about = {key: manifest.meta[key] for key in ("dataset", "split", "failed")} | {"notes": manifest.notes}
    return about | {"sizes": sizes, "findings": len(manifest.classes)}


def labels_part(run_dir: Path, manifest: Manifest | None) -> list[dict[str, Any]] | dict[str, str]:
    """The pictures of stage 2 that show label states and prevalence.

    Raises ValueError if its table is of a different manifest.
    """
    folder = Path(run_dir) / "eda"
    path = folder / "label_states.csv"
    if manifest is None or not path.exists():
        return absent("The labels of this run have not been described; eda_labels.py does that.")
    states = count_states(
        manifest.labels(),
        groups=manifest.table["split"].to_numpy(),
        order=(ALL, *SPLITS),
        classes=manifest.classes,
        name="split",
    )
    table = read_table(path, dtype={"split": str, "class": str}, keep_default_na=False)
    if not table.astype(str).equals(states.astype(str)):
        raise ValueError(f"{path} describes a different manifest than the run's; run eda_labels.py --overwrite")
    counts = [
        f"{row['class']} " + ", ".join(f"{row[state]:,} {state}" for state in STATES)
        for _, row in states[states["split"] == ALL].iterrows()
    ]
    rates = with_rates(states[states["split"] != ALL]).groupby("class", sort=False)
    shares = [
        f"{name} " + ", ".join(f"{with_interval(row, 'prevalence')} in {row['split']}" for _, row in rows.iterrows())
        for name, rows in rates
    ]
    valid = "among the images labeled positive or negative"
    texts = {
        "label_states": ("Labels of all images", f"Images per label: {'; '.join(counts)}."),
        "prevalence": (f"Prevalence: the share of positives {valid}", f"Prevalence {valid}: {'; '.join(shares)}."),
    }
    return [
        picture(folder / f"{name}.png", script="eda_labels.py", alt=alt, caption=caption)
        for name, (caption, alt) in texts.items()
    ]


def history_part(run_dir: Path, model: str, manifest: Manifest | None) -> dict[str, Any]:
    """A model's learning curves; ValueError if it was trained on a different manifest."""
    folder = Path(run_dir) / model
    script = f"train_{MODELS[model]}.py"
    if not (folder / "history.csv").exists():
        return absent(f"{model} was not trained in this run; {script} does that.")
    settings = read_json(folder / "config.json")
    if manifest is not None and settings.get("manifest_sha256") != manifest.sha256:
        raise ValueError(f"{folder} was trained on a different manifest than the run's; run {script} --overwrite")
    table = _numbers(folder / "history.csv", HISTORY)
    text, monitor = f"{plural(len(table), 'epoch')}.", settings.get("monitor", "auprc")
    best = kept_epoch(table, monitor=monitor)
    if best is not None:
        value = best[f"val_{monitor}"]
        text += f" Epoch {best['epoch']:.0f} was kept, with the best {MONITORS[monitor]}, {value:.3f}."
    pictures = []
    for name, caption in LEARNING_CURVES.items():
        first, last = (with_interval(table.iloc[row], name) for row in (0, -1))
        alt = f"{CURVES[name][0].capitalize()} of {model}: {first} after the first epoch, {last} after the last. {text}"
        pictures.append(picture(folder / f"{name}.png", script=script, alt=alt, caption=caption))
    return {"text": text, "pictures": pictures}


def _numbers(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """The columns of a table that a stage left, as numbers; only the first may not be blank."""
    table = read_stage_table(path, columns)[list(columns)]
    numbers = table.apply(pd.to_numeric, errors="coerce")
    if table.empty or numbers[columns[0]].isna().any() or (numbers.isna() & table.notna()).any(axis=None):
        raise ValueError(f"{path} has no rows, or a value that is not a number; run {writer_of(path)} --overwrite")
    return numbers


def metrics_part(folder: Path, split: str, *, script: str) -> dict[str, Any]:
    """`metrics_<split>.json` of a model or of the blend, all views of the labels; `script` writes it."""
    path = Path(folder) / f"metrics_{split}.json"
    if not path.exists():
        return absent(f"{path.parent.name} has no metrics on {split}; {script} makes them.")
    found = read_json(path)
    try:
        views = {"masked": found, "blank": found["blank_as_negative"]}
        if "no_finding_as_negative" in found:
            views["no_finding"] = found["no_finding_as_negative"]
        classes = found["per_class"].keys()
        if not classes or any(view["per_class"].keys() != classes for view in views.values()):
            raise KeyError("per_class")
        part: dict[str, Any] = {name: _view(view) for name, view in views.items()}
        if "calibration" in found:
            part["calibration"] = {
                kind: found["calibration"][kind]["macro"]["calibration_error"] for kind in CALIBRATION
            }
            part["method"] = METHODS[found["calibration"].get("method", "prior")]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not hold what {script} writes ({error}); run {script} --overwrite") from None
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
        return absent("No models were blended in this run; ensemble_alpha_search.py does that.")
    part = {key: read_json(folder / "alpha.json").get(key) for key in ("members", "weights", "alpha", "select")}
    weights = part["weights"]
    if not isinstance(part["members"], list) or not isinstance(weights, list) or len(weights) != len(part["members"]):
        raise ValueError(
            f"{folder / 'alpha.json'} has no weight for each member; run ensemble_alpha_search.py --overwrite"
        )
    if part["alpha"] is None:
        return part
    if not (folder / "alpha_search.csv").exists():
        again = "ensemble_alpha_search.py --overwrite writes them again."
        return part | {"picture": absent(f"The scores for each alpha are missing; {again}")}
    table = _numbers(folder / "alpha_search.csv", ("alpha", "auprc", "auroc", "accuracy"))
    ends = [f"{row['auprc']:.3f} at alpha {row['alpha']:g}" for _, row in table.iloc[[0, -1]].iterrows()]
    scores = f"{', '.join(ends)}, at most {table['auprc'].max():.3f}"
    shaded = " Shaded: within one standard error of the best. A peak inside it is noise."
    shown = picture(
        folder / "alpha_search.png",
        script="ensemble_alpha_search.py",
        alt=f"Validation AUPRC of the blend over alpha: {scores}. Alpha {part['alpha']} is chosen.",
        caption=f"Validation scores for each alpha.{shaded if part['select'] == 'one-se' else ''}",
    )
    return part | {"picture": shown}


def reliability_part(
    run_dir: Path, eval_split: EvalSplit, manifest: Manifest | None, *, flags: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Reliability diagrams: of the blend, drawn here because no stage draws it, then of each model on test."""
    models = [_model_reliability(Path(run_dir) / model, manifest, flags) for model in MODELS]
    return [_blend_reliability(eval_split), *models]


def _model_reliability(folder: Path, manifest: Manifest | None, flags: Mapping[str, Any]) -> dict[str, Any]:
    """A model's diagrams; the caption says so where it did not count what `flags`, those of stage 6, say."""
    model, script = folder.name, f"test_{MODELS[folder.name]}.py"
    metrics = metrics_part(folder, "test", script=script)
    if manifest is None or not (folder / "probs.json").exists() or "calibration" not in metrics:
        return absent(f"{model} has no reliability diagrams on test; {script} draws them.")
    read_stage_probs(folder, "test", manifest)  # raises where they are of another manifest
    story = read_json(folder / "probs.json")
    changed = {flag_of(key): story[key] for key in COUNTED if key in story and story[key] != flags[key]}
    other = "".join(f"; here {flag} was {v if isinstance(v, str) else ' '.join(v)}" for flag, v in changed.items())
    raw, corrected = (with_interval(metrics["calibration"], kind) for kind in CALIBRATION)
    return picture(
        folder / "reliability_test.png",
        script=script,
        alt=f"Reliability of {model} on test, a diagram per finding. Mean calibration error: {raw} of the raw sigmoid, "
        f"{corrected} with {metrics['method']}.",
        caption=f"{model} on test, before and after {metrics['method']}{other}",
    )


def _blend_reliability(split: EvalSplit) -> dict[str, Any]:
    curves = []
    for c, name in enumerate(split.view.truth.classes):
        probs, targets = split.entries(c)
        bins = reliability(probs, targets=targets)
        series = {"predicted": bins.prob, "observed": bins.rate, "counts": bins.counts}
        curves.append({"name": name, "series": [{"label": "ensemble", "kind": "after", **series}]})
    macro = masked_calibration(split.probs, **split.view.arrays())["macro"]
    with TemporaryDirectory() as folder:
        return picture(
            draw_reliability(curves, path=Path(folder) / "reliability.png", split=split.name),
            script="report.py",
            alt=f"Reliability of the ensemble on {split.name}, a diagram per finding. Mean calibration error: "
            f"{with_interval(macro, 'calibration_error')}.",
            caption=f"The ensemble on {split.name}, whose probabilities are compared with the thresholds",
        )


def subgroups_part(folder: Path, targets: Iterable[str], *, split: str) -> list[dict[str, Any]] | dict[str, str]:
    """The audit that stage 6 left of each recall target: its picture, and its rows in the order that it gave them."""
    found = {key: path for key in targets if (path := Path(folder) / f"subgroups_recall_{key}.csv").exists()}
    if not found:
        return absent(
            "Recall within groups of patients was not audited; ensemble_threshold_search.py --subgroups sex age view "
            "does that."
        )
    parts = []
    for key, path in found.items():
        texts = dict.fromkeys(("class", "by", "group", "verdict"), str)
        numbers = {name: [""] for name in SUBGROUPS if name not in texts}
        table = read_stage_table(path, SUBGROUPS, dtype=texts, keep_default_na=False, na_values=numbers)
        shown = picture(
            path.with_suffix(".png"),
            script="ensemble_threshold_search.py",
            alt=f"Recall on {split} within groups against {key}, a panel per finding, with the figures of the table.",
            caption=f"Recall on {split} within groups, against the target {key}",
        )
        parts.append({"recall": key, "picture": shown, "rows": table[list(SUBGROUPS)].to_dict("records")})
    return parts


def readers_part(folder: Path, *, split: str) -> list[dict[str, Any]]:
    """The pictures that stage 6 left of readers beside the model; none where no reader was compared."""
    return [
        picture(
            Path(folder) / f"readers_{kind}.png",
            script="ensemble_threshold_search.py",
            alt=f"{title} of the model on {split} with a point per reader, a panel per finding.",
            caption=f"{title} of the model on {split}, with each reader's point",
        )
        for kind, title in READER_CURVES.items()
        if (Path(folder) / "readers.csv").exists()
    ]


def picture(path: Path, *, script: str, alt: str, caption: str) -> dict[str, Any]:
    """A PNG of the run as the page embeds it: {"src": a data URI, "width", "height" [px], "alt", "caption"}.

    It is reduced to 64 colors, which makes it three times smaller with no visible loss. Where the file is missing,
    the part says that `script` draws it. Raises ValueError where the file is not a picture.
    """
    if not path.exists():
        return absent(f"{path.parent.name}/{path.name} is missing; {script} draws it.")
    buffer = io.BytesIO()
    try:
        with Image.open(path) as image:
            image.convert("RGB").quantize(64).save(buffer, "PNG", optimize=True)
    except (OSError, SyntaxError) as error:  # Pillow raises either for a damaged file
        raise ValueError(f"{path} cannot be read as a picture ({in_words(error)}); run {script} --overwrite") from None
    source = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"src": source, "width": image.width, "height": image.height, "alt": alt, "caption": caption}


def absent(sentence: str) -> dict[str, str]:
    """A part that is not there, and which stage would make it."""
    return {"absent": sentence}
