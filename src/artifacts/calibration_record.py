"""How a model's probabilities come from its raw sigmoid, as the probs.json of stages 4 and 5 record it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from src.artifacts.io import is_number, writer_of
from src.stats.calibration_maps import METHODS, ClassMap, OddsMap, StepMap, apply_maps


@dataclass(frozen=True)
class Calibration:
    """One of METHODS and what it made: a map per class, in the order of `classes`."""

    method: str
    classes: tuple[str, ...]
    maps: tuple[ClassMap, ...]

    @property
    def fitted(self) -> bool:
        """Whether labels of val went into it."""
        return self.method not in ("prior", "none")

    def apply(self, probs: np.ndarray) -> np.ndarray:
        """Calibrated probabilities [N, C] float64 of the raw sigmoid, the same to the digit for an image wherever."""
        return apply_maps(self.maps, probs)

    @property
    def can_be_undone(self) -> bool:
        """Whether `undo` has something to undo, and can."""
        return self.method != "none" and all(isinstance(of_class, OddsMap) for of_class in self.maps)

    def undo(self, probs: np.ndarray) -> np.ndarray:
        """The raw sigmoid [N, C] float64 of calibrated probabilities."""
        return apply_maps([of_class.inverse() for of_class in self.maps if isinstance(of_class, OddsMap)], probs)

    def as_json(self) -> dict[str, Any]:
        """What `read_calibration` reads."""
        return {"method": self.method, "maps": dict(zip(self.classes, map(asdict, self.maps), strict=True))}


def read_calibration(found: Any, classes: Sequence[str], *, path: Path) -> Calibration:
    """The calibration of a model, for the classes in this order, from what the probs.json at `path` holds of it.

    Raises ValueError where it is not what stage 4 records, or an earlier version recorded none.
    """
    again = f"run {writer_of(path)} --overwrite"
    if found is None:
        raise ValueError(f"{path} records no calibration because an earlier version wrote it; {again}")
    maps = found.get("maps") if isinstance(found, dict) else None
    if not isinstance(maps, dict) or found.get("method") not in METHODS or set(maps) != set(classes):
        raise ValueError(f"{path}: its calibration has a different method or different classes than the run; {again}")
    return Calibration(found["method"], tuple(classes), tuple(_map(maps[name], name, path, again) for name in classes))


def _map(found: Any, name: str, path: Path, again: str) -> ClassMap:
    """The map of a class."""
    values: dict[str, Any] = found if isinstance(found, dict) else {}
    kinds: dict[frozenset[str], Callable[..., ClassMap]]
    kinds = {frozenset(field.name for field in fields(kind)): kind for kind in (OddsMap, StepMap)}
    kind = kinds.get(frozenset(values))
    numbers = [number for value in values.values() for number in (value if isinstance(value, list) else [value])]
    try:
        if kind is None or not all(map(is_number, numbers)):
            raise ValueError(f"it is {str(found)[:100]}")
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: its calibration of {name} is not an increasing map ({error}); {again}") from None
