"""Lists of doubtful rows: written, read back, refused for other data, and what training and evaluation make of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fer.data.datamodule import FER2013DataModule
from fer.data.exclude import COLUMNS, DEFAULT_REASONS, REASONS, Finding, check_reasons, read_list, write_list
from fer.data.faces import TEST, TRAIN, VAL, Faces
from fer.data.reader import read
from fer.errors import UserError
from fer.labels import EMOTIONS
from fer.settings.train import DataSettings

HAPPY, SAD = EMOTIONS.index("happy"), EMOTIONS.index("sad")

FINDINGS = [
    Finding(0, "blank", 1.0),
    Finding(3, "conflicting_labels", 0.97, HAPPY, 1),
    Finding(6, "exact_copy", 1.0, None, 2),
    Finding(6, "conflicting_labels", 1.0, SAD, 2),
    Finding(1, "near_copy", 0.93, None, 3),
    Finding(9, "label_error", 0.8, SAD),
    Finding(12, "label_error", 0.7, 7),
]


@pytest.fixture
def source(some_faces: Callable[..., Faces], csv_text: Callable[..., str], tmp_path: Path) -> Path:
    """42 rows; 0, 3, 6, ... train, 1, 4, ... validate, 2, 5, ... test."""
    path = tmp_path / "faces.csv"
    path.write_text(csv_text(some_faces(42)))
    return path


@pytest.fixture
def listing(source: Path, tmp_path: Path) -> Path:
    path = tmp_path / "cleaning.csv"
    write_list(path, FINDINGS, read(source))
    return path


def ready(source: Path, exclude: Path, **settings: object) -> FER2013DataModule:
    chosen = {"path": str(source), "exclude": str(exclude), "augment": None, **settings}
    datamodule = FER2013DataModule(DataSettings.checked(chosen))
    datamodule.setup()
    return datamodule


def test_a_list_that_excel_has_saved(source: Path, listing: Path) -> None:
    expected = read_list(listing, read(source)).listed
    listing.write_bytes(b"\xef\xbb\xbf" + listing.read_bytes().replace(b"\n", b"\r\n"))
    assert (read_list(listing, read(source)).listed == expected).all()


def test_a_list_comes_back_by_reason(source: Path, listing: Path) -> None:
    faces = read(source)
    default = read_list(listing, faces)
    assert np.flatnonzero(default.listed).tolist() == [0, 1, 3, 6]
    assert default.suggested[3] == HAPPY
    assert default.suggested[6] == -1  # one of its two reasons has no label to suggest
    chosen = read_list(listing, faces, ["label_error"])
    assert np.flatnonzero(chosen.listed).tolist() == [9, 12]
    assert chosen.suggested[[9, 12]].tolist() == [SAD, 7]


def test_opinions_are_no_default() -> None:
    assert check_reasons(None) == DEFAULT_REASONS
    assert set(REASONS) - set(DEFAULT_REASONS) == {"unknown", "ferplus_disagrees", "label_error"}
    with pytest.raises(UserError, match="blnk is no reason; did you mean blank"):
        check_reasons(["blnk"])
    with pytest.raises(UserError, match="exclude_reasons is empty"):
        check_reasons([])


def test_rows_of_folders_go_by_path(write_tree: Callable[..., Path], tmp_path: Path) -> None:
    top = write_tree(tmp_path / "tree", ["train/happy/1.png", "train/happy/2.png", "train/sad/3.png", "val/sad/4.png"])
    faces = read(top)
    row = faces.ids.tolist().index("train/happy/2.png")
    write_list(tmp_path / "cleaning.csv", [Finding(row, "blank", 1.0)], faces)
    assert "train/happy/2.png" in (tmp_path / "cleaning.csv").read_text()
    datamodule = ready(top, tmp_path / "cleaning.csv", classes=["happy", "sad"])
    assert datamodule.rows(TRAIN).ids.tolist() == ["train/happy/1.png", "train/sad/3.png"]


def edited(listing: Path, old: str, new: str) -> Path:
    text = listing.read_text()
    assert old in text
    listing.write_text(text.replace(old, new, 1))
    return listing


def test_a_list_of_another_data_set_is_refused(source: Path, listing: Path, some_faces: Callable[..., Faces]) -> None:
    with pytest.raises(UserError, match=r"line 2, names row 0, which shows another picture.*another data set"):
        read_list(listing, some_faces(42, seed=1))
    with pytest.raises(UserError, match=r"line 8, names row 12, which is not in the data"):
        read_list(listing, read(source).select(np.arange(12)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("blank", "blnk", r"line 2, has the reason 'blnk'"),
        ("happy", "hapy", r"line 3, suggests 'hapy'"),
        ("reason", "raeson", "has no column reason"),
    ],
)
def test_a_spoilt_list_is_refused(source: Path, listing: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_list(edited(listing, old, new), read(source))


def test_files_that_are_no_list(source: Path, tmp_path: Path) -> None:
    faces = read(source)
    with pytest.raises(UserError, match=r"does not exist; make it with fer-clean"):
        read_list(tmp_path / "none.csv", faces)
    with pytest.raises(UserError, match="has no column row"):
        read_list(source, faces)
    (tmp_path / "empty.csv").touch()
    with pytest.raises(UserError, match="has no column row"):
        read_list(tmp_path / "empty.csv", faces)
    (tmp_path / "short.csv").write_text(",".join(COLUMNS) + "\n0,blank\n")
    with pytest.raises(UserError, match="line 2"):
        read_list(tmp_path / "short.csv", faces)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        read_list(tmp_path / "binary.csv", faces)


def test_training_leaves_listed_rows_out_and_evaluation_tells_them_apart(source: Path, listing: Path) -> None:
    datamodule = ready(source, listing)
    assert {"0", "3", "6"}.isdisjoint(datamodule.rows(TRAIN).ids)
    assert len(datamodule.rows(TRAIN)) == 11
    assert len(datamodule.rows(VAL)) == 14
    clean = datamodule.clean(VAL)
    assert clean is not None
    assert datamodule.rows(VAL).ids[~clean].tolist() == ["1"]
    everything = datamodule.clean(TEST)
    assert everything is not None
    assert everything.all()
    assert ready(source, listing, exclude_reasons=["blank"]).class_counts()["train"]["angry"] == 1
    plain = FER2013DataModule(DataSettings(path=str(source)))
    plain.setup()
    assert plain.clean(VAL) is None


def test_relabelling_takes_the_suggestion_and_drops_what_has_none(source: Path, listing: Path) -> None:
    datamodule = ready(
        source, listing, exclude_reasons=[*DEFAULT_REASONS, "label_error"], exclude_action="relabel", classes=7
    )
    rows = datamodule.rows(TRAIN)
    label = dict(zip(rows.ids.tolist(), rows.labels.tolist(), strict=True))
    assert label["3"] == HAPPY
    assert label["9"] == SAD
    assert {"0", "6", "12"}.isdisjoint(label)  # 12 would be contempt, which is no class here
    assert len(label) == 11
    assert label["15"] == 15 % 7
    assert len(datamodule.rows(VAL)) == 14


def test_a_list_that_leaves_nothing(source: Path, tmp_path: Path) -> None:
    faces = read(source)
    write_list(tmp_path / "all.csv", [Finding(row, "blank", 1.0) for row in range(0, 42, 3)], faces)
    with pytest.raises(UserError, match=r"no training rows are left.*data\.exclude_reasons"):
        ready(source, tmp_path / "all.csv")


def test_divisions_do_not_depend_on_the_list(source: Path, listing: Path) -> None:
    plain = FER2013DataModule(DataSettings(path=str(source), split="random"))
    plain.setup()
    listed = ready(source, listing, split="random")
    for code in (VAL, TEST):
        assert np.array_equal(plain.rows(code).ids, listed.rows(code).ids)
    assert set(listed.rows(TRAIN).ids) < set(plain.rows(TRAIN).ids)
