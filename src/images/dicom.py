"""DICOM radiographs as the viewer shows them: rescaled, windowed, bright where the tissue is dense.

pydicom is imported when a file is read, so that everything else runs without it.
"""

import contextlib
import io
import re
import unicodedata
import warnings
from itertools import filterfalse
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

MARK = slice(128, 132)  # bytes of a DICOM file that read DICM (PS3.10, section 7.1)
# The first tag of a file without preamble, of group 2 or 8: explicit VR, or implicit with a length below 65,536.
HEADLESS = re.compile(rb"[\2\x08]\0.\0([A-Z]{2}|..\0\0)|\0[\2\x08]\0.([A-Z]{2}|\0\0)", re.DOTALL)
SUFFIXES = (".dcm", ".dicom")
INSTALL = "pip install -r requirements-dicom.txt"
# Modalities of projection radiographs, and of files that do not say: computed, digital, film, other, secondary capture.
RADIOGRAPHS = {"CR", "DX", "DR", "RG", "XR", "OT", "SC"}
# Words in the body part of a chest radiograph, without accents: in English and Latin; in French, German, Dutch, and
# Scandinavian, Spanish, Italian, and Portuguese; in Polish, Czech, Hungarian, Turkish, Russian, Greek, and East Asian.
CHEST = (
    ("CHEST", "THORAX", "LUNG", "PULMO", "HEART", "RIB", "STERNUM", "CXR", "TRUNK")
    + ("POUMON", "POITRINE", "BRUST", "BORSTKAS", "BROSTKORG", "BRYSTK", "TORAX", "TORACE", "POLMON", "PECHO", "PEITO")
    + ("KLATKA", "HRUDNIK", "MELLKAS", "TORAKS", "GOGUS", "ГРУДН", "ΘΩΡΑΚ", "胸", "흉부")
)
UNKNOWN = {"UNKNOWN", "OTHER", "NONE", "N/A", "NA", "DEFAULT", "GENERAL", "STANDARD", "WHOLEBODY", "WHOLE BODY"}
# Views of breasts, of the skull and teeth, and of joints (PS3.16 and the terms of manufacturers).
OTHER_VIEWS = frozenset(
    ("CC", "MLO", "ML", "LM", "LMO", "XCCL", "WATERS", "CALDWELL", "TOWNE", "SMV", "OPEN MOUTH", "BITEWING")
    + ("PERIAPICAL", "PANORAMIC", "SUNRISE", "SKYLINE", "MERCHANT", "TUNNEL", "FROG LEG", "MORTISE")
)
STRAY = 0.001  # of the pixels, such as defects of the detector, may need more bits than a file says
Default = TypeVar("Default", bound=float | None)


def is_dicom(path: Path) -> bool:
    """Whether a file says that it is DICOM, by its name or its first bytes. Raises OSError where it cannot be read."""
    if path.suffix.lower() in SUFFIXES:
        return True
    with open(path, "rb", buffering=0) as stream:
        return looks_like_dicom(path, stream.read(MARK.stop))


def looks_like_dicom(path: Path, head: bytes) -> bool:
    """The same, of a file whose first bytes are known."""
    return path.suffix.lower() in SUFFIXES or head[MARK] == b"DICM" or bool(HEADLESS.match(head))


def read_dicom(data: bytes) -> np.ndarray:
    """Values of a DICOM file as they are meant to be shown, float32 [H, W] of any range, higher is brighter.

    Rescaled (slope and intercept, or the modality LUT), then through the VOI LUT or else the first window, as PS3.3
    C.11.1 and C.11.2 have it, then turned over where the file is MONOCHROME1. A file without preamble and file meta
    information, as some exports are, is read if its content parses as DICOM. Raises ValueError where pydicom or the
    plugin for its compression is missing, its tags speak against a chest radiograph, it has several frames or colors, a
    tag is missing or wrong, or its pixels are damaged.
    """
    try:
        import pydicom
    except ImportError:
        raise ValueError(f"it is DICOM, and pydicom is not installed; {INSTALL}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values against the standard; those that matter raise below
            return _shown(_parsed(data, pydicom))
    except Exception as error:  # each tag and each decoder raises its own
        reason = " ".join(str(error).split()) or type(error).__name__
        if "missing dependencies" in reason:
            reason += f"; {INSTALL}"
        raise ValueError(reason) from None


def _parsed(data: bytes, pydicom: Any) -> Any:
    """The data set of a file; raises ValueError where it is none, or does not say how its pixels are encoded."""
    whole = data[MARK] == b"DICM"
    try:
        file = pydicom.dcmread(io.BytesIO(data), force=True)
        parsed = {"Rows", "Columns", "PhotometricInterpretation"} <= set(file.dir())
    except Exception:
        if whole:
            raise
        parsed = False
    if not whole and not parsed:
        raise ValueError("it is not a DICOM file: no DICM marker at byte 128, and its content does not parse as DICOM")
    if "TransferSyntaxUID" in file.file_meta:
        return file
    if whole:
        raise ValueError("its TransferSyntaxUID (0002,0010) is missing")
    implicit, little = file.original_encoding
    uid = pydicom.uid
    file.file_meta.TransferSyntaxUID = (
        uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
    )
    return file


def _why_not_chest(file: Any) -> str:
    """What in the tags of a file speaks against a radiograph of the chest, "" where nothing does."""
    modality = _words(file.get("Modality"))
    if modality and modality not in RADIOGRAPHS:
        return f"its Modality is {modality}; expected a radiograph ({', '.join(sorted(RADIOGRAPHS))})"
    part = _words(file.get("BodyPartExamined"))
    if part and part not in UNKNOWN and part != "TX" and not any(word in part for word in CHEST):
        return (
            f"its BodyPartExamined (0018,0015) is {part}; expected CHEST or another name of it: "
            "correct or empty the tag if it is a radiograph of the chest"
        )
    view = _words(file.get("ViewPosition"))
    if view in OTHER_VIEWS:
        return f"its ViewPosition is {view}, which is not a view of the chest"
    return ""


def _words(value: Any) -> str:
    """The text of a tag in capitals without accents, with one space between its words."""
    text = str(value or "")
    with contextlib.suppress(UnicodeError):
        text = text.encode("latin-1").decode()  # pydicom reads coded strings as Latin-1, and many files are in UTF-8
    letters = filterfalse(unicodedata.combining, unicodedata.normalize("NFKD", text))
    text = unicodedata.normalize("NFC", "".join(letters))  # Korean syllables whole again
    return " ".join(text.upper().replace("_", " ").split())


def study_uid(path: Path) -> str:
    """The StudyInstanceUID of a DICOM file, "" where it has none or is one that `read_dicom` cannot read either."""
    try:
        import pydicom

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tags = ["StudyInstanceUID"]
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
            uid = str(header.get("StudyInstanceUID") or "").strip()
    except Exception:  # each tag raises its own
        return ""
    return uid if uid.isprintable() else ""


def _shown(file: Any) -> np.ndarray:
    if reason := _why_not_chest(file):
        raise ValueError(reason)
    if not file.get("PixelData"):
        raise ValueError("it has no pixel data, or they are truncated")
    frames, kind = int(file.get("NumberOfFrames") or 1), file.get("PhotometricInterpretation")
    if frames != 1:
        raise ValueError(f"it has {frames} frames; expected one")
    if kind not in ("MONOCHROME1", "MONOCHROME2"):
        raise ValueError(f"its photometric interpretation is {kind}; expected MONOCHROME1 or MONOCHROME2")
    samples = int(file.get("SamplesPerPixel") or 1)
    if samples != 1:
        raise ValueError(f"its SamplesPerPixel (0028,0002) is {samples} and its photometric interpretation {kind}")
    stored, high = file.get("BitsStored"), file.get("HighBit")
    if stored and high is not None and high != stored - 1:
        raise ValueError(f"its high bit is {high} of {stored} stored bits; expected {stored - 1}")
    _check_end(file)
    file.pixel_array_options(correct_unused_bits=False)  # which are looked at below
    pixels = file.pixel_array
    if pixels.ndim != 2:
        raise ValueError(f"its pixels are an array of {pixels.ndim} dimensions; expected rows and columns")
    pixels = _within_bits_stored(pixels, file)
    values = _rescaled(pixels, file)
    values = _looked_up(values, file) if file.get("VOILUTSequence") else _windowed(values, file)
    if not np.isfinite(values).all():
        raise ValueError("some of its rescaled values are not finite")
    if values.min() == values.max():
        raise ValueError("its window, or its pixels, leave a single gray value for the whole image")
    shown = np.asarray(-values if kind == "MONOCHROME1" else values, np.float32)
    if not np.isfinite(shown).all():
        raise ValueError("some of its rescaled values are too large")
    padding = _padding(pixels, file)
    if padding.any() and not padding.all():
        shown[padding] = shown[~padding].min()  # black, and no part of the range that is stretched
    return shown


def _within_bits_stored(pixels: np.ndarray, file: Any) -> np.ndarray:
    """The pixels [H, W] without the bits above BitsStored, in which old files keep overlays (PS3.5, section 8.1.1).

    The decoders of JPEG 2000 and others leave them in. Raises ValueError where the lowest of these bits is set in more
    than a few pixels and no OverlayBitPosition (60xx,0102) claims it: the values need more bits than BitsStored says.
    """
    bits = int(file.get("BitsStored") or 0)
    if not 0 < bits < 8 * pixels.itemsize or pixels.dtype.kind not in "iu":
        return pixels
    low, signed = pixels & (2**bits - 1), pixels.dtype.kind == "i"
    beyond = (pixels >> bits & 1) > (low >> (bits - 1) if signed else 0)  # of a negative number it is set as well
    overlays = [file.get((group, 0x0102)) for group in range(0x6000, 0x6020, 2)]
    if beyond.mean() > STRAY and bits not in [overlay.value for overlay in overlays if overlay]:
        raise ValueError(
            f"its BitsStored (0028,0101) is {bits}, and {beyond.mean():.1%} of its pixels need more bits (the largest "
            f"value is {pixels.max()}); correct the tag"
        )
    return np.where(low >= 2 ** (bits - 1), low - 2**bits, low) if signed else low


def _check_end(file: Any) -> None:
    """Raise ValueError for a JPEG without its end: the decoders make up what is missing of it."""
    from pydicom.encaps import generate_frames
    from pydicom.uid import JPEGTransferSyntaxes

    if file.file_meta.TransferSyntaxUID in JPEGTransferSyntaxes:
        frame = next(generate_frames(file.PixelData, number_of_frames=1))
        if frame.rfind(b"\xff\xd9") <= frame.rfind(b"\xff\xda"):  # end of image after the start of the last scan
            raise ValueError("its JPEG data are truncated")


def _padding(pixels: np.ndarray, file: Any) -> np.ndarray:
    """The pixels that a file marks as padding: bool [H, W]."""
    value = file.get("PixelPaddingValue")
    if value is None:
        return np.zeros(pixels.shape, bool)
    low, high = sorted((value, file.get("PixelPaddingRangeLimit", value)))
    return (pixels >= low) & (pixels <= high)


def _rescaled(values: np.ndarray, file: Any) -> np.ndarray:
    """Stored values [H, W] -> float64 in the units that windows are stated in."""
    if file.get("ModalityLUTSequence"):
        from pydicom.pixels import apply_modality_lut

        return apply_modality_lut(values, file).astype(np.float64)
    slope, intercept = _number(file, "RescaleSlope", 1.0), _number(file, "RescaleIntercept", 0.0)
    if slope == 0:
        raise ValueError("its RescaleSlope is 0, which erases the image")
    return values * slope + intercept


def _windowed(values: np.ndarray, file: Any) -> np.ndarray:
    """Values within the first window as 0 .. 1 (C.11.2.1.2 and C.11.2.1.3); unchanged where the file has none."""
    from pydicom import Dataset
    from pydicom.pixels import apply_windowing

    center, width = _number(file, "WindowCenter", None), _number(file, "WindowWidth", None)
    if center is None and width is None:
        return values
    if center is None or width is None:
        raise ValueError("it has only one of WindowCenter and WindowWidth; expected both or none")
    function = str(file.get("VOILUTFunction") or "LINEAR").upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise ValueError(f"its VOILUTFunction is {function}; expected LINEAR, LINEAR_EXACT or SIGMOID")
    if width < 1 if function == "LINEAR" else width <= 0:
        raise ValueError(
            f"its WindowWidth is {width:g}; expected {'at least 1' if function == 'LINEAR' else 'above 0'}"
        )
    window = Dataset()  # given the file itself, pydicom would turn the image over where the rescale slope is negative
    window.PhotometricInterpretation, window.PixelRepresentation, window.BitsStored = "MONOCHROME2", 0, 1
    window.VOILUTFunction = function
    window.add_new("WindowCenter", "FD", center)  # not DS, which refuses numbers of more than 16 characters
    window.add_new("WindowWidth", "FD", width)
    return apply_windowing(values, window)


def _looked_up(values: np.ndarray, file: Any) -> np.ndarray:
    """Values through the first VOI LUT (C.11.2.1.1); those outside it get its first or its last entry."""
    table = file.VOILUTSequence[0]
    if "LUTDescriptor" not in table or "LUTData" not in table:
        raise ValueError("its VOI LUT has no LUTDescriptor or no LUTData")
    entries, first, _ = table.LUTDescriptor
    entries, data = entries or 2**16, table.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, np.uint8 if len(data) < 2 * entries else "<u2")
    if np.size(data) < entries:
        raise ValueError(f"its VOI LUT has {np.size(data)} entries of the {entries} it declares")
    # pydicom's apply_voi counts in the type of the entries, so that indices above 255 or 65,535 start over.
    index = np.clip(np.rint(values) - first, 0, entries - 1).astype(np.intp)
    return np.asarray(data, np.float64)[index]


def _number(file: Any, tag: str, default: Default) -> float | Default:
    """The first value of a tag; `default` where it is missing or blank."""
    value = file.get(tag)
    if value is None or value == "":
        return default
    if isinstance(value, str):
        value = [value]
    first = value[0] if hasattr(value, "__getitem__") else value
    number = float(first)
    if not np.isfinite(number):
        raise ValueError(f"its {tag} is {number}; expected a number")
    return number
