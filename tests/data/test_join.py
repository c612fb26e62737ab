"""Several sources as one data set: names, the same face once, and every source divided by itself."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fer.data.datamodule import FER2013DataModule
from fer.data.faces import TEST, TRAIN, UNSPLIT, VAL, Faces
from fer.data.join import join, short_names
from fer.data.splits import assign_splits
from fer.errors import UserError
from fer.settings.train import DataSettings, TrainSettings

Make = Callable[..., Faces]


def faces_of(some_faces: Make, split: int, pictures: list[int], seed: int = 0) -> Faces:
    """The faces called 0 to 29 of a seed, some of them, in one split."""
    faces = some_faces(30, seed=seed).select(np.array(pictures))
    return dataclasses.replace(faces, splits=np.full(len(faces), split, np.int8))


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["data/RAF-DB", "CK+48"], ["RAF-DB", "CK+48"]),
        (["a/data/faces", "b/data/faces"], ["a/data/faces", "b/data/faces"]),
        (["/x/one/faces.csv", "/x/two/faces.csv"], ["one/faces.csv", "two/faces.csv"]),
    ],
)
def test_sources_of_one_name_are_told_apart(paths: list[str], names: list[str]) -> None:
    assert short_names([Path(path) for path in paths]) == names


def test_a_face_of_two_sources_is_taken_once(some_faces: Make, caplog: pytest.LogCaptureFixture) -> None:
    one = faces_of(some_faces, TRAIN, [0, 1, 2, 2])  # its own copies stay
    two = faces_of(some_faces, TRAIN, [1, 2, 3])
    two.labels[0] = 5
    with caplog.at_level(logging.INFO):
        joined = join([one, two], ["one", "two"])
    assert joined.ids.tolist() == ["one/0", "one/1", "one/2", "one/2", "two/3"]
    assert joined.origins is not None
    assert joined.origins.tolist() == [0, 0, 0, 0, 1]
    assert "two: left out 2 faces that one has, too, 1 of them under another label" in caplog.text
    assert "2 sources: 5 faces, 4 of one + 1 of two" in caplog.text


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        *[(TRAIN, TEST, "two/7"), (TRAIN, VAL, "two/7"), (UNSPLIT, TEST, "two/7"), (VAL, TEST, "two/7")],
        *[(TEST, TRAIN, "one/7"), (TRAIN, TRAIN, "one/7"), (UNSPLIT, TRAIN, "one/7"), (TEST, TEST, "one/7")],
    ],
)
def test_a_test_face_stays_a_test_face(some_faces: Make, first: int, second: int, kept: str) -> None:
    joined = join([faces_of(some_faces, first, [7]), faces_of(some_faces, second, [7])], ["one", "two"])
    assert joined.ids.tolist() == [kept]


def test_persons_of_two_sources_are_not_one(some_faces: Make) -> None:
    one = dataclasses.replace(faces_of(some_faces, TRAIN, [0, 1]), persons=np.array(["S1", ""]))
    two = dataclasses.replace(faces_of(some_faces, TRAIN, [2]), persons=np.array(["S1"]))
    joined = join([one, two, faces_of(some_faces, TRAIN, [3])], ["a", "b", "c"])
    assert joined.persons is not None
    assert joined.persons.tolist() == ["a/S1", "", "b/S1", ""]


def test_each_source_is_divided_by_itself(some_faces: Make) -> None:
    divided = some_faces(30, seed=1)  # with validation and test rows of its own
    undivided = faces_of(some_faces, UNSPLIT, list(range(30)), seed=2)
    joined = assign_splits(join([divided, undivided], ["one", "two"]), val_fraction=0.25, test_fraction=0.25)
    assert joined.splits[:30].tolist() == divided.splits.tolist()
    alone = assign_splits(undivided, val_fraction=0.25, test_fraction=0.25)
    assert joined.splits[30:].tolist() == alone.splits.tolist()
    assert set(alone.splits.tolist()) == {TRAIN, VAL, TEST}
    # By picture and class as well beside a source that names persons and is divided by them.
    named = dataclasses.replace(divided, persons=np.array(["S1", "S2", "S3"] * 10))
    joined = assign_splits(join([named, undivided], ["one", "two"]), val_fraction=0.25, test_fraction=0.25)
    assert joined.splits[30:].tolist() == alone.splits.tolist()
    trained, tested = faces_of(some_faces, TRAIN, [0, 1, 2, 3]), faces_of(some_faces, TEST, [4, 5])
    both = assign_splits(join([tested, trained], ["test", "train"]), val_fraction=0.0)
    assert both.splits.tolist() == [TEST, TEST, TRAIN, TRAIN, TRAIN, TRAIN]


def test_too_many_for_the_memory_lie_on_the_disk(some_faces: Make, cache_directory: Path) -> None:
    one, two = some_faces(20), some_faces(20, seed=1)
    held, mapped = join([one, two], ["one", "two"]), join([one, two], ["one", "two"], memory=39 * 48 * 48)
    assert not isinstance(held.images, np.memmap)
    assert isinstance(mapped.images, np.memmap)
    assert np.array_equal(mapped.images, held.images)
    assert list(cache_directory.iterdir()) == []  # the file has no name
    assert np.array_equal(mapped.select(mapped.splits == VAL).images, held.select(held.splits == VAL).images)


def test_too_many_for_the_memory_are_held_where_the_disk_takes_none(
    some_faces: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FER_CACHE", str(tmp_path / "file" / "cache"))
    assert len(join([some_faces(20), some_faces(20, seed=1)], ["one", "two"], memory=1)) == 40
    assert "cannot be written (Not a directory): all faces are kept in memory" in caplog.text


def of(paths: list[Path], **settings: object) -> FER2013DataModule:
    data = FER2013DataModule(DataSettings.checked({"path": list(map(str, paths)), "augment": None, **settings}))
    data.prepare_data()
    data.setup()
    return data


def test_training_on_two_sources(
    tmp_path: Path, some_faces: Make, csv_text: Callable[..., str], write_tree: Callable[..., Path]
) -> None:
    (tmp_path / "fer.csv").write_text(csv_text(some_faces(42, seed=100)))
    folders = write_tree(tmp_path / "CK+48", [f"{name}/{i}.png" for i in range(20) for name in ("happy", "Contempt")])
    data = of([tmp_path / "fer.csv", folders], classes=["happy", "sad", "contempt"])
    counts = data.class_counts()
    assert counts["train"] == {"happy": 2 + 16, "sad": 2, "contempt": 16}
    assert counts["val"] == {"happy": 2 + 2, "sad": 2, "contempt": 2}
    assert {row.partition("/")[0] for row in data.rows(TRAIN).ids} == {"fer.csv", "CK+48"}
    assert data.source == f"{tmp_path}/fer.csv, {tmp_path}/CK+48"
    folds = of([tmp_path / "fer.csv", folders], classes=["happy", "contempt"], folds=2, split="random")
    assert folds.class_counts()["val"]["contempt"] > 0
    alone = of([folders], classes=["happy", "contempt"])
    assert alone.rows(TRAIN).ids[0].startswith("Contempt/")  # a list of one is that one


def test_a_missing_one_of_several_is_not_downloaded(tmp_path: Path, write_tree: Callable[..., Path]) -> None:
    path = write_tree(tmp_path / "a", ["happy/1.png", "sad/1.png"])
    with pytest.raises(UserError, match=r"data\.path=.*rafdb\.csv does not exist; correct it"):
        of([path, tmp_path / "rafdb.csv"])


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"path": []}, "data.path=[]: give at least one source"),
        ({"path": ["a/../b", "b"]}, "data.path names b twice; name each source once"),
        ({"path": ["a", "b"], "labels": "ferplus"}, "there are no votes on several sources"),
        ({"path": ["a", "b"], "exclude": "list.csv"}, "data.exclude: a list is of one source"),
    ],
)
def test_what_does_not_go_together(data: dict[str, object], sentence: str) -> None:
    found = list(TrainSettings.checked({"data": data}).contradictions())
    assert any(sentence in each for each in found), found
