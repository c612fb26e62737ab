"""Which faces a network was trained on: 64 bits of a digest of each, which go with its checkpoint.

By them the faces are known again in another file, under another name, on another side of another division, and after
the checkpoint was copied to another place.
"""

import numpy as np
import numpy.typing as npt

from fer.data.duplicates import digests

# Shares of a split that a network was trained on. Under another division of FER2013 than its own it is four fifths and
# more; where a list took copies out of the training rows it is a thirteenth of PublicTest.
MOST = 0.5  # above it there is nothing to report on a split
MANY = 0.2  # above it there is something to warn of

Digests = npt.NDArray[np.uint64]


def together(*several: Digests) -> Digests:
    """What networks were trained on that are one network now (its start, its teachers), ascending: each face as often
    as the one that has it most often.
    """
    counted = [np.unique(seen, return_counts=True) for seen in several if len(seen)]
    if not counted:
        return np.empty(0, np.uint64)
    found = np.unique(np.concatenate([values for values, _ in counted]))
    most = np.zeros(len(found), np.intp)
    for values, counts in counted:
        at = np.searchsorted(found, values)
        most[at] = np.maximum(most[at], counts)
    return np.repeat(found, most)


def besides(seen: Digests, train: npt.NDArray[np.uint8]) -> Digests:
    """What a network was trained on besides the training rows at hand, uint8 (N, S, S).

    A face that stands among these as often as in `seen` is none of it: its copies, of which FER2013 has hundreds in its
    own test rows, were not trained on.
    """
    if not len(seen):
        return seen
    values, counts = np.unique(seen, return_counts=True)
    here, taken = np.unique(digests(train), return_counts=True)
    at = np.searchsorted(values, here).clip(max=len(values) - 1)
    same = values[at] == here
    counts[at[same]] -= taken[same]
    return values[counts > 0]


def known_again(images: npt.NDArray[np.uint8], seen: Digests) -> npt.NDArray[np.bool_]:
    """Which faces, uint8 (N, S, S), stand in what `besides` returns, bool (N,)."""
    return np.isin(digests(images), seen) if len(seen) else np.zeros(len(images), np.bool_)
