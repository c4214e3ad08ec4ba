"""Image files in whatever folders they were unpacked to."""

from src.labels.places import image_places


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def test_the_upper_level_comes_first_and_the_search_ends_where_all_are_found(tmp_path):
    touch(tmp_path, "b/1.png", "a/2.png", "a/deep/1.png")
    assert image_places(["1.png", "2.png"], tmp_path, default=["", ""]) == (["b/1.png", "a/2.png"], [])


def test_copies_on_the_same_level_are_told_and_missing_images_have_their_default(tmp_path):
    touch(tmp_path, "b/1.png", "a/1.png", ".hidden/2.png", "a/b/c/d/2.png")
    found, (warning,) = image_places(["1.png", "2.png"], tmp_path, default=["x/1.png", "x/2.png"])
    assert found == ["a/1.png", "x/2.png"] and warning.endswith("of which the first is used: 1 (1.png)")


def test_names_without_suffix(tmp_path):
    touch(tmp_path, "train/1.dicom", "train/2.png", "train/3.txt")
    found, copies = image_places(["1", "2", "3"], tmp_path, default="123", suffixes=(".dicom", ".png"))
    assert (found, copies) == (["train/1.dicom", "train/2.png", "3"], [])
    touch(tmp_path, "train/1.png")
    assert image_places(["1"], tmp_path, default=[""], suffixes=(".dicom", ".png"))[0] == ["train/1.dicom"]


def test_no_such_folder(tmp_path):
    assert image_places(["1.png"], tmp_path / "none", default=["a/1.png"]) == (["a/1.png"], [])
