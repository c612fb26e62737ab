"""Several sources as one data set: every row under its source's name, and the same face once.

The same face is one whose pixels are the same in two sources. Copies within a source stay as they are: `fer-clean`
lists them.
"""

import logging
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fer.data.cache import cache_directory
from fer.data.duplicates import digests
from fer.data.faces import TEST, TRAIN, UNSPLIT, VAL, Faces, on_disk

_log = logging.getLogger(__name__)

# A face that two sources have is taken from the one that keeps it farthest from training: test faces stay test faces.
_PRECEDENCE = {TEST: 2, VAL: 1, TRAIN: 0, UNSPLIT: 0}


def short_names(paths: Sequence[Path]) -> list[str]:
    """What tells different paths apart: their shortest ends that all differ, as "RAF-DB" and "CK+48"."""
    parts = [path.absolute().parts for path in paths]
    length = 1
    while len({each[-length:] for each in parts}) < len(parts):
        length += 1
    return [Path(*each[-length:]).as_posix() for each in parts]


def join(sources: Sequence[Faces], names: Sequence[str], memory: float = math.inf) -> Faces:
    """All faces of the sources, one source after the other, with `origins` and without `official`.

    Says in the log how many there are, and how many of each source were left out because another has them.

    Args:
        sources: faces of one size, read with the same emotions.
        names: of the sources, all different; they go before the rows' and the persons' own names.
        memory: bytes; images that take more are put on the disk, in the cache's directory where it can be written.
    """
    positions = _without_repetitions(sources, names)
    pieces = list(zip((faces.images for faces in sources), positions, strict=True))
    images = None
    if sum(map(len, positions)) * math.prod(sources[0].images.shape[1:]) > memory:
        try:
            cache_directory().mkdir(parents=True, exist_ok=True)
            images = on_disk(pieces, cache_directory())
        except OSError as error:
            _log.warning("%s cannot be written (%s): all faces are kept in memory", cache_directory(), error.strerror)
    if images is None:
        images = np.concatenate([images[rows] for images, rows in pieces])
    rows, persons = [], []
    for faces, name, kept in zip(sources, names, positions, strict=True):
        rows.append(np.char.add(f"{name}/", faces.ids[kept]))
        own = np.full(len(kept), "") if faces.persons is None else faces.persons[kept]
        persons.append(np.where(own == "", "", np.char.add(f"{name}/", own)))
    joined = Faces(
        images,
        np.concatenate([faces.labels[kept] for faces, kept in zip(sources, positions, strict=True)]),
        np.concatenate([faces.splits[kept] for faces, kept in zip(sources, positions, strict=True)]),
        np.concatenate(rows),
        persons=None if all(faces.persons is None for faces in sources) else np.concatenate(persons),
        form="; ".join(faces.form for faces in sources),
        emotions=sources[0].emotions,
        origins=np.repeat(np.arange(len(sources), dtype=np.int16), list(map(len, positions))),
    )
    counts = " + ".join(f"{len(rows):,} of {name}" for rows, name in zip(positions, names, strict=True))
    _log.info(f"{len(sources)} sources: {len(joined):,} faces, {counts}")
    return joined


def _without_repetitions(sources: Sequence[Faces], names: Sequence[str]) -> list[npt.NDArray[np.intp]]:
    """For each source which of its rows are kept."""
    digests_of = [digests(faces.images).tolist() for faces in sources]
    taken: dict[int, tuple[int, int, int]] = {}  # precedence, source, label
    for origin, faces in enumerate(sources):
        for digest, split, label in zip(digests_of[origin], faces.splits.tolist(), faces.labels.tolist(), strict=True):
            if digest not in taken or _PRECEDENCE[split] > taken[digest][0]:
                taken[digest] = (_PRECEDENCE[split], origin, label)
    kept = []
    for origin, faces in enumerate(sources):
        owner = np.array([taken[digest][1] for digest in digests_of[origin]], np.int64)
        kept.append(np.flatnonzero(owner == origin))
        for other, count in sorted(Counter(owner[owner != origin].tolist()).items()):
            left_out = np.flatnonzero(owner == other)
            differ = sum(taken[digests_of[origin][row]][2] != faces.labels[row] for row in left_out.tolist())
            labels = f", {differ:,} of them under another label" if differ else ""
            _log.warning(f"{names[origin]}: left out {count:,} faces that {names[other]} has, too{labels}")
    return kept
