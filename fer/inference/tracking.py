"""Which face of one frame is which face of the next: an IoU tracker. Knows nothing of pictures or emotions.

As in SORT (Bewley et al., arXiv 1602.00763) a new face must be confirmed before it gets an id, and a lost one is
remembered for a while; without its Kalman filter, because a face's box hardly moves between two detections: held for
three frames of our test clips it was off by 0.3 to 1.3 % of its side on average (docs/detection.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fer.inference.prediction import Box, Detection

_SMALLEST_IOU = 0.1  # of a square with itself moved by 0.8 of its side: two heads side by side do not reach it
_SURE = 0.85  # a new face with this score is believed at once
_CONFIRMATIONS = 3  # any other new face when it was found this often in a row
_BRIDGED = 1  # detections in a row that may miss a face which goes on being shown
_MEMORY = 0.5  # seconds for which a face that is not found keeps its id


@dataclass
class Track:
    """One face over time.

    Attributes:
        id: from 1, in the order of appearance; 0 while the face is not confirmed.
        box: its square when it was last found.
        score: the detector's, at that time.
        seen: that time, in seconds.
        found: how many detections in a row have found it.
        missed: how many detections in a row have not.
    """

    id: int
    box: Box
    score: float | None
    seen: float
    found: int = 1
    missed: int = 0


class Tracker:
    """Gives the faces of successive detections ids that stay."""

    def __init__(self) -> None:
        self._tracks: list[Track] = []
        self._last_id = 0

    @property
    def visible(self) -> list[Track]:
        """The confirmed faces that are in view, by id."""
        return sorted((t for t in self._tracks if t.id and t.missed <= _BRIDGED), key=lambda track: track.id)

    @property
    def ids(self) -> set[int]:
        """The ids that may still be seen again."""
        return {track.id for track in self._tracks if track.id}

    @property
    def doubtful(self) -> bool:
        """Whether a face awaits confirmation, or was just missed, so that looking again at once is worth it."""
        return any(not track.id or 0 < track.missed <= _BRIDGED for track in self._tracks)

    def update(self, detections: Sequence[Detection], time: float) -> None:
        """Takes in one detection's faces, found at `time` seconds, which never goes back.

        Pairs of old and new boxes are matched greedily, the largest overlap first.
        """
        overlaps = [
            (overlap, track_index, detection_index)
            for track_index, track in enumerate(self._tracks)
            for detection_index, detection in enumerate(detections)
            if (overlap := iou(track.box, detection.box)) >= _SMALLEST_IOU
        ]
        matches: dict[int, int] = {}  # from detection to track
        for _, track_index, detection_index in sorted(overlaps, reverse=True):
            if detection_index not in matches and track_index not in matches.values():
                matches[detection_index] = track_index

        missing = [track for index, track in enumerate(self._tracks) if index not in matches.values()]
        for track in missing:
            track.found = 0
            track.missed += 1
        for detection_index, detection in enumerate(detections):
            if detection_index in matches:
                track = self._tracks[matches[detection_index]]
                track.box, track.score, track.seen = detection.box, detection.score, time
                track.found += 1
                track.missed = 0
            else:
                track = Track(0, detection.box, detection.score, time)
                self._tracks.append(track)
            sure = track.score is None or track.score >= _SURE
            if not track.id and (sure or track.found >= _CONFIRMATIONS):
                self._last_id += 1
                track.id = self._last_id
        self._tracks = [
            track
            for track in self._tracks
            if track.missed == 0 or (track.id and (track.missed <= _BRIDGED or time - track.seen <= _MEMORY))
        ]


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, from 0 to 1."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    return intersection / (a[2] * a[3] + b[2] * b[3] - intersection)
