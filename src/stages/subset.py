"""Which images of a data set take part, a part of stage 1: those of a view, and those whose file exists."""

from src.config import SplitConfig
from src.images.check import existing
from src.labels.files import LabelSource, paths_of
from src.runtime.tables import plural


def subset(config: SplitConfig, source: LabelSource) -> tuple[LabelSource, list[str]]:
    """The images that --views and --images ask for, and a line for each of the two flags that says what it left out.

    Raises ValueError where a view is asked for and none is known, and where no image is left.
    """
    filters = []
    if config.views != "all":
        source, left_out = _of_view(config, source)
        filters.append(f"--views {config.views} left out {left_out}")
    if config.images == "present":
        source, left_out = _with_file(config, source)
        filters.append(f"--images present left out {left_out}")
    return source, filters


def _of_view(config: SplitConfig, source: LabelSource) -> tuple[LabelSource, str]:
    views = source.table["view"]
    kept = views == config.views
    unknown, others = int((views == "").sum()), int((~kept & (views != "")).sum())
    if unknown == len(views):
        remedy = "name its column with --view-column, or leave --views out" if source.name == "csv" else "leave it out"
        raise ValueError(f"--views {config.views}: {config.data} does not say which images are frontal; {remedy}")
    if not kept.any():
        raise ValueError(f"--views {config.views}: {config.data} has no {config.views} image; leave it out")
    other = "lateral" if config.views == "frontal" else "frontal"
    return source.keep(kept), f"{plural(others, f'{other} image')} and {unknown:,} of unknown view"


def _with_file(config: SplitConfig, source: LabelSource) -> tuple[LabelSource, str]:
    paths = paths_of(source.table)
    kept = existing(source.image_root, paths)
    if not any(kept):
        raise ValueError(
            f"--images present: none of the {len(kept):,} images is in {source.image_root}, such as "
            f"{paths[0]}; name the folder that the paths are relative to with --image-root"
        )
    return source.keep(kept), f"{plural(len(kept) - sum(kept), 'image')} whose file does not exist"
