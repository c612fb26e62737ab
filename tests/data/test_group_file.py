"""Groups are read as people have written them, and mistakes in them are named."""

from pathlib import Path

import numpy as np
import pytest

from fer.data.group_file import read_groups
from fer.errors import UserError

ROWS = np.array([str(number) for number in range(6)])
RAF_DB_ROWS = np.array(
    ["test/3/test_0001_aligned.jpg", "test/7/test_0002_aligned.jpg", "train/1/train_00001_aligned.jpg"]
)
LANDMARKS = "33.1\t40.2\n66.5\t41.0\n50.0\t60.3\n36.2\t75.9\n63.8\t76.1\n"


def test_a_csv_names_the_group_of_each_row(tmp_path: Path) -> None:
    file = tmp_path / "groups.csv"
    file.write_text("\ufeffid,group,note\n4,old,\n0,young,x\n2, old ,\n", encoding="utf-8")
    assert read_groups(file, ROWS)["group"].tolist() == ["young", "", "old", "", "old", ""]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,group\n0,a\n17,b\n", r"line 3, names 17, which is no row of the data"),
        ("id,group\n0,a\n1,\n", r"line 3, leaves the group of 1 empty"),
        ("id,group\n0,a\n0,b\n", r"line 3, names 0 for the second time"),
        ("row,group\n0,a\n", "no column id"),
        ("id,group\n", "no lines"),
        ("id,group\n\xff\xfe", "cannot be read"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "groups.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=message) as error:
        read_groups(tmp_path / "groups.csv", ROWS)
    assert len(str(error.value).splitlines()) == 1


def test_raf_dbs_attributes(tmp_path: Path) -> None:
    (tmp_path / "test_0001_manu_attri.txt").write_text(f"{LANDMARKS}1\n2\n4\n")
    (tmp_path / "train_00001_manu_attri.txt").write_text(f"{LANDMARKS}2\n0\n0\n")
    assert {name: groups.tolist() for name, groups in read_groups(tmp_path, RAF_DB_ROWS).items()} == {
        "gender": ["female", "", "unsure"],
        "race": ["Asian", "", "Caucasian"],
        "age": ["70 and more", "", "0 to 3"],
    }


@pytest.mark.parametrize("tail", ["1\n2\n5\n", "1\n-1\n0\n", "1\n2\nold\n", ""])
def test_a_file_that_is_not_raf_dbs_is_refused(tmp_path: Path, tail: str) -> None:
    (tmp_path / "test_0001_manu_attri.txt").write_text(LANDMARKS + tail)
    with pytest.raises(UserError, match="test_0001_manu_attri"):
        read_groups(tmp_path, RAF_DB_ROWS)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Annotation/manual"):
        read_groups(tmp_path, RAF_DB_ROWS)
