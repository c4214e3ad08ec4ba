"""How every stage after the first begins: with the manifest of the run."""

from pathlib import Path

from src.artifacts.manifest import Manifest, read_manifest


def open_manifest(run_dir: Path) -> Manifest:
    """The manifest of a run; prints, in one line, which images stage 1 was told to leave out."""
    manifest = read_manifest(run_dir)
    if manifest.filters:
        print("; ".join(manifest.filters))
    return manifest
