"""Where in an image a network found what it flags: class activation maps, and the pictures of them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from src.artifacts.io import atomic_path
from src.runtime.fonts import font_file, say_what_is_missing

# Per architecture, the method and the fewest cells on a side of a map that hit lesions best (benchmarks/README.md), in
# images that have so many cells of STRIDE px.
BEST = {"resnet50": ("grad-cam", 14), "efficientnet_b1": ("hires-cam", 28)}
STRIDE = 8
# What weights the cells of a feature map, of the gradient [1, K, h, w] of a logit over the maps.
METHODS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "grad-cam": lambda gradient: gradient.mean(dim=(2, 3), keepdim=True),  # Selvaraju et al. 2017, equation 1
    "hires-cam": lambda gradient: gradient,  # Draelos & Carin 2020, HiResCAM
}
SIDE, LINE, MARGIN = 384, 18, 6  # of a picture [px]
OTHER_SCRIPTS = 0x2E80  # the first character of Chinese, Japanese and Korean scripts


def best_heat(arch: str, side: int) -> tuple[str, int]:
    """The method, one of METHODS, and the fewest cells for `class_heat` of images of `side` px."""
    method, cells = BEST[arch]
    return method, min(cells, -(-side // STRIDE))


def class_heat(
    layers: nn.Sequential,
    image: torch.Tensor,
    *,
    logits: Sequence[int],
    weigh: Callable[[torch.Tensor], torch.Tensor],
    cells: int,
) -> torch.Tensor:
    """Heat of each of `logits`, float32 [len(logits), h, w] on the CPU, 0 .. 1.

    layers: a network in eval mode, images [1, 3, S, S] -> logits [1, C]. The feature maps of a layer, times what
    `weigh` (a value of METHODS) makes of their gradient, are summed, and what is below 0 is cut off; then divided by
    the maximum. All 0 where nothing in the image speaks for the finding. The layer is the last whose maps have at least
    `cells` cells on a side. Raises ValueError if the network has no such layer.
    """
    with torch.no_grad():
        features = [image]
        for layer in layers:
            features.append(layer(features[-1].clone()))  # a clone, since some layers write over what they are given
    wide = [at for at, maps in enumerate(features) if at and maps.dim() == 4 and min(maps.shape[2:]) >= cells]
    if not wide:
        raise ValueError(f"no layer has maps of {cells} x {cells} cells at images of {image.shape[-1]} px")
    maps = features[wide[-1]].requires_grad_()
    scores = layers[wide[-1] :](maps.clone())[0]
    found = []
    for at, logit in enumerate(logits):
        (gradient,) = torch.autograd.grad(scores[logit], maps, retain_graph=at + 1 < len(logits))
        found.append((weigh(gradient) * maps.detach()).sum(dim=1).relu())
    heat = torch.cat(found) if found else maps.new_zeros(0, *maps.shape[2:])
    hottest = heat.amax(dim=(1, 2), keepdim=True)
    return torch.where(hottest > 0, heat / hottest, 0).float().cpu()


def enlarged(heat: torch.Tensor, shape: tuple[int, int], *, side: int) -> np.ndarray:
    """Heat [h, w] of an image of `side` px, brought to another size of that image: float32 [*shape], bilinear.

    Cell i of a map s times smaller than the image is centered on pixel s * i, not on the middle of s pixels: both
    networks halve with odd kernels that are padded alike on both sides (Araujo, Norris & Sim 2019, Computing receptive
    fields of convolutional neural networks). Stretched from edge to edge, the heat would lie (s - 1) / 2 px too far
    right and down. Raises ValueError where halving does not lead from `side` to the cells of the map.
    """
    cells = heat.shape[0]
    stride = next((2**n for n in range(side.bit_length()) if -(-side // 2**n) == cells), None)
    if stride is None or heat.shape[1] != cells:
        raise ValueError(f"a heat map of {tuple(heat.shape)} does not fit {side} px; expected the side halved")
    rows, columns = (((torch.arange(n) + 0.5) * side / n - 0.5) / stride for n in shape)
    grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1) * (2 / max(cells - 1, 1)) - 1
    return F.grid_sample(heat[None, None], grid[None], padding_mode="border", align_corners=True)[0, 0].numpy()


def overlay(gray: np.ndarray, heat: torch.Tensor, *, caption: Sequence[str]) -> Image.Image:
    """A picture of a radiograph, uint8 [S, S], with its heat [h, w] in color over it and the lines of text below."""
    base = np.asarray(Image.fromarray(gray).resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)[..., None]
    warm = enlarged(heat, (SIDE, SIDE), side=len(gray))
    color = matplotlib.colormaps["inferno"](warm)[..., :3] * 255
    opacity = 0.6 * warm[..., None]
    picture = Image.new("RGB", (SIDE, SIDE + LINE * len(caption) + 2 * MARGIN), "white")
    picture.paste(Image.fromarray(np.rint((1 - opacity) * base + opacity * color).astype(np.uint8)))
    draw, font = ImageDraw.Draw(picture), _font(" ".join(caption))
    for number, line in enumerate(caption):
        while draw.textlength(line, font=font) > SIDE - 2 * MARGIN:
            line = line[:-2] + "\N{HORIZONTAL ELLIPSIS}"
        draw.text((MARGIN, SIDE + MARGIN + LINE * number), line, fill="black", font=font)
    return picture


def _font(text: str) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """A font for a caption: Pillow's own, which has Latin letters, or one of the machine's for other scripts."""
    if all(ord(letter) < OTHER_SCRIPTS for letter in text):
        return ImageFont.load_default(size=13)
    file = font_file()
    if file is None:
        say_what_is_missing()
        return ImageFont.load_default(size=13)
    return ImageFont.truetype(file, size=13)


def write_overlay(path: Path, gray: np.ndarray, heat: torch.Tensor, *, caption: Sequence[str]) -> None:
    """Write `overlay`'s picture as PNG."""
    picture = overlay(gray, heat, caption=caption)
    with atomic_path(path) as temporary:
        picture.save(temporary)
