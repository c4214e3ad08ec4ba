"""The 13 findings of the synthetic radiographs, each drawn as it looks, with the region where it lies.

A finding either changes the shape of the chest before it is drawn, or is laid on afterwards: it fills air spaces
(`Scene.fill`), adds something dense (`Scene.add`), or, a pneumothorax, takes the lung away.
"""

from dataclasses import replace

import numpy as np

from src.demo.anatomy import SIDES, Film, Shape, curve

_VISIBLE = 0.08  # share of the lung's air that must be gone for a pixel to belong to a finding's region


class Scene:
    """One radiograph in the making. Masks and layers are float32 [H, W]."""

    def __init__(self, film: Film, shape: Shape):
        self.film = film
        self.shape = shape
        self.broken: dict = {}  # name of a bone -> the pieces it is in
        self.regions: dict[str, np.ndarray] = {}  # finding -> bool [H, W]
        self.dense = np.zeros_like(film.x)  # attenuation of bone callus, tubes, plaques
        # Lung fields, share of the depth that is air, lung vessels, skeleton: known once the chest is drawn.
        self.lung = self.air = self.markings = self.bones = self.dense

    def side(self, side: int) -> np.ndarray:
        """Pixels (bool) on that side of the midline."""
        return self.film.x * side > 0

    def mark(self, name: str, where: np.ndarray) -> None:
        """Add the pixels `where` (bool) to the region of a finding."""
        self.regions[name] = self.regions.get(name, False) | where

    def fill(self, name: str, share: np.ndarray) -> None:
        """Replace `share` (0 to 1) of the air by fluid or tissue."""
        self.mark(name, (share > _VISIBLE) & (self.lung > 0.5))
        self.air = self.air * (1 - share)

    def add(self, name: str, mask: np.ndarray, attenuation: float | np.floating) -> None:
        """Lay something dense over the picture."""
        self.mark(name, mask > 0.15)
        self.dense = self.dense + np.float32(attenuation) * mask


def _between(low: float, high: float, severity: float) -> np.float32:
    return np.float32(low + (high - low) * severity)


def _ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, linear between."""
    return np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)


def _sides(site: np.random.Generator, *, both: float) -> tuple[int, ...]:
    """One side, or with probability `both` both of them, the more affected one first."""
    first = int(site.choice(SIDES))
    return (first, -first) if site.random() < both else (first,)


# Findings that change the shape of the chest, in the order in which they are applied.


def _cardiomegaly(scene: Scene, severity: float, site: np.random.Generator) -> None:
    """A cardiothoracic ratio well over one half."""
    scene.shape = replace(scene.shape, heart_scale=_between(1.13, 1.5, severity) / scene.shape.anatomy.heart_width)
    scene.mark("Cardiomegaly", scene.film.polygons([scene.shape.heart()]) > 0.5)


def _enlarged_cardiomediastinum(scene: Scene, severity: float, site: np.random.Generator) -> None:
    """A wide upper mediastinum."""
    scene.shape = replace(scene.shape, widening=scene.shape.widening + _between(0.026, 0.058, severity))
    wide = scene.film.polygons([scene.shape.great_vessels()], blur=0.01) > 0.05
    scene.mark("Enlarged Cardiomediastinum", wide & (np.abs(scene.film.y - 0.29) < 0.18))


def _atelectasis(scene: Scene, severity: float, site: np.random.Generator) -> None:
    """Volume loss: the dome of the diaphragm on that side is drawn up. The plates follow in `_plates`."""
    side = _sides(site, both=0)[0]
    usual = scene.film.polygons([scene.shape.lung(side)])
    scene.shape = replace(scene.shape, raised={side: _between(0.04, 0.10, severity)})
    scene.mark("Atelectasis", usual - scene.film.polygons([scene.shape.lung(side)]) > 0.1)


def _fracture(scene: Scene, severity: float, site: np.random.Generator) -> None:
    """Neighboring ribs, or a clavicle, in two displaced pieces with callus."""
    side = int(site.choice(SIDES))
    bones: list[tuple]
    if site.random() < 0.15:
        bones, at = [("clavicle", side)], site.uniform(0.45, 0.65)
    else:
        first = site.integers(2, 5)
        bones, at = (
            [("rib", side, first + i) for i in range(3 + round(2 * severity))],
            site.uniform(0.5, 0.75),
        )
    gap = _between(0.026, 0.042, severity) * (2.0 if bones[0][0] == "clavicle" else 1.0)
    for bone in bones:
        points = scene.shape.clavicle(side) if bone[0] == "clavicle" else scene.shape.ribs(side)[bone[2]]
        cut = round((at + site.normal(0, 0.015)) * len(points))
        outer = points[cut:] + gap * np.array([-0.5 * side, 1.0])
        scene.broken[bone] = [points[: cut + 1], outer]
        for end in (points[cut], outer[0]):
            scene.add("Fracture", scene.film.blob(end, (0.019, 0.016), power=3), _between(0.2, 0.32, severity))
        scene.mark("Fracture", scene.film.blob(outer[0] - (0, gap / 2), (0.04, 0.04)) > 0.5)


# Findings laid on the chest once it is drawn.


def _plates(scene: Scene, severity: float, site: np.random.Generator) -> None:
    """Plate-like bands of airless lung above the raised dome, and crowded bases under them."""
    side = _sides(site, both=0)[0]
    top = scene.shape.dome(side)[:, 1].min()
    bands = []
    for i in range(2 + round(severity)):
        y = top - 0.03 - 0.045 * i + site.normal(0, 0.006)
        start, stop, tilt = site.uniform(0.08, 0.14), site.uniform(0.24, 0.29), site.uniform(-0.03, 0.05)
        points = curve(
            [
                (side * start, y + tilt / 2),
                (side * (start + stop) / 2, y - 0.004),
                (side * stop, y - tilt / 2),
            ]
        )
        bands.append((points, site.uniform(0.017, 0.026) * np.sin(np.linspace(0.5, 2.6, len(points))), 1.0))
    scene.fill(
        "Atelectasis",
        _between(0.6, 0.95, severity) * scene.film.strokes(bands, blur=0.002) * scene.side(side),
    )
    base = scene.film.blob((side * 0.18, top), (0.11, 0.045)) * scene.side(side)
    scene.fill("Atelectasis", _between(0.15, 0.35, severity) * base)


def _edema(scene: Scene, severity: float, site: np.random.Generator) -> None:
    """Bat-wing haze around both hila, thickened vessels, and Kerley B lines at the bases."""
    film = scene.film
    haze = np.zeros_like(film.x)
    for side in SIDES:
        haze = haze + film.blob((side * 0.14, 0.46), (0.09, 0.16), power=2.6) * scene.side(side)
    haze = haze * (1 + 0.3 * film.texture(site, 0.05))
    scene.fill("Edema", np.clip(_between(0.18, 0.6, severity) * haze, 0, 0.9))
    lines = []
    for side in SIDES:
        for y in np.linspace(0.60, 0.74, 6) + site.normal(0, 0.006, 6):
            edge = side * (scene.shape.wall_x(y) - 0.006)
            lines.append((np.array([(edge, y), (edge - side * site.uniform(0.03, 0.05), y + 0.004)]), 0.005, 1.0))
    kerley = film.strokes(lines, blur=0.0015) * scene.lung
    scene.fill("Edema", _between(0.15, 0.35, severity) * kerley)
    scene.markings = scene.markings * _between(1.0, 1.4, severity)


def _consolidation(scene: Scene, severity: float, site: np.random.Generator) -> None:
    """A lobe full of fluid, sharp along its fissure, with air bronchograms in it."""
    film = scene.film
    side = int(site.choice(SIDES))
    upper = site.random() < 0.5
    if upper:  # above the minor fissure (or its mirror on the left)
        tilt = site.uniform(-0.1, 0.25)
        fissure = 0.40 + site.normal(0, 0.015) + tilt * (np.abs(film.x) - 0.18)
        lobe = _ramp(fissure - film.y, 0, 0.008) * _ramp(film.y, 0.12, 0.24)
        hilum = np.array([side * 0.10, 0.38])
    else:
        lobe = film.blob((side * 0.21, 0.60), (0.095, 0.10), power=5)
        hilum = np.array([side * 0.12, 0.52])
    density = _between(0.6, 0.95, severity) * lobe * scene.side(side)
    headings = np.linspace(-0.9, 0.3, 4) if upper else np.linspace(-0.4, 1.0, 4)
    ends = [hilum + 0.17 * np.array([side * np.cos(a), np.sin(a)]) for a in headings]
    bronchi = [(curve([hilum, (hilum + end) / 2 + site.normal(0, 0.008, 2), end]), 0.007, 1.0) for end in ends]
    density = density * (1 - 0.6 * film.strokes(bronchi, blur=0.002))
    scene.fill("Consolidation", density)


def _pneumonia(scene: Scene, severity: float, site: np.random.Generator) -> None:
    """A cluster of patchy, ill-defined opacities in one zone of one or both lungs."""
    film = scene.film
    for side in _sides(site, both=0.3):
        center = np.array([side * site.uniform(0.15, 0.22), site.uniform(0.34, 0.62)])
        patches = 0.5 * film.blob(center, (0.085, 0.085))
        for _ in range(8):
            spot, sigmas = center + site.normal(0, 0.05, 2), site.uniform(0.02, 0.04, 2)
            patches = np.maximum(patches, site.uniform(0.7, 1) * film.blob(spot, sigmas, power=2.5))
        scene.fill("Pneumonia", _between(0.7, 1.0, severity) * patches * scene.side(side))


def _lung_opacity(scene: Scene, severity: float, site: np.random.Generator) -> None:
    """An ill-defined haze over a wide zone."""
    haze = np.zeros_like(scene.film.x)
    for side in _sides(site, both=0.3):
        center = (side * site.uniform(0.16, 0.22), site.uniform(0.32, 0.6))
        haze = haze + scene.film.blob(center, (0.11, 0.14), angle=site.uniform(-0.4, 0.4)) * scene.side(side)
    scene.fill("Lung Opacity", _between(0.35, 0.65, severity) * haze)


def _lung_lesion(scene: Scene, severity: float, site: np.random.Generator) -> None:
    """One to three round, sharply bordered nodules or masses."""
    count = 1 + int(site.random() < 0.5) + int(site.random() < 0.3)
    for i in range(count):
        side = int(site.choice(SIDES))
        center = (side * site.uniform(0.13, 0.26), site.uniform(0.24, 0.62))
        radius = _between(0.042, 0.07, severity) * (1 if i == 0 else site.uniform(0.6, 0.9))
        lesion = scene.film.blob(center, radius * site.uniform(0.9, 1.1, 2), power=8)
        scene.fill("Lung Lesion", _between(0.7, 1.0, severity) * lesion * scene.side(side))


def _pleural_effusion(scene: Scene, severity: float, site: np.random.Generator) -> None:
    """Fluid that blunts the costophrenic angle and climbs the chest wall in a meniscus."""
    film = scene.film
    for i, side in enumerate(_sides(site, both=0.35)):
        corner = scene.shape.wall(side)[-1].astype(np.float32)
        height = _between(0.11, 0.34, severity) * (1 if i == 0 else site.uniform(0.5, 0.9))
        climb = 0.35 * np.abs(film.x / corner[0]) ** 3
        level = corner[1] - height * (0.8 + climb)
        scene.fill("Pleural Effusion", 0.96 * _ramp(film.y - level, 0, 0.018) * scene.side(side))


def _pleural_other(scene: Scene, severity: float, site: np.random.Generator) -> None:
    """Thickened pleura along the lateral wall, or an apical cap, with an uneven inner edge and some calcium."""
    for side in _sides(site, both=0.4):
        wall = scene.shape.wall(side)
        start, stop = (4, 29) if site.random() < 0.25 else (33, 59)  # of 67 points: mediastinum, apex, ..., angle
        outer = wall[start:stop]
        bulge = np.sin(np.linspace(0, np.pi, len(outer))) ** 0.6
        ripple = 1 + 0.25 * np.sin(np.linspace(0, site.uniform(9, 16), len(outer)) + site.uniform(0, 6))
        inward = np.array([side * 0.13, 0.45]) - outer
        inward /= np.linalg.norm(inward, axis=1, keepdims=True)
        inner = outer + inward * (_between(0.048, 0.074, severity) * bulge * ripple)[:, None]
        peel = scene.film.polygons([np.concatenate([outer - 0.01 * inward, inner[::-1]])], blur=0.004) * scene.side(
            side
        )
        scene.fill("Pleural Other", _between(0.8, 1.0, severity) * peel)
        calcium = [(inner[i : i + 3] * 0.5 + outer[i : i + 3] * 0.5, 0.010, 1.0) for i in range(3, len(outer) - 4, 4)]
        scene.add("Pleural Other", scene.film.strokes(calcium, blur=0.002), _between(0.05, 0.15, severity))


def _pneumothorax(scene: Scene, severity: float, site: np.random.Generator) -> None:
    """A rim of air without lung markings between the chest wall and the edge of a collapsed lung."""
    film, side = scene.film, int(site.choice(SIDES))
    hilum, outline = np.array([side * 0.09, 0.47]), scene.shape.lung(side)
    apical = np.clip((0.88 - outline[:, 1]) / 0.7, 0.12, 1)[:, None]
    edge = outline + _between(0.14, 0.45, severity) * apical * (hilum - outline)
    edge = np.where(np.abs(outline[:, :1]) < 0.07, outline, edge)  # the lung stays fixed to the mediastinum
    rim = scene.lung * scene.side(side) * (1 - film.polygons([edge], blur=0.002))
    line = film.strokes([(edge, 0.006, 1.0)], blur=0.001) * scene.air * scene.side(side)
    scene.mark("Pneumothorax", rim > 0.5)
    scene.markings = scene.markings * (1 - rim)
    scene.air = scene.air * np.where(scene.side(side), 1 - _between(0.05, 0.3, severity) * (1 - rim), 1)
    scene.air = scene.air * (1 + _between(0.25, 0.4, severity) * rim)
    scene.add("Pneumothorax", line, 0.10)


def _support_devices(scene: Scene, severity: float, site: np.random.Generator) -> None:
    """Tubes, catheters, leads or a pacemaker; a more severe patient carries more of them."""
    name, film, side = "Support Devices", scene.film, int(site.choice(SIDES))
    bright = _between(0.17, 0.28, severity)
    kind = site.random()
    lines = [(curve(_catheter(site)), 0.010, 1.0)] if kind < 0.65 or severity > 0.8 else []
    if kind < 0.40:
        wobble = site.normal(0, 0.006, 2)
        tube = curve([(0.004, -0.1), (0.002, 0.1), (-0.002, site.uniform(0.2, 0.25))]) + wobble
        lines += [(tube, 0.024, 0.4), (tube, 0.007, 0.9)]
        lines.append((curve([(-0.012, -0.1), (0.0, 0.3), (0.012, 0.55), (0.03, 0.76), (0.13, 0.88)]), 0.010, 0.8))
    elif kind > 0.85:
        wall = side * (scene.shape.wall_x(0.6) + 0.09)
        lines.append((curve([(wall, 0.68), (side * 0.28, 0.55), (side * 0.22, 0.38), (side * 0.15, 0.2)]), 0.020, 0.8))
    if 0.55 < kind < 0.85:
        _pacemaker(scene, site, lines)
    elif site.random() < 0.7:
        _electrodes(scene, site, lines)
    scene.add(name, film.strokes(lines, blur=0.001), bright)


def _catheter(site: np.random.Generator) -> list:
    """Course of a central venous line from the neck or an arm to the superior vena cava."""
    tip = (-0.055 + site.normal(0, 0.006), site.uniform(0.36, 0.46))
    ways = (
        [(-0.11, -0.05), (-0.085, 0.1), (-0.055, 0.22), tip],  # internal jugular
        [(-0.33, 0.19), (-0.22, 0.15), (-0.10, 0.185), (-0.05, 0.25), tip],  # right subclavian
        [
            (0.55, 0.7),
            (0.46, 0.3),
            (0.36, 0.2),
            (0.22, 0.16),
            (0.07, 0.21),
            (-0.03, 0.25),
            tip,
        ],  # left arm (PICC)
    )
    return ways[site.integers(3)]


def _pacemaker(scene: Scene, site: np.random.Generator, lines: list) -> None:
    """The can below a clavicle, and its leads (appended to `lines`)."""
    x, y = site.uniform(0.20, 0.25), site.uniform(0.20, 0.25)
    can = scene.film.blob((x, y), (0.042, 0.034), angle=site.uniform(-0.4, 0.4), power=10)
    scene.add("Support Devices", can, 0.30)
    way = [(x, y), (0.12, 0.17), (0.02, 0.24), (-0.05, 0.36)]
    lines.append((curve([*way, (-0.055, 0.6), (0.03, 0.71), (0.11, 0.72)]), 0.008, 1.0))
    lines.append((curve([*way, (-0.075, 0.52), (-0.05, 0.56)]), 0.008, 0.9))


def _electrodes(scene: Scene, site: np.random.Generator, lines: list) -> None:
    """Three monitoring electrodes on the skin and their wires (appended to `lines`)."""
    for x, y in ((-0.27, 0.24), (0.27, 0.25), (0.25, 0.66)):
        spot = np.array([x, y]) + site.normal(0, 0.015, 2)
        scene.add("Support Devices", scene.film.blob(spot, (0.013, 0.013), power=6), 0.3)
        lines.append(
            (
                curve([spot, spot + (0.03 * np.sign(x), 0.12), (np.sign(x) * 0.12, 0.62), (0.05, 1.1)]),
                0.007,
                0.7,
            )
        )


# A finding may be in both: it shapes the chest, and is then laid on it.
SHAPING = {
    "Cardiomegaly": _cardiomegaly,
    "Enlarged Cardiomediastinum": _enlarged_cardiomediastinum,
    "Atelectasis": _atelectasis,
    "Fracture": _fracture,
}
LAID_ON = {
    "Pneumothorax": _pneumothorax,
    "Edema": _edema,
    "Lung Opacity": _lung_opacity,
    "Pneumonia": _pneumonia,
    "Consolidation": _consolidation,
    "Atelectasis": _plates,
    "Lung Lesion": _lung_lesion,
    "Pleural Other": _pleural_other,
    "Pleural Effusion": _pleural_effusion,
    "Support Devices": _support_devices,
}
