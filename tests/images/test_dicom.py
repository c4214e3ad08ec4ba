"""DICOM files of many kinds, made here, against the same pixels as arrays."""

import io
import os
import struct
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import check_split
import train_resnet
from src.images import dicom
from src.images.decode import read_image
from src.images.dicom import is_dicom, study_uid
from src.images.files import read_file, study_of
from tests.trees import write_csv

pydicom = pytest.importorskip("pydicom")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.pixels import get_decoder  # noqa: E402
from pydicom.uid import (  # noqa: E402
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    RLELossless,
    generate_uid,
)

GRADIENT = np.linspace(0, 4095, 48 * 40).reshape(48, 40).astype(np.uint16)  # 12 bits


def read_dicom(path):
    """The values of a file."""
    return dicom.read_dicom(path.read_bytes())


def dataset(values, *, bits=12, kind="MONOCHROME2", **tags):
    """A DICOM data set of these stored values; a tag of None is left out."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid()
    made.Rows, made.Columns = values.shape[-2:]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, kind
    made.BitsAllocated, made.BitsStored, made.HighBit = 8 * values.itemsize, bits, bits - 1
    made.PixelRepresentation = int(values.dtype.kind == "i")
    made.PixelData = values.tobytes()
    made["PixelData"].VR = "OB" if values.itemsize == 1 else "OW"
    for tag, value in tags.items():
        if value is None:
            delattr(made, tag)
        else:
            setattr(made, tag, value)
    return made


def write(path, values, *, compress=None, encoded=None, **options):
    """A DICOM file; `encoded` is the frame in the encoding of `compress`, else pydicom makes it."""
    made = dataset(values, **options)
    if encoded:
        made.file_meta.TransferSyntaxUID = compress
        made.PixelData = encapsulate([encoded])
        made["PixelData"].is_undefined_length = True
    elif compress:
        made.compress(compress)
    made.save_as(path, enforce_file_format=True)
    return path


def jpeg_lossless(values, *, bits, left=True):
    """JPEG lossless (ITU-T T.81, process 14) of values uint16 [H, W], each predicted from its left neighbor or upper.

    Predictor 1 or 2 of table H.1. The Huffman codes are the differences' lengths, five bits each.
    """
    wide = values.astype(np.int64)
    predicted = np.full_like(wide, 1 << (bits - 1))
    predicted[1:], predicted[0, 1:] = wide[:-1], wide[0, :-1]
    if left:
        predicted[:, 1:] = wide[:, :-1]
    code = []
    for difference in ((wide - predicted + 2**15) % 2**16 - 2**15).ravel().tolist():
        length = abs(difference).bit_length()
        code.append(f"{length:05b}")
        if 0 < length < 16:
            code.append(f"{difference if difference > 0 else difference + 2**length - 1:0{length}b}")
    code.append("1" * (-sum(map(len, code)) % 8))
    scan = int("".join(code), 2).to_bytes(sum(map(len, code)) // 8, "big").replace(b"\xff", b"\xff\x00")
    frame = struct.pack(">BHHBBBB", bits, *values.shape, 1, 1, 0x11, 0)
    huffman = bytes([0, *(17 * (length == 5) for length in range(1, 17)), *range(17)])
    start = bytes([1, 1, 0, 1 if left else 2, 0, 0])
    segments = [
        struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
        for marker, content in ((0xC3, frame), (0xC4, huffman), (0xDA, start))
    ]
    return b"\xff\xd8" + b"".join(segments) + scan + b"\xff\xd9"


def noise(bits):
    """Values [48, 40] of all sizes; 0 beside the middle is the longest difference there is."""
    values = np.random.default_rng(bits).integers(0, 2**bits, (48, 40), dtype=np.uint16)
    values[5, 5:8] = 0, 2 ** (bits - 1), 2**bits - 1
    return values


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("compress", [None, RLELossless, JPEG2000Lossless], ids=["plain", "rle", "jpeg2000"])
def test_stored_values_are_read_whatever_their_bits_and_compression(tmp_path, bits, compress):
    read = read_dicom(write(tmp_path / "a.dcm", noise(bits), bits=bits, compress=compress))
    assert read.dtype == np.float32
    assert np.array_equal(read, noise(bits))


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize(("compress", "left"), [(JPEGLosslessSV1, True), (JPEGLossless, True), (JPEGLossless, False)])
def test_jpeg_lossless_is_read_to_the_bit(tmp_path, bits, compress, left):
    encoded = jpeg_lossless(noise(bits), bits=bits, left=left)
    path = write(tmp_path / "a.dcm", noise(bits), bits=bits, compress=compress, encoded=encoded)
    assert np.array_equal(read_dicom(path), noise(bits))


def test_a_jpeg_inside_a_dicom_file_is_read(tmp_path):
    gray = (GRADIENT // 16).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(gray).save(stream, "JPEG", quality=95)
    path = write(tmp_path / "a.dcm", gray, bits=8, compress=JPEGBaseline8Bit, encoded=stream.getvalue())
    assert np.abs(read_dicom(path) - gray).mean() < 2


def test_without_the_plugin_of_a_compression_the_reason_says_what_to_install(tmp_path, monkeypatch):
    encoded = jpeg_lossless(GRADIENT, bits=12)
    path = write(tmp_path / "a.dcm", GRADIENT, compress=JPEGLosslessSV1, encoded=encoded)
    monkeypatch.setattr(get_decoder(JPEGLosslessSV1), "_available", {})
    with pytest.raises(ValueError, match=r"a\.dcm cannot be read .*; pip install -r requirements-dicom\.txt") as raised:
        read_file(path, sizes=[8])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_dicom_and_a_16_bit_png_of_the_same_pixels_are_the_same_image(tmp_path, kind):
    sign = -1 if kind == "MONOCHROME1" else 1
    Image.fromarray(GRADIENT if sign == 1 else GRADIENT.max() - GRADIENT).save(tmp_path / "a.png")
    path = write(tmp_path / "a.dcm", GRADIENT, kind=kind)
    for size, image in read_file(path, sizes=[32, 48]).items():
        assert image.dtype == torch.uint8 and image.shape == (1, size, size)
        assert torch.equal(image, read_image(tmp_path / "a.png", size=size))


def test_slope_and_intercept_come_before_the_window(tmp_path):
    path = write(tmp_path / "a.dcm", GRADIENT, RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=1000.5,
                 WindowWidth=2001, VOILUTFunction="LINEAR")  # fmt: skip
    expected = np.clip((2.0 * GRADIENT - 1000) / 2000, 0, 1)
    np.testing.assert_allclose(read_dicom(path), expected, atol=1e-6)


def test_a_negative_slope_turns_the_image_over_and_the_window_does_not_turn_it_back(tmp_path):
    read = read_dicom(write(tmp_path / "a.dcm", GRADIENT, RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=2048,
                            WindowWidth=4096))  # fmt: skip
    assert (np.diff(read.ravel()) <= 0).all() and read[0, 0] > read[-1, -1]


def test_signed_values_are_read(tmp_path):
    values = GRADIENT.astype(np.int16) - 2000
    assert np.array_equal(read_dicom(write(tmp_path / "a.dcm", values, bits=16)), values)


def test_the_first_of_several_windows_counts(tmp_path):
    several = write(tmp_path / "a.dcm", GRADIENT, WindowCenter=[1000, 9], WindowWidth=[500, 9])
    one = write(tmp_path / "b.dcm", GRADIENT, WindowCenter=1000, WindowWidth=500)
    assert np.array_equal(read_dicom(several), read_dicom(one))


@pytest.mark.parametrize(
    ("function", "width", "expected"),
    [
        ("SIGMOID", 1000, 1 / (1 + np.exp([4, 0.004, 0, -4]))),
        ("LINEAR", 1, [0, 0, 1, 1]),  # a threshold at the center less 0.5
        ("LINEAR_EXACT", 2, [0, 0, 0.5, 1]),
        ("LINEAR_EXACT", 4000, [0.25, 0.49975, 0.5, 0.75]),
    ],
)
def test_each_function_of_a_window_is_the_standards(tmp_path, function, width, expected):
    values = np.array([[0, 999, 1000, 2000]], np.uint16)
    path = write(tmp_path / "a.dcm", values, WindowCenter=1000, WindowWidth=width, VOILUTFunction=function)
    np.testing.assert_allclose(read_dicom(path)[0], expected, atol=1e-6)


def test_numbers_written_as_text_are_read(tmp_path):
    made = dataset(GRADIENT)
    for tag, text in (("WindowCenter", "1000.123456789012345"), ("WindowWidth", "500"), ("RescaleSlope", "2")):
        made.add_new(tag, "LO", text)
    made.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    expected = np.clip((2.0 * GRADIENT - 999.623456789) / 499 + 0.5, 0, 1)
    np.testing.assert_allclose(read_dicom(tmp_path / "a.dcm"), expected, atol=1e-6)


def test_a_voi_lut_is_looked_up_after_the_intercept_and_instead_of_the_window(tmp_path):
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4, 10, 16], [5, 50, 500, 5000]
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    values = np.array([[0, 5, 6, 7, 8, 4000]], np.uint16)
    path = write(tmp_path / "a.dcm", values, RescaleSlope=1, RescaleIntercept=5, VOILUTSequence=[table],
                 WindowCenter=1, WindowWidth=2)  # fmt: skip
    assert read_dicom(path)[0].tolist() == [5, 5, 50, 500, 5000, 5000]


def test_a_voi_lut_of_8_bits_is_read_however_its_entries_are_stored(tmp_path):
    for number, (entries, vr) in enumerate(((list(range(1024)), "US"), (bytes(range(256)) * 4, "OW"))):
        table = Dataset()
        table.add_new("LUTDescriptor", "US", [1024, 0, 8])
        table.add_new("LUTData", vr, [n % 256 for n in entries] if vr == "US" else entries)
        path = write(tmp_path / f"{number}.dcm", np.array([[0, 300, 1023, 4000]], np.uint16), VOILUTSequence=[table])
        assert read_dicom(path)[0].tolist() == [0, 44, 255, 255]


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"NumberOfFrames": 3}, "3 frames"),
        ({"PixelData": None}, "no pixel data"),
        ({"PhotometricInterpretation": None}, "photometric interpretation is None"),
        ({"PhotometricInterpretation": "RGB"}, "photometric interpretation is RGB"),
        ({"BitsAllocated": None}, "Bits Allocated"),
        ({"Rows": 900}, "pixel data"),
        ({"SamplesPerPixel": 3}, r"SamplesPerPixel \(0028,0002\) is 3"),
        ({"Modality": "MR"}, "its Modality is MR; expected a radiograph"),
        (
            {"BodyPartExamined": "KNEE"},
            r"its BodyPartExamined \(0018,0015\) is KNEE; expected CHEST .* correct or empty the tag",
        ),
        ({"BodyPartExamined": "THORACIC SPINE"}, "is THORACIC SPINE"),
        ({"BodyPartExamined": "BREAST"}, "is BREAST"),
        ({"BodyPartExamined": "HIP_JOINT"}, "is HIP JOINT"),
        ({"ViewPosition": "MLO"}, "its ViewPosition is MLO"),
        ({"RescaleSlope": 0}, "RescaleSlope is 0"),
        ({"WindowCenter": 1}, "WindowCenter and WindowWidth"),
        ({"WindowCenter": 1, "WindowWidth": 0}, "WindowWidth is 0"),
        ({"WindowCenter": 1, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, "CUBIC"),
        ({"WindowCenter": 99999, "WindowWidth": 10}, "single gray value"),
        ({"HighBit": 15}, "high bit is 15 of 12"),
        ({"VOILUTSequence": [Dataset()]}, "its VOI LUT has no LUTDescriptor"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_missing_and_wrong_tags_are_refused_by_name(tmp_path, tags, reason):
    with pytest.raises(ValueError, match=reason) as raised:
        read_file(write(tmp_path / "odd.dcm", GRADIENT, **tags), sizes=[8])
    assert "odd.dcm" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"hello", bytes(128) + b"DICM", bytes(128) + b"DICM" + b"\xff" * 400])
def test_what_is_no_dicom_file_is_refused(tmp_path, content):
    (tmp_path / "a.dcm").write_bytes(content)
    reason = "cannot be read" if b"DICM" in content else r"cannot be read \(it is not a DICOM file: no DICM marker"
    reason = reason if content else "is empty"
    with pytest.raises(ValueError, match=rf"a\.dcm {reason}"):
        read_file(tmp_path / "a.dcm", sizes=[8])


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    "part", ["CHEST", "Port_Chest", "THORAX", "TX", "Brust", "TÓRAX", "LUNGS", "UNKNOWN", "", "RIBS"]
)
def test_a_chest_by_any_name_is_read(tmp_path, part):
    tags = {"BodyPartExamined": part, "Modality": "DX", "ViewPosition": "PA"}
    assert read_dicom(write(tmp_path / "a.dcm", GRADIENT, **tags)).shape == GRADIENT.shape


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("part", ["TÓRAX", "GÖĞÜS", "흉부"])
def test_a_chest_in_utf_8_is_read(tmp_path, part):
    tags = {"BodyPartExamined": part.encode().decode("latin-1")}  # which pydicom writes as the bytes of UTF-8
    assert read_dicom(write(tmp_path / "a.dcm", GRADIENT, **tags)).shape == GRADIENT.shape


@pytest.mark.parametrize("order", ["implicit", "little", "big"])
def test_a_file_without_preamble_and_file_meta_is_read(tmp_path, order):
    made = dataset(GRADIENT, StudyInstanceUID="1.2.3")
    del made.file_meta
    if order == "big":
        made["PixelData"].value = GRADIENT.byteswap().tobytes()
    path = tmp_path / "IM0001"
    made.save_as(path, implicit_vr=order == "implicit", little_endian=order != "big", enforce_file_format=False)
    assert path.read_bytes()[128:132] != b"DICM" and is_dicom(path)
    assert np.array_equal(read_dicom(path), GRADIENT)
    assert study_uid(path) == "1.2.3"


def test_a_missing_transfer_syntax_is_named(tmp_path):
    path = write(tmp_path / "a.dcm", GRADIENT)
    made = pydicom.dcmread(path)
    del made.file_meta.TransferSyntaxUID
    made.save_as(path, implicit_vr=False, little_endian=True, enforce_file_format=False)
    with pytest.raises(ValueError, match=r"its TransferSyntaxUID \(0002,0010\) is missing"):
        read_dicom(path)


@pytest.mark.parametrize("kind", ["u", "i"])
def test_bits_above_those_stored_are_no_part_of_the_picture(tmp_path, kind):
    values = GRADIENT.astype(np.int32) - (2048 if kind == "i" else 0)
    stored = (values & 0x0FFF).astype(np.uint16)
    stored[5:20, 5:20] |= 0x8000  # an overlay
    path = write(tmp_path / "a.dcm", stored.view(np.int16) if kind == "i" else stored)
    assert np.array_equal(read_dicom(path), values)


@pytest.mark.parametrize("kind", [np.uint16, np.int16])
def test_values_of_more_bits_than_the_file_says_are_refused_and_an_overlay_is_not(tmp_path, kind):
    values = GRADIENT.astype(kind) * 4
    with pytest.raises(ValueError, match=r"its BitsStored \(0028,0101\) is 12, .* need more bits \(the largest"):
        read_dicom(write(tmp_path / "a.dcm", values))
    overlay = np.where(GRADIENT % 2, 0x1000, 0).astype(kind)
    made = write(tmp_path / "b.dcm", GRADIENT.astype(kind) // 4 | overlay)
    with pytest.raises(ValueError, match="BitsStored"):
        read_dicom(made)
    claimed = pydicom.dcmread(made)
    claimed.add_new((0x6000, 0x0102), "US", 12)
    claimed.save_as(made)
    assert np.array_equal(read_dicom(made), GRADIENT // 4)


def test_a_cut_file_is_refused(tmp_path):
    path = write(tmp_path / "a.dcm", GRADIENT)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="cannot be read"):
        read_file(path, sizes=[8])
    path = write(path, GRADIENT, compress=RLELossless)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="truncated"):
        read_file(path, sizes=[8])


@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_jpeg_that_was_cut_before_it_was_put_into_the_file_is_refused(tmp_path, part):
    gray = (GRADIENT // 16).astype(np.uint8)
    baseline = io.BytesIO()
    Image.fromarray(gray).save(baseline, "JPEG", quality=95)
    lossless = jpeg_lossless(noise(12), bits=12)
    for compress, encoded in ((JPEGLosslessSV1, lossless), (JPEGBaseline8Bit, baseline.getvalue())):
        values, bits = (noise(12), 12) if compress == JPEGLosslessSV1 else (gray, 8)
        cut = encoded[: int(part * len(encoded))]
        path = write(tmp_path / "a.dcm", values, bits=bits, compress=compress, encoded=cut)
        with pytest.raises(ValueError, match="JPEG data are truncated"):
            read_file(path, sizes=[8])


def test_dicom_is_known_by_name_or_by_its_first_bytes(tmp_path):
    path = write(tmp_path / "1.2.840.7", GRADIENT)
    assert is_dicom(path)
    (tmp_path / "a.DCM").write_bytes(b"")
    assert is_dicom(tmp_path / "a.DCM")
    Image.fromarray(GRADIENT).save(tmp_path / "a.png")
    assert not is_dicom(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize(
    ("tags", "uid"),
    [
        ({"StudyInstanceUID": "1.2.3"}, "1.2.3"),
        ({"StudyInstanceUID": "1.2.3", "PixelData": None}, "1.2.3"),  # it cannot be read and has a study all the same
        ({"StudyInstanceUID": " "}, ""),
        ({"StudyInstanceUID": "1.2\r.3"}, ""),
        ({}, ""),
    ],
)
def test_a_study_is_known_by_the_uid_in_the_header(tmp_path, tags, uid):
    path = write(tmp_path / "a.dcm", GRADIENT, **tags)
    assert study_uid(path) == uid
    assert study_of(path, by="auto") == (uid or path)
    assert study_of(path, by="file") == path and study_of(path, by="folder") == tmp_path


def test_what_has_no_header_is_a_study_of_its_own(tmp_path):
    (tmp_path / "text.dcm").write_text("no DICOM")
    (tmp_path / "a.png").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.dcm")
    for name in ("text.dcm", "a.png", "pipe.dcm", "away.dcm"):
        assert study_of(tmp_path / name, by="auto") == tmp_path / name
    assert study_of(tmp_path, by="folder") == tmp_path  # a folder without images


def test_without_pydicom_the_reason_says_what_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "a.dcm", GRADIENT)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ValueError, match=r"pip install -r requirements-dicom\.txt"):
        read_file(path, sizes=[8])


def test_padding_is_black_and_no_part_of_the_range(tmp_path):
    values = noise(12) // 2 + 100
    padded = values.copy()
    padded[:, :4] = 4095
    shown = read_dicom(write(tmp_path / "a.dcm", padded, PixelPaddingValue=4095))
    assert (shown[:, :4] == shown[:, 4:].min()).all() and np.array_equal(shown[:, 4:], values[:, 4:])


def test_a_run_is_trained_on_dicom_as_predict_reads_it(tmp_path, monkeypatch, capsys):
    """From the check of the files to the cache and a checkpoint."""
    rng = np.random.default_rng(0)
    rows = []
    for patient in range(12):
        name = f"{patient}.dcm"
        write(tmp_path / name, rng.integers(0, 4096, (40, 40)).astype(np.uint16))
        rows.append({"path": name, "patient_id": f"p{patient}", "A": patient % 2})
    write_csv(tmp_path / "labels.csv", rows)
    flags = ["--run-dir", str(tmp_path / "run")]
    split = ["--data", str(tmp_path / "labels.csv"), "--val-fraction", "0.3", "--test-fraction", "0.3", *flags]
    assert check_split.main([*split, "--images", "open"]) == 0
    small = ["--weights", "none", "--image-size", "32", "--epochs", "1", "--workers", "0", "--unfreeze-from", "fc"]
    train_resnet.main([*flags, *small, "--cache", str(tmp_path / "cache")])
    assert (tmp_path / "run" / "resnet50" / "best.pt").exists()
    path = tmp_path / "0.dcm"
    assert torch.equal(read_image(path, size=32), read_file(path, sizes=[32])[32])
    monkeypatch.setattr("src.stages.split.importlib.util.find_spec", lambda name: None)
    capsys.readouterr()
    assert check_split.main([*split, "--overwrite"]) == 1
    assert "pydicom, which is needed to read 12 DICOM images such as 0.dcm, is not installed" in capsys.readouterr().out
