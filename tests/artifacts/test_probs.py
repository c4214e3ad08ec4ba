"""Probability files, from the stages and from elsewhere."""

import numpy as np
import pytest

from src.artifacts.io import as_stored
from src.artifacts.probs import read_outside_probs, read_probs, read_stage_probs, write_probs
from tests.trees import write_text


def test_probabilities_come_back_by_id_and_class_whatever_the_order(tmp_path):
    values = as_stored(np.random.default_rng(0).random((3, 2)))
    write_probs(tmp_path / "p.csv", ids=["a", "1", "N1"], classes=["X", "Y"], values=values)
    probs = read_probs(tmp_path / "p.csv")
    turned = probs.aligned(["N1", "a", "1"], ["Y", "X"])
    np.testing.assert_array_equal(turned, values[[2, 0, 1]][:, [1, 0]])


def test_large_logits_keep_their_order_in_the_file(tmp_path):
    logits = np.array([-40.0, -17.5, 17.5, 18.0, 19.0, 20.0])  # from 17 on, a float32 sigmoid is exactly 1
    write_probs(tmp_path / "p.csv", ids=list("abcdef"), classes=["X"], values=1 / (1 + np.exp(-logits[:, None])))
    values = read_probs(tmp_path / "p.csv").values[:, 0]
    assert (np.diff(values) > 0).all() and values[-1] < 1
    np.testing.assert_allclose(np.log(values / (1 - values)), logits, atol=0.3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,X\na,1.77\n", r"X of a is 1.77; expected a probability"),
        ("id,X\na,0.5\nb,-0.1\n", r"X of b is -0.1"),
        ("id,X\na,\n", r"X of a is "),
        ("id,X\na,nan\n", r"X of a is nan"),
        ("id,X\na,high\n", r"X of a is high"),
        ("id,X\na,0.5\na,0.6\n", r"'a' appears on lines 2 and 3; each must be unique"),
        ("id,X,X\na,0.5,0.5\n", r"two columns named 'X'"),
        ("id,Lung Lesion,lung_lesion\na,0.5,0.5\n", r"two columns for the same class: Lung Lesion and lung_lesion"),
        ("id,prob_X,Prob X\na,0.5,0.5\n", r"two columns for the same class: prob_X and Prob X"),
        ("id,X\n", r"no rows"),
        ("id\na\n", r"has only one column"),
        ("", r"no rows"),
        ("id,X,,Y\na,0.5,0.7,0.2\n", r"column 3 has values but no name"),
        ("id,X\na,  \n", r"X of a is blank"),
        (",X\na,0.5\n", r"first column has no name"),
        ("id,X\na,1\nb,0\n", r"only 0 and 1; expected probabilities .is it a file of labels"),
    ],
)
def test_bad_probabilities_are_refused_with_file_class_id_and_value(tmp_path, text, message):
    with pytest.raises(ValueError, match=f"p.csv.*{message}"):
        read_outside_probs(write_text(tmp_path / "p.csv", text))


@pytest.mark.parametrize(
    ("text", "unused"),
    [
        ("Image Index,prob_Edema,prob_Pleural_Effusion,Edema\na,0.5,0.25,1\n", "Edema"),
        ("Pleural Effusion,Edema,Path\n0.25,0.5,a\n", ""),
        (
            ",Unnamed: 0,filename,Patient ID,EDEMA,pleural-effusion,fold\n0,7,a,P,0.5,0.25,1\n",
            "Unnamed: 0, Patient ID, fold",
        ),
        ("id;edema;pleural effusion\na;0,5;0,25\n", ""),
    ],
)
def test_probabilities_of_another_program_are_found_by_the_names_of_their_columns(tmp_path, text, unused):
    probs = read_outside_probs(write_text(tmp_path / "p.csv", text))
    assert probs.aligned(["a"], ["Pleural Effusion", "Edema"]).tolist() == [[0.25, 0.5]]
    assert probs.said.endswith(f"; not used: {unused}") if unused else "not used" not in probs.said
    assert "findings: 2 (" in probs.said


@pytest.mark.parametrize("name", ["No Finding", "no_finding", "prob_No Finding"])
def test_no_finding_is_a_class_only_where_it_is_asked_for_or_alone(tmp_path, name):
    prefix = "prob_" if name.startswith("prob_") else ""
    path = write_text(tmp_path / "p.csv", f"id,{name},{prefix}X\na,0.5,0.25\n")
    probs = read_outside_probs(path)
    assert probs.classes == ("X",) and f"{name!r} is not a class, because nothing asked for it" in probs.said
    asked = read_outside_probs(path, asked=["no finding", "X"])
    assert asked.aligned(["a"], ["X", "No_Finding"]).tolist() == [[0.25, 0.5]] and "is not a class" not in asked.said
    alone = read_outside_probs(write_text(tmp_path / "q.csv", f"id,{name}\na,0.5\n"))
    assert alone.classes == (name.removeprefix("prob_"),) and "is not a class" not in alone.said


def test_a_column_whose_name_says_that_it_is_no_finding_is_a_class_where_it_is_asked_for(tmp_path):
    path = write_text(tmp_path / "p.csv", "id,Smoker,X\na,0.5,0.25\n")
    assert read_outside_probs(path).classes == ("X",)
    assert read_outside_probs(path, asked=["smoker", "X"]).classes == ("Smoker", "X")


def test_a_class_of_a_run_may_be_called_anything(tmp_path):
    write_probs(tmp_path / "p.csv", ids=["a"], classes=["is_female", "view"], values=np.array([[0.5, 0.25]]))
    assert read_probs(tmp_path / "p.csv").classes == ("is_female", "view")


def test_ids_with_other_folders_are_known_by_their_ends_and_this_is_said(tmp_path):
    probs = read_outside_probs(write_text(tmp_path / "p.csv", "id,X\nimages/b.png,0.5\na.png,0.25\n"))
    known = probs.known_as(["a.png", "b.png"])
    assert known.aligned(["a.png", "b.png"], ["X"]).tolist() == [[0.25], [0.5]]
    assert known.said.endswith("; 1 id matched by the end of the path, such as 'images/b.png' to 'b.png'")
    assert known.known_as(["a.png", "b.png"]) is known and probs.known_as(["c.png"]) is probs
    with pytest.raises(ValueError, match="image id 'c.png' is missing .* it has 'images/b.png', 'a.png', ..."):
        probs.aligned(["c.png"], ["X"])


def test_ids_of_another_split_may_be_there_too(tmp_path):
    probs = read_outside_probs(write_text(tmp_path / "p.csv", "id,X\na,0.5\nb,0.25\n"))
    assert probs.aligned(["b"], ["X"], others=["a", "c"]).tolist() == [[0.25]]
    with pytest.raises(ValueError, match="image id 'a' is not in the labels"):
        probs.aligned(["b"], ["X"], others=["c"])


@pytest.mark.parametrize(
    ("ids", "classes", "message"),
    [
        (["a", "b"], ["X"], "image id 'b' is missing"),
        ([], ["X"], "image id 'a' is not in the labels"),
        (["a"], ["X", "Y"], "class 'Y' is missing"),
        (["a"], [], "class 'X' is not in the labels"),
    ],
)
def test_ids_and_classes_that_do_not_match_are_named(tmp_path, ids, classes, message):
    probs = read_probs(write_text(tmp_path / "p.csv", "id,X\na,0.5\n"))
    with pytest.raises(ValueError, match=message):
        probs.aligned(ids, classes)


def test_probabilities_of_another_manifest_are_refused(tmp_path):
    write_text(tmp_path / "probs_val.csv", "image_id,X\na,0.5\n")
    write_text(tmp_path / "probs.json", '{"manifest_sha256": "other"}')

    class Manifest:
        sha256 = "this"

    with pytest.raises(ValueError, match="a different manifest"):
        read_stage_probs(tmp_path, "val", Manifest)


def test_spaces_around_names_do_not_matter(tmp_path):
    probs = read_probs(write_text(tmp_path / "p.csv", "Study, X, Y\na,0.5,0.25\n"))
    assert probs.classes == ("X", "Y") and probs.values.tolist() == [[0.5, 0.25]]


def test_blank_lines_and_a_trailing_comma_do_not_matter(tmp_path):
    probs = read_probs(write_text(tmp_path / "p.csv", "\nid,X,\n\na,0.5,\n"))
    assert probs.classes == ("X",) and probs.values.tolist() == [[0.5]]
