"""Grids from 0 to 1, of thresholds and of blending weights."""

import numpy as np


def unit_grid(step: float, *, flag: str) -> np.ndarray:
    """The multiples of `step` from 0 to 1: [1 / step + 1] float64, ascending.

    Raises ValueError, naming `flag`, for a step that does not divide 1 or is below 1e-5, which would only take memory.
    """
    if not step >= 1e-5:  # NaN too
        raise ValueError(f"{flag} is {step:g}; expected a step of at least 0.00001")
    steps = round(1 / step)
    if steps < 1 or abs(steps * step - 1) > 1e-9:
        raise ValueError(f"{flag} is {step:g}; expected a step that divides 1, such as 0.1 or 0.01")
    return np.arange(steps + 1) / steps
