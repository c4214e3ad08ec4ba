"""What the tests of the stages share."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure


@pytest.fixture(autouse=True)
def blank_pictures(monkeypatch):
    """Empty files in the place of pictures, which tests/plots and the run of test_pipeline.py draw."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: Path(path).touch())
