"""What all tests share."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

HEIGHTS = itertools.count(20)  # every picture is another


@pytest.fixture(scope="module", autouse=True)
def small_pictures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Small images in the place of pictures, also in forked processes; modules with DRAWS_PICTURES draw them."""

    def save(figure: Figure, path: Path, **options: object) -> None:
        Image.new("L", (40, next(HEIGHTS))).save(path, "PNG")

    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "DRAWS_PICTURES", False):
            patch.setattr(Figure, "savefig", save)
        yield
