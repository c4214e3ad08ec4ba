"""JPEGs decoded as gray, at a reduced scale where that is enough, and no damage passed over."""

import numpy as np
import simplejpeg
from PIL import Image

MARK = b"\xff\xd8"  # the first bytes of a JPEG
DAMAGE = ("Corrupt JPEG data", "Premature end of JPEG file", "Bogus Huffman table", "Inconsistent progression")


def decoded_jpeg(data: bytes, size: int) -> np.ndarray | None:
    """A JPEG's brightness, scaled down by 2, 4 or 8 in decoding where that leaves 5/4 of `size` or more: uint8 [H, W].

    With Pillow's `draft` the pixels are the same; around them it does more, and it makes up what is damaged. None for
    what is not a JPEG, or of a kind that is left to Pillow. Raises ValueError where pixels are lost.
    """
    if not data.startswith(MARK):
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
        if height * width > 2 * (Image.MAX_IMAGE_PIXELS or np.inf):  # as Pillow does
            raise Image.DecompressionBombError
        if colors not in ("Gray", "YCbCr", "RGB"):  # CMYK has no brightness of its own
            return None
        scale = max(scale for scale in (1, 2, 4, 8) if scale == 1 or min(height, width) // scale >= size * 5 // 4)
        least = {"min_height": -(-height // scale), "min_width": -(-width // scale), "min_factor": scale}
        gray = simplejpeg.decode_jpeg(data, colorspace="GRAY", fastdct=False, **least)[..., 0]
    except ValueError as error:
        if _is_damage(str(error)):
            raise
        return None
    if height % scale or width % scale:  # the padding of the last blocks does not belong to the image
        image, box = Image.fromarray(gray), (0, 0, width / scale, height / scale)
        gray = np.array(image.resize((size, size), Image.Resampling.BILINEAR, box=box))
    return gray


def _is_damage(error: str) -> bool:
    """Whether libjpeg says that pixels are lost; bytes too many between two segments cost none."""
    return any(sign in error for sign in DAMAGE) and "extraneous bytes" not in error
