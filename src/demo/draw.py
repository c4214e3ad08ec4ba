"""Draws a synthetic frontal chest radiograph.

The film records attenuation: tissue, bone and metal add to it, air in the lungs takes away from it; a characteristic
curve turns it into gray values.
"""

from collections.abc import Callable, Collection, Mapping

import numpy as np
from scipy.special import expit

from src.demo.anatomy import (
    SIDES,
    Anatomy,
    Film,
    Shape,
    airway_strokes,
    bone_strokes,
    spine_strokes,
    torso_outlines,
    vessel_strokes,
)
from src.demo.findings import LAID_ON, SHAPING, Scene

FINDINGS = tuple(sorted(SHAPING | LAID_ON))
HEIGHT = 320  # pixels
WIDTHS = (320, 352, 390)  # pixels
_LUNG_AIR = 0.36  # attenuation that a full depth of air takes away


def draw_radiograph(
    findings: Mapping[str, float] | Collection[str],
    *,
    anatomy: Anatomy,
    rng: np.random.Generator,
    portable: bool = False,
    size: tuple[int, int] | None = None,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw a frontal chest radiograph.

    Args:
        findings: finding -> severity in [0, 1] (0 subtle, 1 florid), or names alone (severity 0.5). "Lung Opacity"
            draws an ill-defined haze of its own.
        anatomy: the patient; also fixes on which side and where a finding lies, so that follow-ups show it there.
        rng: pose, breath, exposure and noise of this radiograph; consumed alike whatever the findings are.
        portable: an AP radiograph of a lying patient: a shallower breath, a magnified heart, less contrast.
        size: (height, width) in pixels; the width is drawn from `rng` by default.

    Returns:
        The image, uint8 [H, W], and finding -> bool [H, W] saying where each of `findings` lies.

    Raises:
        ValueError: a name that is not a finding, or a severity outside [0, 1].
    """
    severities = _severities(findings)
    pose, noise = rng.spawn(2)
    width = int(pose.choice(WIDTHS))
    film = Film(
        *(size or (HEIGHT, width)),
        shift=pose.normal((0, 0.03), 0.015),
        angle=pose.normal(0, 0.025),
        zoom=pose.normal(1.12, 0.03),
    )
    shape = Shape(
        anatomy,
        turn=pose.normal(0, 0.006),
        breath=pose.normal(0.03 if portable else 0.0, 0.012),
        reach=pose.uniform(0.0, 0.16),
        heart_scale=1.04 if portable else 1.0,
        widening=anatomy.widening,
    )
    scene = Scene(film, shape)
    _apply(SHAPING, scene, severities)
    tissue = _draw_chest(scene)
    _apply(LAID_ON, scene, severities)
    image = _expose(scene, tissue, pose, noise, contrast=0.9 if portable else 1.0)
    return image, {name: scene.regions[name] for name in severities}


def _severities(findings: Mapping[str, float] | Collection[str]) -> dict[str, float]:
    """Checked name -> severity."""
    severities = dict(findings) if isinstance(findings, Mapping) else dict.fromkeys(findings, 0.5)
    for name, severity in severities.items():
        if name not in FINDINGS:
            raise ValueError(f"finding {name!r} cannot be drawn; expected one of {', '.join(FINDINGS)}")
        if not 0 <= severity <= 1:
            raise ValueError(f"severity of {name} is {severity}; expected a number from 0 to 1")
    return severities


def _apply(steps: Mapping[str, Callable], scene: Scene, severities: Mapping[str, float]) -> None:
    """Run the steps of the findings that are present; each finds its site with a generator of the patient's own."""
    for name, step in steps.items():
        if name in severities:
            step(
                scene,
                severities[name],
                np.random.default_rng([scene.shape.anatomy.key, 1 + FINDINGS.index(name)]),
            )


def _draw_chest(scene: Scene) -> np.ndarray:
    """Fill the scene's lungs, air and markings; returns the attenuation of soft tissue and bone, float32 [H, W]."""
    film, shape, anatomy = scene.film, scene.shape, scene.shape.anatomy
    mediastinum = film.polygons([shape.heart(), shape.great_vessels()], blur=0.006)
    scene.lung = film.polygons([shape.lung(side) for side in SIDES], blur=0.004)
    scene.air = scene.lung * (1 - np.float32(0.92) * mediastinum)
    scene.markings = film.strokes(vessel_strokes(shape), blur=0.0032) * (scene.lung * anatomy.vessels)
    scene.bones = film.strokes(bone_strokes(shape, scene.broken)) * np.float32(1 - 0.004 * max(0, anatomy.age - 50))
    body = film.polygons(torso_outlines(shape), blur=0.015)
    below = np.clip((film.y - 0.55) / 0.35, 0, 1)
    fat = 0.06 * anatomy.habitus
    mediastinum *= 0.12
    mediastinum += below * (0.12 + fat) + (0.55 + fat)
    tissue = body * mediastinum
    tissue += film.strokes(spine_strokes(shape), blur=0.004) * (0.06 - 0.045 * below)
    tissue -= 0.08 * film.strokes(airway_strokes(shape), blur=0.005)
    tissue -= 0.13 * _stomach_bubble(scene)
    if anatomy.breast:
        tissue += 0.085 * anatomy.breast * body * _breasts(film, anatomy)
    return tissue


def _stomach_bubble(scene: Scene) -> np.ndarray:
    """Air under the left dome of the diaphragm."""
    rng = np.random.default_rng([scene.shape.anatomy.key, 100])
    width = rng.uniform(0.03, 0.07)
    center = (rng.uniform(0.12, 0.19), scene.shape.dome(1)[:, 1].min() + 0.035 + 0.6 * width)
    return scene.film.blob(center, (width, 0.55 * width), power=5) * (1 - scene.lung)


def _breasts(film: Film, anatomy: Anatomy) -> np.ndarray:
    """Two breast shadows, denser towards their lower rim."""
    radius, y = 0.11 + 0.05 * anatomy.breast, 0.60 + 0.05 * anatomy.habitus
    discs = sum(film.blob((side * 0.2, y), (radius, 0.95 * radius), power=6) for side in SIDES)
    return discs * np.clip(0.55 + (film.y - y) / radius * 0.6, 0.1, 1)


def _expose(
    scene: Scene, tissue: np.ndarray, pose: np.random.Generator, noise: np.random.Generator, *, contrast: float
) -> np.ndarray:
    """Add scatter and quantum noise and apply the film's sigmoid characteristic curve; uint8 [H, W]."""
    film = scene.film
    depth = _LUNG_AIR + 0.16 * np.clip(film.y - 0.55, 0, 0.35)  # the bases are deeper
    mottle = film.texture(noise, 0.03)
    mottle *= 0.05
    mottle += 1
    mottle *= scene.air
    mottle *= depth
    signal = noise.standard_normal(tissue.shape, dtype=np.float32)
    signal *= noise.uniform(0.007, 0.014)
    signal += 0.015 * film.texture(noise, 0.3)
    signal += tissue
    signal += scene.dense
    signal += scene.bones * (0.03 + 0.07 * scene.air)
    signal += scene.markings * (0.025 + 0.075 * scene.air)
    signal -= mottle
    center, slope = np.float32(pose.normal(0.5, 0.025)), np.float32(pose.normal(4.2, 0.25) * contrast)
    low, high = expit(slope * (np.array([0, 1], np.float32) - center))
    picture = expit(slope * (signal - center))
    return np.clip((255 / (high - low)) * (picture - low), 0, 255).astype(np.uint8)
