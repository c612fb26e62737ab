"""Which row is for training, validation and test. Knows nothing of files or batches.

Whenever rows are divided here, the division is stratified by class and exact copies of one picture (FER2013 holds
over a thousand) stay on one side, because a copy in the validation rows measures memory. Folds keep near copies
together too. Where the source names the persons, all faces of one stay on one side instead, and each side gets its
share of the rows, not of every class.
"""

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fer.data.duplicates import digests, group_copies
from fer.data.faces import TEST, TRAIN, UNSPLIT, VAL, Faces
from fer.errors import UserError

_log = logging.getLogger(__name__)


def assign_splits(
    faces: Faces,
    split: str = "official",
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    folds: int | None = None,
    fold: int = 0,
    seed: int = 0,
    training: bool = True,
    classes: Sequence[int] | None = None,
) -> Faces:
    """The same faces with every row in train, val or test; of several sources each is divided by itself.

    Args:
        faces: all rows, whether their classes are wanted or not: a row is on the same side then for every choice of
            classes and labels. With the splits of their source, or those that `fer.data.official.use_official` found.
        split: "official" and "source" keep these splits, and divide only what they leave open: a source without a
            validation split gives `val_fraction` of its training rows, a source without any split `test_fraction`
            too. "holdout" validates on the source's validation and test rows together and has no test. "random"
            pools all rows and divides them by the two fractions.
        val_fraction: share of the rows for validation.
        test_fraction: share of the rows for test.
        folds: with a number, cross-validation: all rows but the test rows are divided into this many folds.
        fold: the fold that validates, from 0.
        seed: of every random division.
        training: there must be training rows.
        classes: labels that every fold must hold; None stands for all that there are.

    Raises:
        UserError: no training rows are left, fold is not below folds, or a class has fewer pictures than folds.
    """
    splits = faces.splits.copy()
    for rows in _rows_by_source(faces):
        own = faces if rows is None else faces.select(rows)
        if own.persons is not None and (own.persons == "").all():  # only another source names them
            own = dataclasses.replace(own, persons=None)
        found = own.splits.copy()
        if split == "random":
            found[:] = UNSPLIT
        open_rows = found == UNSPLIT
        if open_rows.any():
            found[open_rows] = _divide(own.select(open_rows), {VAL: val_fraction, TEST: test_fraction}, seed)
        if split == "holdout":
            found[found == TEST] = VAL
        train = found == TRAIN
        if train.any() and not (found == VAL).any() and folds is None:
            found[train] = _divide(own.select(train), {VAL: val_fraction}, seed)
        development = found != TEST
        if folds is not None and development.any():
            found[development] = np.where(_fold_of(own.select(development), folds, seed, classes) == fold, VAL, TRAIN)
        splits[slice(None) if rows is None else rows] = found
    if training and not (splits == TRAIN).any():
        raise UserError("the data set holds no training rows; check data.path and data.split")
    _say_who_is_on_both_sides(faces, splits)
    return dataclasses.replace(faces, splits=splits)


def _rows_by_source(faces: Faces) -> list[npt.NDArray[np.intp] | None]:
    """The positions of each source's rows; None alone where there is one source, which need not be copied."""
    if faces.origins is None:
        return [None]
    return [np.flatnonzero(faces.origins == origin) for origin in np.unique(faces.origins)]


def _say_who_is_on_both_sides(faces: Faces, splits: npt.NDArray[np.int8]) -> None:
    """Warns of persons that the source itself has in training and elsewhere; rows divided here have none."""
    if faces.persons is None:
        return
    both = sorted(set(faces.persons[splits == TRAIN]) & set(faces.persons[splits != TRAIN]) - {""})
    if both:
        _log.warning(
            f"{len(both):,} persons stand in the training rows and in others too ({', '.join(both[:8])}): the source "
            "divides them so, and its numbers are of faces that the network knows; data.split=random divides by person"
        )


def _shuffled_pictures_by_class(
    faces: Faces, picture: npt.NDArray[np.intp], seed: int
) -> list[list[npt.NDArray[np.intp]]]:
    """For each class its pictures in random order, each as the positions of the rows that share its number."""
    order = np.argsort(picture, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(picture[order])) + 1)
    rng = np.random.default_rng(seed)
    by_class: list[list[npt.NDArray[np.intp]]] = [[] for _ in faces.emotions]
    # The numbers may follow the pictures' bytes; shuffle from the source's own order so that a reader can follow it.
    for group in sorted(groups, key=lambda rows: int(rows[0])):
        by_class[faces.labels[group[0]]].append(group)
    for pictures in by_class:
        rng.shuffle(pictures)
    return by_class


def _shuffled_people(faces: Faces, seed: int) -> list[npt.NDArray[np.intp]]:
    """The rows of each person, persons in random order; a row that names nobody stands for a person of its own."""
    assert faces.persons is not None
    names = np.where(faces.persons == "", faces.ids, faces.persons)
    order = np.argsort(names, kind="stable")
    people = np.split(order, np.flatnonzero(names[order][1:] != names[order][:-1]) + 1)
    return [people[number] for number in np.random.default_rng(seed).permutation(len(people))]


def _divide(faces: Faces, fractions: dict[int, float], seed: int) -> npt.NDArray[np.int8]:
    """Split codes of the rows: `fractions` of each class to the codes named, the rest to TRAIN."""
    splits = np.full(len(faces), TRAIN, np.int8)
    if faces.persons is not None:
        people = _shuffled_people(faces, seed)
        for split, fraction in fractions.items():
            wanted = round(fraction * len(faces))
            while people and wanted > 0:
                rows = people.pop()
                splits[rows] = split
                wanted -= len(rows)
        return splits
    copies = np.unique(digests(faces.images), return_inverse=True)[1]
    for pictures in _shuffled_pictures_by_class(faces, copies, seed):
        start = 0
        for split, fraction in fractions.items():
            end = start + round(fraction * len(pictures))
            for rows in pictures[start:end]:
                splits[rows] = split
            start = end
    return splits


def _fold_of(faces: Faces, folds: int, seed: int, classes: Sequence[int] | None) -> npt.NDArray[np.int16]:
    fold = np.zeros(len(faces), np.int16)
    if faces.persons is not None:
        people = _shuffled_people(faces, seed)
        if len(people) < folds:
            raise UserError(f"data.folds={folds}: the data set shows only {len(people)} different persons")
        sizes = np.zeros(folds, np.int64)
        for rows in sorted(people, key=len, reverse=True):  # always to the fold that is smallest so far
            fold[rows] = sizes.argmin()
            sizes[sizes.argmin()] += len(rows)
        return fold
    by_class = _shuffled_pictures_by_class(faces, group_copies(faces.images), seed)
    for label, pictures in enumerate(by_class):
        if 0 < len(pictures) < folds and (classes is None or label in classes):
            emotion = faces.emotions[label]
            raise UserError(f"data.folds={folds}: the class {emotion} has only {len(pictures)} different pictures")
        for position, rows in enumerate(pictures):
            fold[rows] = position % folds
    return fold
