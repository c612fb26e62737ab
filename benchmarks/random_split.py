"""What a random split does to a validation number on FER2013: how many validation faces have a copy in training.

    python benchmarks/random_split.py data/fer2013.csv                  counts, for the five classes of resnet50_5class
    python benchmarks/random_split.py data/fer2013.csv --out naive.csv  and the division that ignores copies, as a CSV

The last can be trained on, and the run's report gives validation accuracy with and without the faces that have a copy:

    python train.py experiment=labels_raw data.classes=5 data.path=naive.csv
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from fer.data.duplicates import find_copies
from fer.data.faces import TEST, TRAIN, VAL, Faces
from fer.data.reader import read
from fer.data.splits import assign_splits
from fer.labels import ALL_EMOTIONS, resolve_classes

FRACTION = 0.2  # of the rows, for validation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="FER2013, in any form that data.path takes")
    parser.add_argument("--classes", default="5")
    parser.add_argument("--out", type=Path, help="CSV of the rows, divided at random without regard to copies")
    given = parser.parse_args()
    faces = read(given.data)
    wanted = [ALL_EMOTIONS.index(name) for name in resolve_classes(given.classes)]
    faces = faces.select(np.isin(faces.labels, wanted) & (faces.splits != TEST))

    table = Table("division of the rows", "validation", "copy to the pixel", "copy")
    for name, divided in divisions(faces):
        val = divided.select(divided.splits == VAL)
        copies = find_copies(val.images, divided.images[divided.splits == TRAIN])
        exact, near = (len(np.unique(copies.first[kept])) for kept in (copies.exact & ~copies.mirrored, slice(None)))
        table.add_row(name, f"{len(val):,}", *(f"{count:,} ({count / len(val):.1%})" for count in (exact, near)))
    Console().print(table)
    if given.out is not None:
        write_csv(given.out, naive(faces))


def naive(faces: Faces) -> Faces:
    """Every row on its own goes to validation or training."""
    chosen = np.random.default_rng(0).permutation(len(faces)) < FRACTION * len(faces)
    return Faces(faces.images, faces.labels, np.where(chosen, VAL, TRAIN).astype(np.int8), faces.ids)


def divisions(faces: Faces) -> Iterator[tuple[str, Faces]]:
    yield "FER2013's own: Training, PublicTest", faces
    yield "at random", naive(faces)
    yield "data.split=random", assign_splits(faces, "random", FRACTION, 0.0)
    yield "data.folds=5, first fold", assign_splits(faces, folds=5)


def write_csv(file: Path, faces: Faces) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("emotion", "pixels", "Usage"))
        for image, label, split in zip(faces.images, faces.labels, faces.splits, strict=True):
            writer.writerow((label, " ".join(map(str, image.ravel())), "PublicTest" if split == VAL else "Training"))


if __name__ == "__main__":
    main()
