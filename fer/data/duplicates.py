"""Finds faces that show one picture: the same bytes, mirrored, or slightly changed.

FER2013 was collected by image search and holds many pictures several times, also across its splits; a test face whose
copy stands in the training rows measures memory. Knows nothing of splits or labels.
"""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

HASH_DISTANCE = 8  # of 64 bits
CORRELATION = 0.9

# Chosen by looking at pairs of FER2013's Training and PublicTest rows. Every pair that correlates by 0.95 is at most 8
# bits apart. The two limits find 816 pairs (484 of the 3,589 PublicTest rows, 280 of them exact); about one in a
# hundred shows two people in like pose and light. A distance of 4 misses 66 rows; a correlation of 0.85 adds mostly
# different people.
_BLOCK = 16  # rows compared with all others at once: their bit counts stay in the processor's cache
_PIXELS = 4096 * 48 * 48  # of pairs that are compared at once


@dataclass(frozen=True)
class Copies:
    """Pairs of faces that show one picture.

    Attributes:
        first: int64 (P,), positions in the first set, ascending.
        second: int64 (P,), positions in the second set.
        exact: bool (P,), every pixel is the same.
        mirrored: bool (P,), they agree only when one is mirrored (then `exact` says whether to the pixel).
    """

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    exact: npt.NDArray[np.bool_]
    mirrored: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.first)


def find_copies(images: npt.NDArray[np.uint8], others: npt.NDArray[np.uint8]) -> Copies:
    """All pairs, one face of each set, that show one picture.

    A pair counts when its difference hashes are at most `HASH_DISTANCE` bits apart and its pixels correlate by at least
    `CORRELATION`, as they are or mirrored; or when all pixels are the same (blank faces correlate with nothing).
    Invariant to brightness and contrast; robust against compression, slight blur, noise and shifts of about a pixel.
    With one set given twice (`others is images`, which takes half the time) every face is its own copy, and every pair
    comes in both orders.

    Args:
        images: uint8 (N, S, S).
        others: uint8 (M, S, S).

    Takes about 0.2 s per orientation and 100 million pairs.
    """
    one_set = others is images
    straight = _pairs(images, others, mirrored=False, half=one_set)
    flipped = _pairs(images[:, :, ::-1], others, mirrored=True, half=one_set)
    known = straight.first * len(others) + straight.second
    new = ~np.isin(flipped.first * len(others) + flipped.second, known)  # a symmetric face is its own mirror image
    fields = ("first", "second", "exact", "mirrored")
    joined = {name: np.concatenate([getattr(straight, name), getattr(flipped, name)[new]]) for name in fields}
    if one_set:
        rest = joined["first"] < joined["second"]
        swapped = {**joined, "first": joined["second"], "second": joined["first"]}
        joined = {name: np.concatenate([joined[name], swapped[name][rest]]) for name in fields}
    order = np.lexsort((joined["second"], joined["first"]))
    return Copies(**{name: values[order] for name, values in joined.items()})


def group_copies(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """For each face the position of the first face in its group; copies of copies are in one group.

    Args:
        images: uint8 (N, S, S).
    """
    return connect(find_copies(images, images), len(images))


def connect(copies: Copies, count: int) -> npt.NDArray[np.int64]:
    """As `group_copies`, from the pairs that `find_copies` found among `count` faces."""
    group = np.arange(count)

    def root(position: int) -> int:
        while group[position] != position:
            group[position] = group[group[position]]
            position = int(group[position])
        return position

    later = copies.first < copies.second
    for first, second in zip(copies.first[later].tolist(), copies.second[later].tolist(), strict=True):
        low, high = sorted((root(first), root(second)))
        group[high] = low
    return np.array([root(position) for position in range(count)], np.int64)


def digests(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """The first 64 bits of the SHA-256 of each face's pixels, uint64 (N,), for uint8 (N, S, S)."""
    found = [hashlib.sha256(image.data).digest()[:8] for image in np.ascontiguousarray(images)]
    return np.frombuffer(b"".join(found), "<u8").astype(np.uint64)


def difference_hash(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """64 bits per face (N,): whether each cell of an 8x9 grid is darker than its right neighbour.

    Source: N. Krawetz, Kind of Like That, hackerfactor.com/blog, 2013 (dHash).
    """
    height, width = images.shape[1:]
    # Float32 sums of 0..255 times these shares round by less than a gray value's 1e-5: copies hash alike.
    cells = np.einsum("yi,nij,xj->nyx", _area(height, 8), images, _area(width, 9), optimize=True)
    darker: npt.NDArray[np.bool_] = cells[:, :, :-1] < cells[:, :, 1:]
    return np.packbits(darker.reshape(len(images), 64), axis=1).view(np.uint64).ravel()


def near_hashes(
    hashes: npt.NDArray[np.uint64], others: npt.NDArray[np.uint64], most: int, half: bool = False
) -> npt.NDArray[np.int64]:
    """Pairs of hashes that are at most so many bits apart: int64 (3, P), the positions in each set and the bits.

    Of two sets that are one (`half`) only the pairs whose second is not before the first.
    """
    found = [np.empty((3, 0), np.int64)]
    for start in range(0, len(hashes), _BLOCK):
        skipped = start if half else 0
        distance = np.bitwise_count(hashes[start : start + _BLOCK, None] ^ others[skipped:])
        first, second = np.nonzero(distance <= most)
        found.append(np.stack([first + start, second + skipped, distance[first, second]]))
    pairs = np.concatenate(found, axis=1)
    return pairs[:, pairs[1] >= pairs[0]] if half else pairs


def _area(pixels: int, cells: int) -> npt.NDArray[np.float32]:
    """(cells, pixels): the share of each pixel in each cell when pixels are averaged into equal cells."""
    edges = np.linspace(0, pixels, cells + 1)
    left = np.maximum(edges[:-1, None], np.arange(pixels))
    right = np.minimum(edges[1:, None], np.arange(1, pixels + 1))
    share: npt.NDArray[np.float32] = (np.maximum(right - left, 0) * cells / pixels).astype(np.float32)
    return share


def _pairs(images: npt.NDArray[np.uint8], others: npt.NDArray[np.uint8], mirrored: bool, half: bool) -> Copies:
    """Pairs in one orientation; of each two rows of one set only the order that begins with the earlier (`half`)."""
    first, second, _ = near_hashes(difference_hash(images), difference_hash(others), HASH_DISTANCE, half)

    same = np.zeros(len(first), np.bool_)
    alike = np.zeros(len(first), np.bool_)
    pairs = pairs_at_once(images)
    for start in range(0, len(first), pairs):
        part = slice(start, start + pairs)
        one, two = images[first[part]], others[second[part]]
        same[part] = (one == two).all(axis=(1, 2))
        alike[part] = same[part] | (correlation(one, two) >= CORRELATION)
    return Copies(first[alike], second[alike], same[alike], np.full(int(alike.sum()), mirrored))


def pairs_at_once(images: npt.NDArray[np.uint8]) -> int:
    """How many pairs of faces of this size to give to `correlation`, whose float copies take 40 MB then."""
    return max(1, _PIXELS // math.prod(images.shape[1:]))


def correlation(one: npt.NDArray[np.uint8], two: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Pearson's correlation of the pixels of each pair (P,); 0 for a blank face."""
    a, b = (faces.reshape(len(faces), -1).astype(np.float32) for faces in (one, two))
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    scale = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    correlation: npt.NDArray[np.float32] = (a * b).sum(axis=1) / np.maximum(scale, 1e-6)
    return correlation
