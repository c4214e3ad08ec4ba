"""A counter of epochs without a better score."""

import math


class EarlyStopping:
    """Count the epochs since the best score; no I/O.

    `best` is the best score so far (higher is better, -inf before any), `waited` the epochs since. A NaN is never
    better than a score; while there is none, the latest epoch is the one to keep.
    """

    def __init__(self, patience: int):
        self.patience = patience
        self.best = -math.inf
        self.waited = 0

    def step(self, score: float) -> bool:
        """Take in an epoch's score; True where it is the one to keep."""
        if score > self.best:
            self.best, self.waited = score, 0
            return True
        self.waited += 1
        return self.best == -math.inf

    @property
    def should_stop(self) -> bool:
        """True after `patience` epochs without a better score."""
        return self.waited >= self.patience

    def state_dict(self) -> dict[str, float]:
        """What `load_state_dict` takes to go on counting."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on counting from `state`."""
        self.best, self.waited = state["best"], int(state["waited"])
