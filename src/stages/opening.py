"""How every stage after the first begins: with the manifest of the run."""

from pathlib import Path

from src.artifacts.manifest import Manifest, read_manifest


def open_manifest(run_dir: Path) -> Manifest:
    """The manifest of a run; prints, in one line, what stage 1 was told to leave out and whose labels there are."""
    manifest = read_manifest(run_dir)
    if manifest.notes:
        print("; ".join(manifest.notes))
    return manifest
