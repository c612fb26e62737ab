import dataclasses
import functools
import io
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer.data import official
from fer.data.datamodule import FER2013DataModule
from fer.data.duplicates import difference_hash, digests
from fer.data.faces import TEST, TRAIN, UNSPLIT, VAL, Faces
from fer.data.ferplus import Votes, votes_of
from fer.data.official import find_official, use_official
from fer.data.reader import read
from fer.data.synthetic import make_faces
from fer.errors import UserError
from fer.labels import EMOTIONS
from fer.settings.train import DataSettings

BEGIN = (140, 175)  # of the test sets, in rows of a small FER2013
ROWS = 210
COPIES = {150: 3, 180: 4, 181: 4}  # rows that repeat an earlier one


@functools.cache
def drawn() -> Faces:
    return make_faces(BEGIN[0], BEGIN[1] - BEGIN[0], ROWS - BEGIN[1], seed=0)


@pytest.fixture
def fer2013(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faces:
    """Drawn faces that are all of FER2013, as its CSV has them, in place of the packaged digests."""
    faces = drawn().select(np.arange(ROWS))
    for row, earlier in COPIES.items():
        faces.images[row] = faces.images[earlier]
        faces.labels[row] = faces.labels[earlier]
    np.save(tmp_path / "digests.npy", np.stack([digests(faces.images), difference_hash(faces.images)], axis=1))
    monkeypatch.setattr(official, "TABLE", tmp_path / "digests.npy")
    monkeypatch.setattr(official, "_BEGIN_OF_TESTS", BEGIN)
    official._pictures.cache_clear()
    monkeypatch.setattr(official, "_pictures", official._pictures.__wrapped__)
    return faces


def shuffled(faces: Faces, split: int | None = None) -> tuple[Faces, np.ndarray]:
    """The faces in another order and without their names; where each stood."""
    order = np.random.default_rng(3).permutation(len(faces))
    splits = faces.splits if split is None else np.full(len(faces), split, np.int8)
    names = np.array([f"im{i}.png" for i in range(len(faces))])
    return Faces(faces.images[order], faces.labels[order], splits[order], names), order


def as_jpeg(faces: Faces, quality: int) -> Faces:
    images = []
    for image in faces.images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "jpeg", quality=quality)
        images.append(np.asarray(Image.open(file)))
    return dataclasses.replace(faces, images=np.stack(images))


def equal_pictures(faces: Faces, rows: np.ndarray, truth: np.ndarray) -> np.ndarray:
    equal: np.ndarray = (faces.images[rows] == faces.images[truth]).all(axis=(1, 2))
    return equal


def test_faces_without_names_and_splits_are_put_back_to_the_row(fer2013: Faces) -> None:
    faces, truth = shuffled(fer2013, UNSPLIT)
    found = find_official(faces)
    assert found is not None
    assert found.sure.all()
    assert sorted(found.rows) == list(range(ROWS))  # copies are given out as often as they stand there
    assert equal_pictures(fer2013, found.rows, truth).all()
    apart = ~np.isin(truth, [*COPIES, *COPIES.values()])
    assert (found.rows == truth)[apart].all()
    assert np.bincount(found.splits).tolist() == [140, 35, 35]


def test_copies_go_to_the_side_where_the_source_has_them(fer2013: Faces) -> None:
    faces, truth = shuffled(fer2013)
    faces.splits[faces.splits == VAL] = TEST  # as many copies keep both official test sets in one folder
    found = find_official(faces)
    assert found is not None
    assert ((found.splits == TRAIN) == (fer2013.splits[truth] == TRAIN)).all()


def test_a_row_in_the_name_decides_between_copies(fer2013: Faces) -> None:
    faces, truth = shuffled(fer2013, UNSPLIT)
    named = dataclasses.replace(faces, ids=np.array([f"happy/Training_{row}.png" for row in truth]))
    found = find_official(named)
    assert found is not None
    assert (found.rows == truth).all()
    lying = dataclasses.replace(faces, ids=np.array([f"happy/Training_{(row + 1) % ROWS}.png" for row in truth]))
    found = find_official(lying)
    assert found is not None
    assert equal_pictures(fer2013, found.rows, truth).all()


@pytest.mark.parametrize("quality", [95, 75])
def test_jpeg_copies_are_found_by_likeness(fer2013: Faces, quality: int) -> None:
    faces, truth = shuffled(as_jpeg(fer2013, quality), UNSPLIT)
    found = find_official(faces)
    assert found is not None
    assert not found.sure.any()
    known = found.rows >= 0
    assert known.mean() > 0.9
    assert equal_pictures(fer2013, found.rows[known], truth[known]).all()
    several = ~known & (found.splits != UNSPLIT)
    assert (found.splits == fer2013.splits[truth])[several].all()


def test_a_copy_too_many_has_no_row_but_a_split(fer2013: Faces) -> None:
    doubled = fer2013.select(np.append(np.arange(ROWS), [7, 3]))
    faces = dataclasses.replace(doubled, ids=np.array([f"{i}.png" for i in range(ROWS + 2)]))
    found = find_official(faces)
    assert found is not None
    assert found.rows[-2:].tolist() == [-1, -1]
    assert found.splits[-2:].tolist() == [TRAIN, UNSPLIT]  # row 3 stands in both Training and PublicTest


def test_another_data_set_is_none_of_fer2013(fer2013: Faces) -> None:
    assert find_official(make_faces(100, 0, 0, seed=5)) is None
    assert find_official(dataclasses.replace(fer2013, images=np.ascontiguousarray(fer2013.images[:, :, ::-1]))) is None


def test_the_packaged_table_is_of_fer2013() -> None:
    pictures = official._pictures()
    assert sorted(pictures.order.tolist()) == list(range(35887))
    assert len(pictures.sha256) == 34034
    assert sum(len(pictures.rows(number)) for number in range(34034)) == 35887
    assert official.TABLE.stat().st_size < 600_000
    assert [official._split_of(row) for row in (28708, 28709, 32297, 32298)] == [TRAIN, VAL, VAL, TEST]


# Use


def write(top: Path, faces: Faces, splits: list[str]) -> Path:
    """Class folders below the folders called `splits`, files called by their place."""
    for place, (image, label) in enumerate(zip(faces.images, faces.labels, strict=True)):
        folder = top / splits[place] / EMOTIONS[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{place}.png")
    return top


def test_a_source_that_was_divided_anew_is_put_right(
    fer2013: Faces, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faces, truth = shuffled(fer2013)
    path = write(tmp_path / "anew", faces, ["train"] * 150 + ["validation"] * 60)
    leaked = int((fer2013.splits[truth[:150]] != TRAIN).sum())
    for _ in ("parsed", "from the cache"):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            data = FER2013DataModule(DataSettings(path=str(path)))
            data.setup()
        counts = {split: sum(of_class.values()) for split, of_class in data.class_counts().items()}
        assert counts == {"train": 140, "val": 35, "test": 35}
        assert f"{path}: 210 of 210 faces are found in FER2013 (210 surely, 0 by likeness)" in caplog.text
        assert (
            f"{path} is divided anew: {leaked} of its 150 training faces are of FER2013's official test" in caplog.text
        )
    own = FER2013DataModule(DataSettings(path=str(path), split="source"))
    own.setup()
    assert sum(own.class_counts()["train"].values()) == 150
    assert "test" not in own.class_counts()
    holdout = FER2013DataModule(DataSettings(path=str(path), split="holdout"))
    holdout.setup()
    assert {split: sum(n.values()) for split, n in holdout.class_counts().items()} == {"train": 140, "val": 70}


def test_two_official_parts_become_three_without_a_warning(
    fer2013: Faces, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "two", fer2013, ["train" if split == TRAIN else "test" for split in fer2013.splits])
    with caplog.at_level(logging.INFO):
        data = FER2013DataModule(DataSettings(path=str(path)))
        data.setup()
    assert "train 140, val 35, test 35" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("size", [32, 96])
@pytest.mark.parametrize("form", ["folder", "zip", "tar.gz", "parquet"])
def test_faces_of_another_size_are_placed_by_the_pixels_of_their_pictures(
    fer2013: Faces, tmp_path: Path, form: str, size: int
) -> None:
    faces, truth = shuffled(fer2013, UNSPLIT)
    path = write(tmp_path / "data", faces, ["."] * ROWS)
    if form == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        pictures = [{"bytes": next(path.glob(f"*/{i}.png")).read_bytes()} for i in range(ROWS)]
        path = tmp_path / "faces.parquet"
        names = [EMOTIONS[label] for label in faces.labels]
        parquet.write_table(pyarrow.table({"image": pictures, "label": names}), path)
    elif form != "folder":
        path = Path(shutil.make_archive(str(path), {"tar.gz": "gztar"}.get(form, form), path))
    for _ in ("parsed", "from the cache"):
        found = read(path, size=size)
        assert found.images.shape == (ROWS, size, size)
        assert found.official is not None
        assert found.official.sure.all()
        rows = np.array([int(re.split(r"[:/.]", name)[-1 if form == "parquet" else -2]) for name in found.ids])
        assert equal_pictures(fer2013, found.official.rows, truth[rows]).all()


def test_changed_training_faces_stay_in_training_unless_the_source_is_divided_anew(fer2013: Faces) -> None:
    others = make_faces(20, 0, 0, seed=9)
    joined = Faces(
        np.concatenate([fer2013.images, others.images]),
        np.concatenate([fer2013.labels, others.labels]),
        np.concatenate([fer2013.splits, others.splits]),
        np.array([f"{i}.png" for i in range(ROWS + 20)]),
    )
    faces, known = use_official(dataclasses.replace(joined, official=find_official(joined)), "data")
    assert known.all()
    assert (faces.splits[ROWS:] == TRAIN).all()
    joined.splits[150:160] = TRAIN
    faces, known = use_official(dataclasses.replace(joined, official=find_official(joined)), "data")
    assert known.tolist() == [True] * ROWS + [False] * 20
    assert (faces.splits[:ROWS] == fer2013.splits).all()


def test_a_csv_without_usage_is_put_back(
    fer2013: Faces, tmp_path: Path, csv_text: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain.csv").write_text(csv_text(fer2013, ("emotion", "pixels")))
    found = read(tmp_path / "plain.csv").official
    assert found is not None
    assert (found.rows == np.arange(ROWS)).all()
    (tmp_path / "usage.csv").write_text(csv_text(fer2013))
    assert read(tmp_path / "usage.csv").official is None  # it says itself


def test_votes_follow_the_picture(fer2013: Faces) -> None:
    counts = np.zeros((ROWS, 10), np.int64)
    counts[np.arange(ROWS), fer2013.labels] = 10
    votes = Votes(counts, fer2013.splits)
    faces, truth = shuffled(fer2013, UNSPLIT)
    with pytest.raises(UserError, match=r"im0\.png does not say its row"):
        votes_of(faces, votes, "votes.csv")
    found = find_official(faces)
    assert found is not None
    found.rows[5] = -1
    given = votes_of(dataclasses.replace(faces, official=found), votes, "votes.csv")
    expected = counts[truth]
    expected[5] = 0
    assert (given == expected).all()
