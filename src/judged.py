"""What thresholds are chosen and judged on: a split's probabilities beside the labels of the same images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from src.artifacts import Manifest, entry, read_json, writer_of
from src.probs import Truth, View, read_stage_probs


@dataclass(frozen=True)
class JudgedSplit:
    """Probabilities [N, C] of one split, the labels they are judged by, and the patients as numbers [N]."""

    name: str
    probs: np.ndarray
    view: View
    patients: np.ndarray

    @classmethod
    def of(
        cls, name: str, probs: np.ndarray, truth: Truth, *, uncertain: Sequence[str], missing: Sequence[str]
    ) -> "JudgedSplit":
        """Probabilities [N, C] in the order of `truth`, under an evaluation policy; a soft target raises ValueError."""
        view = View.of(truth, uncertain=uncertain, missing=missing)
        return cls(name, probs, view, np.unique(truth.patients, return_inverse=True)[1])

    def entries(self, c: int) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities and targets of the valid entries of class `c`, [n] each."""
        valid = self.view.mask[:, c]
        return self.probs[valid, c], self.view.targets[valid, c]


def read_blend(run_dir: Path, manifest: Manifest) -> list[tuple[Truth, np.ndarray]]:
    """The truth of val and of test, and the blend [N, C] that stage 5 left of each.

    Raises ValueError where a model was trained or tested again since, or a file is of another manifest or was changed.
    A model whose folder was removed does not matter: the blend stands by itself.
    """
    folder = run_dir / "ensemble"
    blended = {"members_sha256": {}} | read_json(folder / "probs.json")
    for model, digests in entry(blended, "members_sha256", dict, path=folder / "probs.json").items():
        story = run_dir / model / "probs.json"
        if not story.exists() and not (run_dir / model / "best.pt").exists():
            continue
        if not story.exists():  # training removes it
            raise ValueError(
                f"{model} was trained again since it was blended; run {writer_of(story)} --overwrite, then "
                f"{writer_of(folder / 'probs.json')} --overwrite"
            )
        if read_json(story).get("probs_sha256") != digests:
            raise ValueError(f"{model} was tested again since it was blended; run ensemble_alpha_search.py --overwrite")
    pairs = []
    for name in ("val", "test"):
        truth = Truth.of_split(manifest, name)
        pairs.append((truth, read_stage_probs(folder, name, manifest).aligned(truth.ids, truth.classes)))
    return pairs
