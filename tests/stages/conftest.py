"""What the tests of the stages share."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure


@pytest.fixture(autouse=True)
def blank_pictures(monkeypatch):
    """Empty files in the place of pictures, also in forked processes; tests/plots and test_pipeline's run draw them."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: Path(path).touch())
