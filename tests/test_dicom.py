"""DICOM files of many kinds, made here, against the same pixels as arrays."""

import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from src.dicom import is_dicom, read_dicom
from src.image_files import read_file
from src.transforms import read_image

pydicom = pytest.importorskip("pydicom")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless, generate_uid  # noqa: E402

GRADIENT = np.linspace(0, 4095, 48 * 40).reshape(48, 40).astype(np.uint16)  # 12 bits


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


def write(path, values, *, compress=None, **options):
    made = dataset(values, **options)
    if compress:
        made.compress(compress)
    made.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("compress", [None, RLELossless, JPEG2000Lossless], ids=["plain", "rle", "jpeg2000"])
def test_stored_values_are_read_whatever_their_bits_and_compression(tmp_path, bits, compress):
    values = GRADIENT if bits == 12 else GRADIENT * 16
    read = read_dicom(write(tmp_path / "a.dcm", values, bits=bits, compress=compress))
    assert read.dtype == np.float32
    assert np.array_equal(read, values)


def test_a_jpeg_inside_a_dicom_file_is_read(tmp_path):
    gray = (GRADIENT // 16).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(gray).save(stream, "JPEG", quality=95)
    made = dataset(gray, bits=8)
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    made.PixelData = encapsulate([stream.getvalue()])
    made["PixelData"].is_undefined_length = True
    made.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert np.abs(read_dicom(tmp_path / "a.dcm") - gray).mean() < 2


def test_monochrome1_is_the_negative_of_monochrome2(tmp_path):
    first = read_file(write(tmp_path / "1.dcm", GRADIENT.max() - GRADIENT, kind="MONOCHROME1"), sizes=[32])[32]
    second = read_file(write(tmp_path / "2.dcm", GRADIENT), sizes=[32])[32]
    assert torch.equal(first, second)
    assert second[0, 0, 0] < second[0, -1, -1]


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


def test_a_sigmoid_window_is_one_half_at_its_center(tmp_path):
    values = np.array([[0, 1000, 2000]], np.uint16)
    path = write(tmp_path / "a.dcm", values, WindowCenter=1000, WindowWidth=1000, VOILUTFunction="SIGMOID")
    ends = 1 / (1 + np.exp([4, 0, -4]))
    np.testing.assert_allclose(read_dicom(path)[0], ends, atol=1e-6)


def test_a_voi_lut_is_looked_up_after_the_intercept_and_instead_of_the_window(tmp_path):
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4, 10, 16], [5, 50, 500, 5000]
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    values = np.array([[0, 5, 6, 7, 8, 4000]], np.uint16)
    path = write(tmp_path / "a.dcm", values, RescaleSlope=1, RescaleIntercept=5, VOILUTSequence=[table],
                 WindowCenter=1, WindowWidth=2)  # fmt: skip
    assert read_dicom(path)[0].tolist() == [5, 5, 50, 500, 5000, 5000]


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"NumberOfFrames": 3}, "3 frames"),
        ({"PixelData": None}, "no pixel data"),
        ({"PhotometricInterpretation": None}, "photometric interpretation is None"),
        ({"PhotometricInterpretation": "RGB"}, "photometric interpretation is RGB"),
        ({"BitsAllocated": None}, "Bits Allocated"),
        ({"Rows": 900}, "pixel data"),
        ({"RescaleSlope": 0}, "RescaleSlope is 0"),
        ({"WindowCenter": 1}, "WindowCenter and WindowWidth"),
        ({"WindowCenter": 1, "WindowWidth": 0}, "WindowWidth is 0"),
        ({"WindowCenter": 1, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, "CUBIC"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_missing_and_wrong_tags_are_refused_by_name(tmp_path, tags, reason):
    with pytest.raises(ValueError, match=reason) as raised:
        read_dicom(write(tmp_path / "odd.dcm", GRADIENT, **tags))
    assert "odd.dcm" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"hello", bytes(128) + b"DICM", bytes(128) + b"DICM" + b"\xff" * 400])
def test_what_is_no_dicom_file_is_refused(tmp_path, content):
    (tmp_path / "a.dcm").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.dcm cannot be read"):
        read_dicom(tmp_path / "a.dcm")


def test_a_cut_file_is_refused(tmp_path):
    path = write(tmp_path / "a.dcm", GRADIENT)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="cannot be read"):
        read_dicom(path)


def test_dicom_is_known_by_name_or_by_its_first_bytes(tmp_path):
    path = write(tmp_path / "1.2.840.7", GRADIENT)
    assert is_dicom(path)
    (tmp_path / "a.DCM").write_bytes(b"")
    assert is_dicom(tmp_path / "a.DCM")
    Image.fromarray(GRADIENT).save(tmp_path / "a.png")
    assert not is_dicom(tmp_path / "a.png")


def test_without_pydicom_the_reason_says_what_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "a.dcm", GRADIENT)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ValueError, match=r"pip install -r requirements-dicom\.txt"):
        read_dicom(path)
