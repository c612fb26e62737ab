import dataclasses
import logging

import numpy as np
import pytest

from fer.data.faces import TEST, TRAIN, UNSPLIT, VAL, Faces
from fer.data.splits import assign_splits
from fer.data.synthetic import make_faces
from fer.errors import UserError


def make(counts: tuple[int, ...] = (60, 30, 10), code: int = UNSPLIT, copies: int = 0) -> Faces:
    """Rows of three classes; the first `copies` rows are repeated at the end."""
    labels = np.repeat([0, 3, 6], counts)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 48, 48), dtype=np.uint8)
    images, labels = np.concatenate([images, images[:copies]]), np.concatenate([labels, labels[:copies]])
    rows = np.array([str(i) for i in range(len(labels))])
    return Faces(images, labels, np.full(len(labels), code, np.int8), rows)


def shares(faces: Faces, code: int) -> list[int]:
    return [int(((faces.labels == label) & (faces.splits == code)).sum()) for label in (0, 3, 6)]


def test_an_unsplit_source_is_divided_by_class() -> None:
    divided = assign_splits(make(), val_fraction=0.2, test_fraction=0.1)
    assert shares(divided, VAL) == [12, 6, 2]
    assert shares(divided, TEST) == [6, 3, 1]
    assert shares(divided, TRAIN) == [42, 21, 7]


def test_official_keeps_what_the_source_says() -> None:
    faces = make()
    faces.splits[:50], faces.splits[50:70], faces.splits[70:] = TRAIN, VAL, TEST
    assert (assign_splits(faces).splits == faces.splits).all()


def test_a_source_without_validation_gives_training_rows_but_no_test_rows() -> None:
    faces = make()
    faces.splits[:] = np.where(np.arange(100) % 2, TRAIN, TEST)
    divided = assign_splits(faces, val_fraction=0.2)
    assert (divided.splits[faces.splits == TEST] == TEST).all()
    assert shares(divided, VAL) == [6, 3, 1]


def test_holdout_validates_on_both_other_splits() -> None:
    faces = make()
    faces.splits[:50], faces.splits[50:70], faces.splits[70:] = TRAIN, VAL, TEST
    divided = assign_splits(faces, "holdout")
    assert (divided.splits[:50] == TRAIN).all()
    assert (divided.splits[50:] == VAL).all()


def test_random_pools_all_rows_and_follows_the_seed() -> None:
    faces = make(code=TEST)
    first, same, other = (assign_splits(faces, "random", 0.3, 0.0, seed=seed).splits for seed in (1, 1, 2))
    assert (first == same).all()
    assert (first != other).any()
    assert (first == VAL).sum() == 30
    assert not (first == TEST).any()


def test_folds_cover_every_row_once_and_leave_the_test_rows_alone() -> None:
    faces = make()
    faces.splits[:] = np.where(np.arange(100) % 10 == 0, TEST, TRAIN)
    validated = np.zeros(100, int)
    for fold in range(5):
        divided = assign_splits(faces, folds=5, fold=fold)
        assert ((divided.splits == TEST) == (faces.splits == TEST)).all()
        validated += divided.splits == VAL
        assert max(shares(divided, VAL)) <= 12
    assert (validated == (faces.splits != TEST)).all()


def test_more_folds_than_a_byte_counts() -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 48, 48), np.uint8)
    persons = np.array([f"{row // 2}" for row in range(300)])
    for people in (None, persons):
        zeros = np.zeros(300, np.int64)
        faces = Faces(images, zeros, np.full(300, TRAIN, np.int8), np.arange(300).astype(np.str_), persons=people)
        assert (assign_splits(faces, folds=150, fold=149).splits == VAL).sum() == 2


@pytest.mark.parametrize("arguments", [{"folds": 4, "fold": 1}, {"split": "random", "val_fraction": 0.4}])
def test_copies_stay_on_one_side(arguments: dict[str, object]) -> None:
    divided = assign_splits(make(copies=20), **arguments)  # type: ignore[arg-type]
    assert (divided.splits[100:] == divided.splits[:20]).all()


def test_a_class_with_fewer_pictures_than_folds_is_refused() -> None:
    with pytest.raises(UserError, match="neutral has only 3"):
        assign_splits(make((60, 30, 3)), folds=5)


def test_no_training_rows_is_refused() -> None:
    with pytest.raises(UserError, match="no training rows"):
        assign_splits(make(code=TEST))


def test_mirrored_and_changed_copies_stay_in_one_fold() -> None:
    faces = make_faces(120, 0, 0, seed=0)
    changed = np.clip(faces.images[:40] * 0.8 + 10, 0, 255).astype(np.uint8)
    images = np.concatenate([faces.images, changed[:, :, ::-1]])
    rows = np.array([str(i) for i in range(160)])
    doubled = Faces(images, np.append(faces.labels, faces.labels[:40]), np.full(160, TRAIN, np.int8), rows)
    divided = assign_splits(doubled, folds=4, fold=1)
    assert (divided.splits[120:] == divided.splits[:40]).sum() >= 38
    assert (divided.splits == VAL).any()


def with_persons(code: int = UNSPLIT) -> Faces:
    """A hundred rows of twenty persons with one to nine faces each."""
    faces = make(code=code)
    sizes = [1, 9, 4, 6, 5, 5, 2, 8, 7, 3] * 2
    return dataclasses.replace(faces, persons=np.repeat([f"S{number:03}" for number in range(20)], sizes))


@pytest.mark.parametrize(
    "arguments",
    [{}, {"split": "random", "val_fraction": 0.3}, {"folds": 4, "fold": 2}, {"folds": 4, "fold": 0, "seed": 5}],
)
def test_a_person_stays_on_one_side(arguments: dict[str, object], caplog: pytest.LogCaptureFixture) -> None:
    faces = with_persons(TRAIN if "folds" in arguments else UNSPLIT)
    divided = assign_splits(faces, **arguments)  # type: ignore[arg-type]
    assert divided.persons is not None
    sides = [set(divided.persons[divided.splits == code]) for code in (TRAIN, VAL, TEST)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 20
    share = {"split": 30, "folds": 25}.get(next(iter(arguments), ""), 10)
    assert abs(int((divided.splits == VAL).sum()) - share) <= 5
    assert not caplog.records


def test_every_person_is_validated_in_one_fold() -> None:
    validated = np.zeros(100, int)
    for fold in range(5):
        divided = assign_splits(with_persons(TRAIN), folds=5, fold=fold)
        validated += divided.splits == VAL
    assert (validated == 1).all()
    with pytest.raises(UserError, match="shows only 20 different persons"):
        assign_splits(with_persons(TRAIN), folds=21)


def test_a_given_split_with_persons_on_both_sides_is_said_and_kept(caplog: pytest.LogCaptureFixture) -> None:
    faces = with_persons()
    faces.splits[:] = np.where(np.arange(100) < 48, TRAIN, VAL)  # row 47 to 49 are of S009
    with caplog.at_level(logging.WARNING):
        divided = assign_splits(faces)
    assert (divided.splits == faces.splits).all()
    assert "1 persons stand in the training rows and in others too (S009)" in caplog.text
