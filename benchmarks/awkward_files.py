"""Image files of unusual kinds, and what becomes of each: in the reader, in check_split.py, and in predict.py.

Writes one drawn radiograph (640 x 520 px) in many encodings, broken in many ways, and things that only look like it.
Prints a row per file: how far its gray values are from the picture's (mean absolute difference of 255 at 224 px), or
why it is refused. check_split.py --images open sees all of them as one data set, and with --run-dir predict.py gives
them probabilities; the table has the largest difference from those of the picture. The script ends with an error where
the three disagree on what can be read.

Example: python benchmarks/awkward_files.py --run-dir runs/demo
"""

import argparse
import csv
import gzip
import io
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.demo.anatomy import random_anatomy
from src.demo.draw import draw_radiograph
from src.images.files import read_file
from src.images.pixels import stretched
from src.runtime.tables import plural

ROOT = Path(__file__).resolve().parents[1]
SIDE = 224
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def picture():
    """The radiograph that all files show, uint8 [640, 520]."""
    rng = np.random.default_rng(3)
    anatomy = random_anatomy(rng, female=False, age=60)
    gray, _ = draw_radiograph(["Cardiomegaly", "Support Devices"], anatomy=anatomy, rng=rng, size=(640, 520))
    return stretched(gray)  # over all gray values, as images of more bits are


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    if options.get("append_images"):
        options["append_images"] = [frame.copy() for frame in options["append_images"]]
    image.copy().save(buffer, kind, **options)  # a copy, since Pillow keeps what one format is told for the next
    return buffer.getvalue()


def png(pixels, *, bits, interlaced=False, extra=b""):
    """A PNG of gray pixels [H, W] of 2, 4, 8 or 16 bits, with chunks of one's own before the pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    def lines(part):
        if bits == 16:
            return b"".join(b"\0" + line.astype(">u2").tobytes() for line in part)
        if bits < 8:
            places = np.arange(8 - bits, -1, -bits)
            part = np.pad(part, ((0, 0), (0, -part.shape[1] % len(places))))
            part = (part.reshape(len(part), -1, len(places)) << places).sum(axis=2)
        return b"".join(b"\0" + line.astype(np.uint8).tobytes() for line in part)

    passes = [pixels[y::dy, x::dx] for y, x, dy, dx in ADAM7] if interlaced else [pixels]
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], bits, 0, 0, 0, int(interlaced))
    data = zlib.compress(b"".join(map(lines, passes)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff(pixels, *, white_is_zero=False, order="<"):
    """An uncompressed TIFF of one strip of gray pixels [H, W] of any type."""
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    kinds = {"u": 1, "i": 2, "f": 3}
    tags = {256: pixels.shape[1], 257: pixels.shape[0], 258: 8 * pixels.itemsize, 259: 1, 262: int(not white_is_zero)}
    tags |= {273: 8, 277: 1, 278: pixels.shape[0], 279: len(data), 339: kinds[pixels.dtype.kind]}
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    mark = {"<": b"II", ">": b"MM"}[order]
    head = mark + struct.pack(f"{order}HI", 42, 8 + len(data))
    return head + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


def cases(gray):
    """Name of each file -> what it is, and its bytes; those of `others` are no regular files."""
    image = Image.fromarray(gray)
    color = image.convert("RGB")
    twelve = np.rint(gray.astype(np.float64) * 4095 / 255).astype(np.uint16)
    half, clear, deep = Image.fromarray(gray // 2), image.point([0] * 256), Image.fromarray(twelve)
    jpeg, plain = encoded(image, "JPEG", quality=92), encoded(image, "PNG")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    frames = {"save_all": True, "append_images": [half, half]}
    palette = color.quantize(256)
    photo = np.random.default_rng(0).integers(0, 256, (640, 520, 3), dtype=np.uint8)
    orientation = Image.Exif()
    orientation[0x0112] = 3
    return {
        "progressive.jpg": ("JPEG, progressive", encoded(image, "JPEG", quality=92, progressive=True)),
        "restarts.jpg": (
            "JPEG with restart markers, 4:2:0",
            encoded(color, "JPEG", quality=92, subsampling=2, restart_marker_rows=1),
        ),
        "lowest.jpg": ("JPEG of quality 20", encoded(image, "JPEG", quality=20)),
        "profile.jpg": ("JPEG with a color profile", encoded(color, "JPEG", quality=92, icc_profile=srgb)),
        "rgb.jpg": ("JPEG that stores RGB", encoded(color, "JPEG", quality=92, keep_rgb=True)),
        "cmyk.jpg": ("JPEG in CMYK", encoded(color.convert("CMYK"), "JPEG", quality=92)),
        "turned.jpg": (
            "JPEG stored upside down, EXIF orientation 3",
            encoded(image.rotate(180), "JPEG", quality=92, exif=orientation),
        ),
        "several.mpo": ("MPO of three pictures", encoded(color, "MPO", quality=92, **frames)),
        "twelve.jpg": ("JPEG whose header says 12 bits", jpeg.replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc0\0\x0b\x0c", 1)),
        "trailing.jpg": ("JPEG with 1,000 bytes after its end", jpeg + bytes(1000)),
        "cut.jpg": ("JPEG without its second half", jpeg[: len(jpeg) // 2]),
        "zeros.jpg": (
            "JPEG with 500 zeros amid its data",
            jpeg[: len(jpeg) // 2] + bytes(500) + jpeg[len(jpeg) // 2 + 500 :],
        ),
        "really_png.jpg": ("PNG named .jpg", plain),
        "really_jpeg.png": ("JPEG named .png", jpeg),
        "interlaced.png": ("PNG, interlaced", png(gray, bits=8, interlaced=True)),
        "two_bits.png": ("PNG of 2 bits", png(np.rint(gray / 85).astype(np.uint8), bits=2)),
        "four_bits.png": ("PNG of 4 bits", png(np.rint(gray / 17).astype(np.uint8), bits=4)),
        "one_bit.png": ("PNG of 1 bit", encoded(image.convert("1"), "PNG")),
        "palette.png": ("PNG with a palette, partly transparent", encoded(palette, "PNG", transparency=bytes(256))),
        "alpha.png": ("PNG with alpha, all transparent", encoded(Image.merge("LA", (image, clear)), "PNG")),
        "sixteen.png": ("PNG of 16 bits that uses 12", png(twelve, bits=16)),
        "interlaced16.png": ("PNG of 16 bits, interlaced", png(twelve, bits=16, interlaced=True)),
        "animated.png": ("PNG, animated", encoded(image, "PNG", **frames)),
        "checksum.png": ("PNG with a wrong checksum", plain[:100] + bytes([plain[100] ^ 1]) + plain[101:]),
        "cut.png": ("PNG without its second half", plain[: len(plain) // 2]),
        "still.gif": ("GIF", encoded(image, "GIF")),
        "animated.gif": ("GIF, animated", encoded(image, "GIF", **frames)),
        "lossless.webp": ("WebP, lossless", encoded(image, "WEBP", lossless=True)),
        "animated.webp": ("WebP, animated", encoded(image, "WEBP", **frames)),
        "gray.jp2": ("JPEG 2000", encoded(image, "JPEG2000")),
        "sixteen.jp2": ("JPEG 2000 of 16 bits that uses 12", encoded(deep, "JPEG2000")),
        "gray.avif": ("AVIF", encoded(image, "AVIF", quality=95)),
        "gray.bmp": ("BMP", encoded(image, "BMP")),
        "gray.pgm": ("PGM", encoded(image, "PPM")),
        "sixteen.pgm": ("PGM of 16 bits that uses 12", encoded(deep, "PPM")),
        "lzw.tif": ("TIFF, LZW", encoded(image, "TIFF", compression="tiff_lzw")),
        "deflate16.tif": (
            "TIFF of 16 bits, Deflate",
            encoded(deep, "TIFF", compression="tiff_adobe_deflate"),
        ),
        "jpeg.tif": ("TIFF, JPEG", encoded(image, "TIFF", compression="jpeg", quality=92)),
        "motorola.tif": ("TIFF of 16 bits, big-endian", tiff(twelve, order=">")),
        "signed.tif": ("TIFF of 16 bits with a sign", tiff(twelve.astype(np.int16) - 1024)),
        "int32.tif": ("TIFF of 32 bits", tiff(twelve.astype(np.int32))),
        "float.tif": ("TIFF of floats", tiff(twelve.astype(np.float32) / 4095)),
        "white8.tif": ("TIFF in which 0 is white", tiff(255 - gray, white_is_zero=True)),
        "white16.tif": ("TIFF of 16 bits in which 0 is white", tiff(4095 - twelve, white_is_zero=True)),
        "pages.tif": ("TIFF of three pages", encoded(image, "TIFF", **frames)),
        "nan.tif": ("TIFF of floats with one NaN", tiff(with_nan(gray))),
        "tall.png": ("PNG of 400 x 20,000 px", encoded(image.resize((400, 20_000)), "PNG")),
        "huge.png": ("PNG of 14,000 x 14,000 px", huge_png()),
        "huge.jpg": ("JPEG whose header says 30,000 x 30,000 px", sized(jpeg, 30_000)),
        "one_wide.png": ("PNG of 1 x 640 px", encoded(image.crop((260, 0, 261, 640)), "PNG")),
        "tiny.png": ("PNG of 3 x 3 px", encoded(image.resize((3, 3)), "PNG")),
        "black.png": ("PNG, black", encoded(image.point([0] * 256), "PNG")),
        "photo.jpg": ("JPEG of colored noise", encoded(Image.fromarray(photo), "JPEG", quality=92)),
        "empty.png": ("an empty file", b""),
        "text.png": ("a text named .png", b"version https://git-lfs.github.com/spec/v1\n"),
        "page.jpg": ("a web page named .jpg", b"<!DOCTYPE html><html><body>404</body></html>"),
        "zipped.png": ("a PNG in gzip", gzip.compress(plain)),
        "script.png": ("PostScript named .png", encoded(color, "EPS")),
        "named.dcm": ("PNG named .dcm", plain),
    }


def with_nan(gray):
    values = gray.astype(np.float32)
    values[300, 200] = np.nan
    return values


def sized(jpeg, side):
    """A JPEG with another size in its header."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", side, side) + jpeg[at + 4 :]


def huge_png():
    """14,000 x 14,000 black pixels: a file of 190 kB that takes 196 MB to open."""
    return png(np.zeros((14_000, 14_000), np.uint8), bits=8)


def write(folder):
    """Write all files; returns what each is."""
    gray = picture()
    Image.fromarray(gray).save(folder / "picture.png")
    what = {"picture.png": "the picture itself: PNG, 8 bits"}
    for name, (kind, data) in cases(gray).items():
        (folder / name).write_bytes(data)
        what[name] = kind
    (folder / "link.png").symlink_to("picture.png")
    (folder / "loose_link.png").symlink_to("gone.png")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    others = {"link.png": "a link to the picture", "loose_link.png": "a link to nothing", "folder.png": "a folder"}
    return what | others | {"pipe.png": "a named pipe"}


def read(folder, names):
    """How far each file is from the picture, or why it is refused."""
    whole, found = None, {}
    for name in names:
        try:
            pixels = read_file(folder / name, sizes=[SIDE])[SIDE].numpy().astype(float)
        except ValueError as error:
            found[name] = str(error).removeprefix("image ").replace(f"{folder}/", "")
            continue
        whole = pixels if whole is None else whole
        found[name] = float(np.abs(pixels - whole).mean())
    return found


def checked(folder, names, temporary):
    """The files that check_split.py --images open refuses."""
    rows = [("path", "patient_id", "split", "Finding")]
    rows += [(name, name, ("train", "val", "test")[n % 3], n % 2) for n, name in enumerate(names)]
    table = temporary / "labels.csv"
    with open(table, "w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    command = [sys.executable, "check_split.py", "--run-dir", temporary / "run", "--data", table]
    command += ["--image-root", folder, "--images", "open"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    if "Traceback" in done.stderr or done.returncode not in (0, 1):
        raise SystemExit(f"check_split.py: {done.stderr}")
    marks = [(name, f"image {folder / name} ") for name in names]
    return {name for name, mark in marks if any(line.startswith(mark) for line in done.stdout.splitlines())}


def predicted(folder, names, run_dir, temporary):
    """The probabilities [C] of each file, or None where predict.py refuses it."""
    out = temporary / "p.csv"
    command = [sys.executable, "predict.py", "--run-dir", run_dir, "--recall", "0.85", "--out", out]
    done = subprocess.run(
        [*command, *(folder / name for name in names)], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    if "Traceback" in done.stderr or done.returncode not in (0, 1):
        raise SystemExit(f"predict.py: {done.stderr}")
    with open(out, newline="") as stream:
        rows = {Path(row["image_id"]).name: row for row in csv.DictReader(stream)}
    classes = [name.removesuffix(" flagged") for name in next(iter(rows.values())) if name.endswith(" flagged")]
    return {
        name: None if row["error"] else np.array([float(row[label]) for label in classes]) for name, row in rows.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, help="a finished run, whose models predict (default: no prediction)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, work = Path(temporary, "files"), Path(temporary, "work")
        folder.mkdir()
        work.mkdir()
        what = write(folder)
        found = read(folder, what)
        refused = checked(folder, list(what), work)
        probs = predicted(folder, list(what), options.run_dir.resolve(), work) if options.run_dir else {}
    disagree = [name for name, how in found.items() if isinstance(how, str) != (name in refused)]
    disagree += [name for name, values in probs.items() if isinstance(found[name], str) != (values is None)]
    print("| file | what it is | gray values | probabilities |\n|---|---|---|---|")
    for name, how in found.items():
        if isinstance(how, str):
            print(f"| `{name}` | {what[name]} | refused: {how} | |")
        else:
            moved = f"{np.abs(probs[name] - probs['picture.png']).max():.3f}" if probs else ""
            print(f"| `{name}` | {what[name]} | {how:.2f} | {moved} |")
    print(f"\n{plural(len(found), 'file')}, {len(refused)} refused")
    if disagree:
        raise SystemExit(f"the reader, check_split.py and predict.py disagree on {', '.join(disagree)}")


if __name__ == "__main__":
    main()
