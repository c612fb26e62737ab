"""FER2013's official split, found again by the pictures themselves.

Copies of FER2013 as folders or parquet files lose the usage and the row of each face, and are often divided anew. The
package holds, for every row of `fer2013.csv`, 64 bits of the SHA-256 of its pixels and its difference hash
(`fer2013_digests.npy`; no face can be seen in either). `find_official` compares a source's faces with them,
`use_official` divides the source accordingly. Knows nothing of files or labels.
"""

import dataclasses
import logging
import re
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer.data.duplicates import difference_hash, digests, near_hashes
from fer.data.faces import SPLIT_NAMES, TEST, TRAIN, UNSPLIT, VAL, Faces, Official

_log = logging.getLogger(__name__)

# The rows of Kaggle's fer2013.csv at which PublicTest and PrivateTest begin; its splits stand one after the other.
_BEGIN_OF_TESTS = (28709, 32298)

# A face is taken for a picture of FER2013 when their difference hashes are at most NEAR of 64 bits apart, and those of
# all other pictures at least MARGIN bits farther. Of the 32,298 rows of Training and PublicTest, saved as JPEG of
# quality 75, these limits give one a wrong row and none a wrong split, and leave 649 without a place; a margin of 2
# gives three a wrong row and leaves 383, a margin of 4 none and 1,108. NEAR may be 6 or 10 as well.
NEAR = 8
MARGIN = 3

TABLE = Path(__file__).with_name("fer2013_digests.npy")
_ROW_IN_NAME = re.compile(r"(?:Training|PublicTest|PrivateTest)_(\d+)\.\w+$")

_SAMPLE = 256  # faces that are tried by likeness before all are


@dataclasses.dataclass(frozen=True)
class _Pictures:
    """The different pictures of FER2013, and where each stands.

    Attributes:
        sha256: uint64 (P,), the first 64 bits of the SHA-256 of the 2,304 pixel bytes, ascending.
        hashes: uint64 (P,), of `fer.data.duplicates.difference_hash`.
        order: int64 (35887,), the rows of `fer2013.csv` picture by picture, of one picture ascending.
        begin: int64 (P + 1,), where each picture's rows begin in `order`.
    """

    sha256: npt.NDArray[np.uint64]
    hashes: npt.NDArray[np.uint64]
    order: npt.NDArray[np.intp]
    begin: npt.NDArray[np.intp]

    def rows(self, number: int) -> list[int]:
        """The rows where a picture stands."""
        rows: list[int] = self.order[self.begin[number] : self.begin[number + 1]].tolist()
        return rows


def row_in_name(name: str) -> int:
    """The row of fer2013.csv that a face's name says (see `Faces.ids`), or -1."""
    if name.isdecimal():
        return int(name)
    found = _ROW_IN_NAME.search(name)
    return int(found[1]) if found else -1


def looks_official(images: npt.NDArray[np.uint8]) -> bool:
    """Whether at least half of some faces (N, S, S), of any size, are very like pictures of FER2013."""
    sample = np.random.default_rng(0).permutation(len(images))[:_SAMPLE]
    face, _, distance = near_hashes(difference_hash(images[sample]), _pictures().hashes, NEAR + MARGIN - 1)
    return 2 * len(np.unique(face[distance <= NEAR // 2])) >= len(sample)  # of other faces about a twentieth


def find_official(faces: Faces) -> Official | None:
    """Where the faces stand in FER2013; None unless at least half of them are FER2013's.

    First by the digest of all pixels, then by likeness (copies that were saved as JPEG, or scaled): by the difference
    hash, where one picture is near and clearly nearer than all others that are left. Where several are about as near
    and all are of one split, the split is known and the row is not. Pictures that FER2013 holds several times are given
    out as often as they stand there, first to the faces that the source has in the same split.

    Args:
        faces: all faces of a source, of FER2013's size, with the splits that the source gives them.
    """
    pictures = _pictures()
    exact = digests(faces.images)
    at = np.searchsorted(pictures.sha256, exact).clip(max=len(pictures.sha256) - 1)
    chosen = np.where(pictures.sha256[at] == exact, at, -1)  # each face's picture
    sure = chosen >= 0
    others = np.flatnonzero(~sure)
    if 2 * sure.sum() < len(faces) and not looks_official(faces.images[others]):
        return None

    stands = np.diff(pictures.begin)
    face, picture, distance = near_hashes(difference_hash(faces.images[others]), pictures.hashes, NEAR + MARGIN - 1)
    face = others[face]
    while True:
        # With every face that is placed there are fewer pictures left, and others become clearly the nearest.
        taken = np.bincount(chosen[chosen >= 0], minlength=len(stands))
        left = (chosen[face] < 0) & (taken < stands)[picture]
        face, picture, distance = face[left], picture[left], distance[left]
        nearest = np.full(len(faces), 64)
        np.minimum.at(nearest, face, distance)
        rival = (distance < nearest[face] + MARGIN) & (nearest[face] <= NEAR)
        clear = rival & (np.bincount(face[rival], minlength=len(faces)) == 1)[face]
        if not clear.any():
            break
        chosen[face[clear]] = picture[clear]

    rows = _give_out(chosen, sure, pictures, faces)
    splits = np.array([UNSPLIT if row < 0 else _split_of(row) for row in rows.tolist()], np.int8)
    # Without a row: faces that the source has more often than FER2013, and those that several pictures are near to.
    extra = np.flatnonzero((chosen >= 0) & (rows < 0))
    possible: dict[int, set[int]] = defaultdict(set)
    candidates = [*zip(extra, chosen[extra], strict=True), *zip(face[rival], picture[rival], strict=True)]
    for position, number in candidates:
        possible[position].update(map(_split_of, pictures.rows(number)))
    for position, found in possible.items():
        if len(found) == 1:
            splits[position] = found.pop()
    return Official(rows, splits, sure) if 2 * (splits != UNSPLIT).sum() >= len(faces) else None


def use_official(faces: Faces, name: str) -> tuple[Faces, npt.NDArray[np.bool_]]:
    """The faces in FER2013's official splits, and which of them have one, bool (N,); says in the log what was found.

    A face that was not found stays in training if the source has it there and is not divided anew (some copies add
    changed training faces); else nobody knows whether it is one of the official test faces, and it has no split.
    Faces of which `official` is None are returned as they are, all with a split.

    Args:
        faces: with `Faces.official`, as `fer.data.reader.read` returns them.
        name: what messages call the source.
    """
    official = faces.official
    if official is None:
        return faces, np.ones(len(faces), np.bool_)
    placed = official.splits != UNSPLIT
    tests = np.isin(official.splits, (VAL, TEST))
    leaked = int((tests & (faces.splits == TRAIN)).sum())
    splits = official.splits.copy()
    if leaked == 0:
        splits[~placed & (faces.splits == TRAIN)] = TRAIN
    known = splits != UNSPLIT
    counts = ", ".join(f"{said} {int((splits == split).sum()):,}" for split, said in SPLIT_NAMES.items())
    sure = int((official.sure & placed).sum())
    _log.info(
        f"{name}: {int(placed.sum()):,} of {len(faces):,} faces are found in FER2013 ({sure:,} surely, "
        f"{int(placed.sum()) - sure:,} by likeness); its official split: {counts}"
    )
    if leaked:
        _log.warning(
            f"{name} is divided anew: {leaked:,} of its {int((faces.splits == TRAIN).sum()):,} training faces are of "
            "FER2013's official test sets; the official split is used (data.split=source keeps the source's own, and "
            "its numbers compare with nobody's)"
        )
    if not known.all():
        _log.warning(
            f"{name}: left out {int((~known).sum()):,} faces that have no place in FER2013's official split; "
            "data.split=source or data.split=random takes them"
        )
    return dataclasses.replace(faces, splits=splits), known


@cache
def _pictures() -> _Pictures:
    table = np.load(TABLE)  # uint64 (35887, 2)
    sha256, first, picture = np.unique(table[:, 0], return_index=True, return_inverse=True)
    order = np.argsort(picture, kind="stable")
    begin = np.searchsorted(picture[order], np.arange(len(sha256) + 1))
    return _Pictures(sha256, table[first, 1], order, begin)


def _split_of(row: int) -> int:
    """TRAIN, VAL or TEST of a row of fer2013.csv."""
    return TRAIN if row < _BEGIN_OF_TESTS[0] else VAL if row < _BEGIN_OF_TESTS[1] else TEST


def _give_out(
    chosen: npt.NDArray[np.int64], sure: npt.NDArray[np.bool_], pictures: _Pictures, faces: Faces
) -> npt.NDArray[np.int32]:
    """A row for each face, int32 (N,); -1 for faces without a picture and for those that are more than its rows.

    Which of several equal pictures is which no one can see: first come the rows that the faces' names say, then those
    of the split that the source has them in, then those of the same side, as many copies keep both official test sets
    in one folder.
    """
    given = np.full(len(chosen), -1, np.int32)
    placed = np.flatnonzero(chosen >= 0)
    picture = chosen[placed]
    # Nearly all are one face of a picture that stands in one row.
    alone = (np.diff(pictures.begin)[picture] == 1) & (np.bincount(picture)[picture] == 1)
    given[placed[alone]] = pictures.order[pictures.begin[picture[alone]]]
    several = placed[~alone]

    named = {face: row_in_name(str(faces.ids[face])) for face in several.tolist()}
    splits = faces.splits.tolist()
    free = {number: pictures.rows(number) for number in np.unique(chosen[several]).tolist()}
    order = [*several[sure[several]].tolist(), *several[~sure[several]].tolist()]
    tests: tuple[Callable[[int, int], bool], ...] = (
        lambda face, row: row == named[face],
        lambda face, row: _split_of(row) == splits[face],
        lambda face, row: (_split_of(row) == TRAIN) == (splits[face] == TRAIN) or splits[face] == UNSPLIT,
        lambda face, row: True,
    )
    for fits in tests:
        for face in order:
            rows = free[int(chosen[face])]
            row = next((row for row in rows if fits(face, row)), None) if given[face] < 0 else None
            if row is not None:
                rows.remove(row)
                given[face] = row
    return given
