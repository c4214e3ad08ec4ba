"""The healthy chest of a synthetic frontal radiograph: a film to draw on, and the anatomy drawn on it.

Lengths are in film heights: x = 0 is the spine (the patient's left is at x > 0, on the right of the picture, as
radiologists read it), y = 0 the top edge and y = 1 the bottom edge of the film before the patient moves.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Pair = Sequence[float] | np.ndarray  # [2]
Stroke = tuple[np.ndarray, float | np.ndarray, float]  # points [..., P, 2], width, value; see Film.strokes
SIDES = (-1, 1)  # the patient's right lung, the patient's left lung
STEPS = 6  # of a curve from one point to the next
_CENTER = np.array([0.0, 0.5])  # of the film, in anatomical coordinates


def curve(points: Sequence[Pair] | np.ndarray) -> np.ndarray:
    """Smooth curve through `points` [..., P, 2]: [..., (P - 1) * STEPS + 1, 2].

    A uniform Catmull-Rom spline (Catmull & Rom 1974) with linearly extended ends.
    """
    points = np.asarray(points, dtype=float)
    before, after = (
        2 * points[..., :1, :] - points[..., 1:2, :],
        2 * points[..., -1:, :] - points[..., -2:-1, :],
    )
    padded = np.concatenate([before, points, after], axis=-2)[..., None, :]
    p0, p1, p2, p3 = (padded[..., i : points.shape[-2] - 1 + i, :, :] for i in range(4))
    t = np.linspace(0, 1, STEPS, endpoint=False)[:, None]
    inner = p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0)))
    return np.concatenate([inner.reshape(*points.shape[:-2], -1, 2), points[..., -1:, :]], axis=-2)


# One lung as (|x|, y): from the mediastinum over the apex and down the chest wall to the costophrenic angle, ...
_WALL = curve([(0.035, 0.25), (0.06, 0.17), (0.095, 0.125), (0.14, 0.11), (0.19, 0.13), (0.24, 0.19), (0.28, 0.28),
                  (0.305, 0.38), (0.322, 0.50), (0.332, 0.62), (0.338, 0.74), (0.337, 0.83)])  # fmt: skip
# ... and back over the dome of the diaphragm.
_DOME = curve([(0.337, 0.83), (0.305, 0.775), (0.26, 0.735), (0.20, 0.712), (0.14, 0.712), (0.08, 0.74), (0.03, 0.78)])
_APEX = int(np.argmin(_WALL[:, 1]))
_HEART = np.array([(-0.045, 0.36), (-0.072, 0.44), (-0.092, 0.54), (-0.094, 0.64), (-0.07, 0.73), (0.0, 0.775),
                   (0.10, 0.79), (0.175, 0.77), (0.208, 0.70), (0.197, 0.62), (0.155, 0.52), (0.10, 0.43),
                   (0.06, 0.36)])  # fmt: skip
_GREAT_VESSELS = np.array([(-0.048, 0.0), (-0.05, 0.10), (-0.055, 0.18), (-0.056, 0.28), (-0.06, 0.42), (-0.05, 0.55),
                           (0.07, 0.55), (0.085, 0.40), (0.072, 0.355), (0.056, 0.335), (0.072, 0.31), (0.082, 0.275),
                           (0.07, 0.24), (0.05, 0.215), (0.05, 0.10), (0.048, 0.0)])  # fmt: skip
_TORSO = np.array([(0.085, -0.2), (0.09, 0.0), (0.12, 0.045), (0.22, 0.075), (0.34, 0.09), (0.43, 0.13), (0.46, 0.20),
                   (0.44, 0.30), (0.405, 0.42), (0.395, 0.6), (0.40, 0.8), (0.42, 1.2)])  # fmt: skip


@dataclass(frozen=True)
class Anatomy:
    """What stays the same over all radiographs of one patient; lengths in film heights, ratios around 1."""

    key: int  # seeds the vessels and the site of every finding
    female: bool
    age: int  # years
    habitus: float  # 0 thin ... 1 obese
    chest_width: float
    lung_height: float
    heart_width: float
    vessels: float  # how plain the lung vessels are
    widening: float  # of the upper mediastinum on each side, in film heights
    breast: float  # 0 none ... 1 large

    @property
    def girth(self) -> float:
        """Width of the trunk, a ratio."""
        return 0.93 + 0.28 * self.habitus


def random_anatomy(rng: np.random.Generator, *, female: bool, age: int) -> Anatomy:
    """An `Anatomy` drawn from `rng` for a patient of that sex and age (years)."""
    habitus = rng.beta(2, 2.5)
    return Anatomy(
        key=int(rng.integers(2**31)),
        female=bool(female),
        age=int(age),
        habitus=habitus,
        chest_width=rng.normal(0.97 if female else 1.01, 0.03),
        lung_height=rng.normal(1.01 - 0.05 * habitus, 0.03),
        heart_width=np.clip(rng.normal(0.95 + 0.03 * habitus, 0.04), 0.85, 1.05),
        vessels=rng.normal(1.0, 0.12),
        widening=rng.normal(0.0, 0.005),
        breast=rng.uniform(0.3, 1.0) * (0.5 + 0.5 * habitus) if female else 0.0,
    )


class Film:
    """A pixel grid with anatomical coordinates; draws anti-aliased masks (float32 [H, W] in [0, 1])."""

    def __init__(self, height: int, width: int, *, shift: Pair = (0.0, 0.0), angle: float = 0.0, zoom: float = 1.0):
        """`shift` in film heights, `angle` in radians, `zoom` a ratio: how the patient stands before the film."""
        self.height, self.width = height, width
        cos, sin = np.cos(angle) * zoom, np.sin(angle) * zoom
        self._matrix = np.array([[cos, -sin], [sin, cos]])
        self._origin = np.array([width / height / 2 + shift[0], 0.5 + shift[1]])
        columns = (np.arange(width, dtype=np.float32) + 0.5) / height - self._origin[0]
        rows = ((np.arange(height, dtype=np.float32) + 0.5) / height - self._origin[1])[:, None]
        inverse = np.linalg.inv(self._matrix).astype(np.float32)
        self.x = inverse[0, 0] * columns + inverse[0, 1] * rows
        self.y = inverse[1, 0] * columns + inverse[1, 1] * rows + np.float32(0.5)

    def strokes(self, lines: Iterable[Stroke], *, blur: float = 0.0) -> np.ndarray:
        """Curved bands as a mask. `lines`: (points [..., P, 2], width, value in [0, 1]); later ones cover earlier ones.

        `width` is a number or one per point [..., P]; it and `blur`, the radius of a box filter, in film heights.
        """
        bands = [(_band(np.asarray(points), width), value) for points, width, value in lines]
        return self._mask([(one, value) for band, value in bands for one in band.reshape(-1, *band.shape[-2:])], blur)

    def polygons(self, outlines: Iterable[np.ndarray], *, blur: float = 0.0) -> np.ndarray:
        """Filled outlines (each [P, 2]) as one mask; `blur` as in `strokes`."""
        return self._mask([(outline, 1.0) for outline in outlines], blur)

    def blob(self, center: Pair, sigmas: Pair, *, angle: float = 0.0, power: float = 2.0) -> np.ndarray:
        """exp(-r**power / 2) around `center`, r in units of `sigmas` along axes turned by `angle` (radians).

        `power` 2 is a Gaussian; a higher one has a flatter top and a steeper rim.
        """
        mask = np.zeros((self.height, self.width), np.float32)
        reach = 10 ** (1 / power) * np.hypot(*sigmas)  # beyond it the value is below exp(-5)
        column, row = self._pixels(np.array([center]))[0]
        reach *= self.height
        box = (slice(max(0, int(row - reach)), max(0, int(row + reach))),
               slice(max(0, int(column - reach)), max(0, int(column + reach))))  # fmt: skip
        dx, dy = self.x[box] - np.float32(center[0]), self.y[box] - np.float32(center[1])
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        square = ((cos * dx + sin * dy) / np.float32(sigmas[0])) ** 2 + (
            (cos * dy - sin * dx) / np.float32(sigmas[1])
        ) ** 2
        mask[box] = np.exp(-0.5 * (square if power == 2 else square ** np.float32(power / 2)))
        return mask

    def texture(self, rng: np.random.Generator, grain: float) -> np.ndarray:
        """Smooth noise of about unit variance whose cells are `grain` film heights wide."""
        cells = (max(2, round(self.width / self.height / grain)), max(2, round(1 / grain)))
        coarse = Image.fromarray(rng.standard_normal(cells[::-1], dtype=np.float32))
        return np.array(coarse.resize((self.width, self.height), Image.Resampling.BICUBIC))

    def _pixels(self, points: np.ndarray) -> np.ndarray:
        """Anatomical coordinates [P, 2] -> (column, row) [P, 2]."""
        return ((points - _CENTER) @ self._matrix.T + self._origin) * self.height

    def _mask(self, outlines: list[tuple[np.ndarray, float]], blur: float) -> np.ndarray:
        """Outlines with their values, painted in order; sharp ones on a finer grid and averaged down."""
        fine = 1 if blur else 2
        image = Image.new("L", (self.width * fine, self.height * fine))
        draw = ImageDraw.Draw(image)
        pixels = self._pixels(np.concatenate([outline for outline, _ in outlines])) * fine
        stops = np.cumsum([len(outline) for outline, _ in outlines])
        for (_, value), part in zip(outlines, np.split(pixels, stops[:-1]), strict=True):
            draw.polygon(part.ravel().tolist(), fill=round(255 * value))
        image = image.filter(ImageFilter.BoxBlur(blur * self.height)) if blur else image.reduce(2)
        mask = np.array(image, dtype=np.float32)
        mask /= 255
        return mask


def _band(points: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """Outlines [..., 2 P, 2] of bands of that width (a number, or one per point) around smooth lines [..., P, 2]."""
    along = np.empty_like(points)
    along[..., 1:-1, :] = points[..., 2:, :] - points[..., :-2, :]
    along[..., 0, :] = points[..., 1, :] - points[..., 0, :]
    along[..., -1, :] = points[..., -1, :] - points[..., -2, :]
    half = np.asarray(width) / 2 / np.hypot(along[..., 0], along[..., 1])
    aside = along[..., ::-1] * (1, -1) * half[..., None]
    return np.concatenate([points + aside, (points - aside)[..., ::-1, :]], axis=-2)


@dataclass(frozen=True)
class Shape:
    """How the chest is shaped on one radiograph: the patient's anatomy, the breath taken, and what findings change."""

    anatomy: Anatomy
    turn: float = 0.0  # sideways shift of the mediastinum by axial rotation
    breath: float = 0.0  # how far the diaphragm stands above its usual place
    raised: dict = field(default_factory=dict)  # side -> further elevation of that dome
    reach: float = 0.1  # how far the elbows stand off the trunk
    heart_scale: float | np.floating = 1.0
    widening: float | np.floating = 0.0  # of the upper mediastinum, on each side

    def _place(self, points: np.ndarray, side: int) -> np.ndarray:
        """Mirror and stretch `points` (|x|, y) of the lung template to one side of this patient."""
        return np.asarray(points) * (side * self.anatomy.chest_width, self.anatomy.lung_height) + (
            0,
            0.11 * (1 - self.anatomy.lung_height),
        )

    def wall(self, side: int) -> np.ndarray:
        """Inner chest wall of one lung, from the mediastinum over the apex to the costophrenic angle: [P, 2]."""
        return self._place(_WALL, side)

    def dome(self, side: int) -> np.ndarray:
        """Top of the diaphragm of one lung, from the costophrenic angle to the midline: [P, 2]."""
        lift = self.breath + self.raised.get(side, 0.0) - (0.02 if side > 0 else 0.0)  # the left dome stands lower
        moved = np.linspace(0.2, 5, len(_DOME)).clip(max=1.0)  # the angle itself moves little
        return self._place(_DOME - np.stack([0 * moved, lift * moved], axis=1), side)

    def lung(self, side: int) -> np.ndarray:
        """Outline of one lung, [P, 2]."""
        return np.concatenate([self.wall(side), self.dome(side)])

    def wall_x(self, y: float) -> float:
        """Distance of the chest wall from the midline at height `y`, below the apex."""
        wall = self.wall(1)[_APEX:]
        return np.interp(y, wall[:, 1], wall[:, 0])

    def heart(self) -> np.ndarray:
        """Outline of the heart, [P, 2]."""
        scale = self.anatomy.heart_width * self.heart_scale * self.anatomy.chest_width
        points = curve(_HEART) * (scale, 1.0)
        points[:, 1] -= 0.6 * self.breath + 0.06 * (self.heart_scale - 1)
        points[:, 1] = 0.11 + (points[:, 1] - 0.11) * self.anatomy.lung_height
        return points + (self.turn, 0)

    def great_vessels(self) -> np.ndarray:
        """Outline of the upper mediastinum with aortic knob and pulmonary trunk, [P, 2]."""
        points = curve(_GREAT_VESSELS * (1 + 0.002 * (self.anatomy.age - 60), 1.0))
        bulge = np.exp(-(((points[:, 1] - 0.25) / 0.13) ** 2))
        points[:, 0] += self.widening * bulge * np.sign(points[:, 0]) + self.turn
        return points

    def ribs(self, side: int) -> np.ndarray:
        """Center lines of the ribs from the spine around the lateral chest wall, first rib first: [10, P, 2]."""
        top, drop = 0.105 + 0.0635 * np.arange(10), 0.035 + 0.006 * np.arange(10)
        edge = np.interp(top + 0.07, _WALL[_APEX:, 1], _WALL[_APEX:, 0])
        x = edge[:, None] * np.array([0, 0.3, 0.62, 0.88, 1]) + np.array([0.03, 0, 0, 0, 0.006])
        y = top[:, None] + drop[:, None] * np.array([0, 0, 0.25, 1, 1]) + np.array([0, -0.014, 0, 0, 0.05])
        return self._place(curve(np.stack([x, y], axis=-1)), side)

    def anterior_ribs(self, side: int) -> np.ndarray:
        """Center lines of the front of the second to seventh rib, from the chest wall to the cartilage: [6, P, 2]."""
        top = 0.19 + 0.0695 * np.arange(1, 7)
        edge = np.interp(top, _WALL[_APEX:, 1], _WALL[_APEX:, 0])
        x = edge[:, None] * np.array([1, 0.95, 0.75, 0.5]) + np.array([0.006, 0, 0, 0])
        y = top[:, None] + np.array([0, 0.045, 0.08, 0.095])
        return self._place(curve(np.stack([x, y], axis=-1)), side)

    def arm(self, side: int) -> np.ndarray:
        """Center line of the upper arm from the shoulder downwards, [P, 2]."""
        girth = self.anatomy.girth
        points = [
            (0.38 * girth, 0.17),
            (0.44 * girth, 0.27),
            (0.45 * girth + 0.5 * self.reach, 0.6),
            (0.46 * girth + self.reach, 1.1),
        ]
        return curve(points) * (side, 1)

    def clavicle(self, side: int) -> np.ndarray:
        """Center line of a clavicle from the sternum to the shoulder, [P, 2]."""
        points = curve([(0.035, 0.185), (0.10, 0.165), (0.18, 0.145), (0.27, 0.125), (0.36, 0.105)])
        return points * (side * self.anatomy.chest_width, 1.0) + (0.6 * self.turn, 0)


def bone_strokes(shape: Shape, broken: Mapping[tuple, list[np.ndarray]]) -> list[Stroke]:
    """Ribs, clavicles, scapulae and humeri as `Film.strokes` lines: bright cortex, paler marrow.

    `broken` maps a bone, ("rib", side, index) or ("clavicle", side), to the pieces (each [P, 2]) it is in.
    """
    lines: list[Stroke] = []
    for side in SIDES:
        scapula = curve(np.array([(0.36, 0.13), (0.35, 0.22), (0.33, 0.32), (0.31, 0.43)]) * (side, 1))
        lines.append((scapula, np.linspace(0.13, 0.015, len(scapula)), 0.28))
        lines += _bone(shape.arm(side), 0.7, width=0.045)
    fronts = np.concatenate([shape.anterior_ribs(side) for side in SIDES])
    lines += _bone(fronts, 0.5)
    for side in SIDES:
        whole = [i for i in range(10) if ("rib", side, i) not in broken]
        lines += _bone(shape.ribs(side)[whole], 1.0)
        if ("clavicle", side) not in broken:
            lines += _bone(shape.clavicle(side), 1.0, width=0.026)
    for name, pieces in broken.items():
        for piece in pieces:
            lines += _bone(piece, 1.0, width=0.026 if name[0] == "clavicle" else 0.021)
    return lines


def _bone(points: np.ndarray, value: float, *, width: float = 0.021) -> list[Stroke]:
    return [(points, width, value), (points, width - 0.010, 0.7 * value)]


def spine_strokes(shape: Shape) -> list[Stroke]:
    """Vertebral bodies as `Film.strokes` lines."""
    middle = np.arange(-0.05, 1.0, 0.05)
    ends = np.stack(
        [np.stack([np.full_like(middle, x + 0.3 * shape.turn), middle], axis=1) for x in (-0.036, 0.036)], 1
    )
    return [(ends, 0.036, 1.0)]


def airway_strokes(shape: Shape) -> list[Stroke]:
    """Trachea and main bronchi as `Film.strokes` lines."""
    trachea = [(0.0, -0.1), (0.0, 0.12), (-0.006, 0.3)]
    bronchi = [[(-0.006, 0.3), (side * 0.05, 0.36), (side * 0.085, 0.405)] for side in SIDES]
    lines = [(trachea, 0.034, 1.0), (bronchi[0], 0.022, 0.7), (bronchi[1], 0.022, 0.7)]
    return [(np.array(points) + (shape.turn, 0), width, value) for points, width, value in lines]


def vessel_strokes(shape: Shape) -> list[Stroke]:
    """Lung vessels as `Film.strokes` lines: three generations of branches from both hila, the same in every study."""
    rng = np.random.default_rng([shape.anatomy.key, 0])
    side = np.repeat(SIDES, 7)
    spread = np.tile(np.linspace(-1.25, 1.35, 7), 2) + rng.normal(0, 0.12, 14)
    start = np.stack([side * 0.085, 0.44 - 0.015 * (side > 0)], axis=1) + (shape.turn, 0)
    heading = np.pi / 2 - side * np.pi / 2 + side * spread
    length, width = 0.17 + 0.05 * np.abs(spread), 0.013
    lines: list[Stroke] = []
    for _ in range(3):
        headings = heading[:, None] + np.cumsum(rng.normal(0, 0.12, (len(heading), 6)), axis=1)
        steps = np.stack([np.cos(headings), np.sin(headings)], axis=-1) * length[:, None, None] / 6
        points = np.concatenate([start[:, None], start[:, None] + np.cumsum(steps, axis=1)], axis=1)
        lines.append((points, width * np.linspace(1, 0.45, 7), 0.25 + 0.75 * width / 0.013))
        start = points[:, (2, 4)].reshape(-1, 2)
        heading = (headings[:, (1, 3)] + rng.uniform(0.35, 0.65, (len(heading), 2)) * (1, -1)).ravel()
        length, width = 0.6 * np.repeat(length, 2), 0.6 * width
    return lines


def torso_outlines(shape: Shape) -> list[np.ndarray]:
    """Outlines of trunk and arms, a list of [P, 2]."""
    half = curve(_TORSO) * (shape.anatomy.girth, 1.0)
    arms = [_band(shape.arm(side), 0.15 + 0.04 * shape.anatomy.habitus) for side in SIDES]
    return [np.concatenate([half, half[::-1] * (-1, 1)]), *arms]
