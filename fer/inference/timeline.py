"""What was seen over time: a plot of each face's probabilities, and each emotion's share of the time.

Keeps averages over short spans, so that its memory does not grow with a long recording.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rich import box
from rich.table import Table

from fer.files import as_csv, as_png, printable
from fer.inference.pictures import BGRImage
from fer.inference.prediction import Box, Prediction
from fer.labels import emotion_color

_MOST_SPANS = 2000  # more than a plot has pixels
_PLOTTED_TRACKS = 8
_LISTED_TRACKS = 12
_THUMBNAIL = 96  # pixels per side
_MOST_THUMBNAILS = 64  # 2 MB; of the faces that were longest in view
_SHORTEST_GAP = 0.5  # seconds without a face that break its lines in the plot
_LONGEST_STEP = 1.0  # seconds that one frame stands for at most; a stream may have been silent


@dataclass
class _Track:
    seconds: dict[str, float]  # by shown emotion
    uncertain: float = 0.0  # seconds under the minimal confidence, whatever the emotion
    first: float = 0.0
    last: float = 0.0
    spans: dict[int, npt.NDArray[np.float64]] = field(default_factory=dict)  # sum of probabilities, then their count
    thumbnail: BGRImage | None = None
    score: float = -1.0  # of the detector, when the thumbnail was taken

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


class Timeline:
    """Collects predictions frame by frame.

    Args:
        classes: names of the network's classes.
        fps: frames per second, for the time that the first frame stands for.
        name: of what is watched, for the title.
    """

    def __init__(self, classes: Sequence[str], fps: float, name: str = "") -> None:
        self._name = name
        self._classes = tuple(classes)
        self._tracks: dict[int, _Track] = {}
        self._span = 1 / fps
        self._step = 1 / fps
        self._now: float | None = None

    def add(self, time: float, predictions: Sequence[Prediction], image: BGRImage | None = None) -> None:
        """Adds the faces of the frame at `time` seconds; times rise. A face without a track counts as track 0.

        `image` is the frame, uint8 (H, W, 3), of which each face's surest find is kept as its thumbnail.
        """
        step = self._step if self._now is None else min(time - self._now, _LONGEST_STEP)
        self._now = time
        while time / self._span >= _MOST_SPANS:
            self._double_span()
        for prediction in predictions:
            track = self._tracks.setdefault(
                prediction.track or 0, _Track(dict.fromkeys(self._classes, 0.0), first=time)
            )
            track.last = time
            track.seconds[prediction.label] += step
            track.uncertain += step * prediction.uncertain
            probabilities = prediction.smoothed or prediction.probabilities
            row = np.array([*(probabilities[name] for name in self._classes), 1.0])
            span = int(time / self._span)
            track.spans[span] = track.spans[span] + row if span in track.spans else row
            if image is not None and prediction.box is not None and (prediction.score or 0.0) > track.score:
                track.thumbnail, track.score = _cut(image, prediction.box), prediction.score or 0.0
                self._drop_thumbnail()

    def _drop_thumbnail(self) -> None:
        """That of the face with the shortest time in view, if there are too many."""
        seen = [track for track in self._tracks.values() if track.thumbnail is not None]
        if len(seen) > _MOST_THUMBNAILS:
            shortest = min(seen, key=lambda track: track.total)
            shortest.thumbnail, shortest.score = None, -1.0

    def _double_span(self) -> None:
        self._span *= 2
        for track in self._tracks.values():
            merged: dict[int, npt.NDArray[np.float64]] = {}
            for span, row in track.spans.items():
                merged[span // 2] = merged[span // 2] + row if span // 2 in merged else row
            track.spans = merged

    def table(self) -> Table:
        """Share of the time per emotion and track, the longest seen first, for the terminal."""
        table = Table(title="Share of the time in view", box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
        table.add_column("face", justify="right")
        table.add_column("seconds", justify="right")
        for name in self._classes:
            table.add_column(name, justify="right")
        rows = self._rows()
        doubtful = any(track.uncertain for _, track in rows)
        if doubtful:
            table.add_column("uncertain", justify="right")
        for name, track in rows[: _LISTED_TRACKS + 1]:
            most = max(track.seconds.values())
            cells = [
                f"[bold]{value / track.total:.0%}[/]" if value == most else f"{value / track.total:.0%}"
                for value in track.seconds.values()
            ]
            uncertain = [f"{track.uncertain / track.total:.0%}"] if doubtful else []
            table.add_row(name, f"{track.total:.1f}", *cells, *uncertain)
        if len(rows) > _LISTED_TRACKS + 1:
            table.caption = f"and {len(rows) - _LISTED_TRACKS - 1} more faces, seen for a shorter time"
        return table

    def to_csv(self) -> str:
        """The shares of all tracks: track, first, last, seconds, share_CLASS ..., share_uncertain."""
        shares = [f"share_{name}" for name in (*self._classes, "uncertain")]
        lines: list[list[Any]] = [["track", "first", "last", "seconds", *shares]]
        for name, track in self._rows():
            values = [value / track.total for value in (*track.seconds.values(), track.uncertain)]
            seen = [track.first, track.last, track.total]
            lines.append([name, *(round(value, 3) for value in seen), *(round(value, 4) for value in values)])
        return as_csv(lines)

    def to_png(self) -> bytes:
        """A plot of the (smoothed) probabilities of the faces that were longest in view, a panel each."""
        import matplotlib  # slow to import, and needed once, at the end
        from matplotlib.figure import Figure

        tracks = sorted(self._longest()[:_PLOTTED_TRACKS], key=lambda item: item[0])
        figure = Figure(figsize=(11, 1.2 + 1.9 * max(1, len(tracks))), dpi=110, layout="constrained")
        panels = figure.subplots(max(1, len(tracks)), 1, sharex=True, squeeze=False)[:, 0]
        with matplotlib.rc_context({"font.size": 9}):
            for panel, (number, track) in zip(panels, tracks, strict=False):
                times = (np.array(list(track.spans)) + 0.5) * self._span
                rows = np.stack(list(track.spans.values()))
                away = np.flatnonzero(np.diff(times) > max(_SHORTEST_GAP, 2 * self._span)) + 1
                times = np.insert(times, away, np.nan)  # breaks the lines
                rows = np.insert(rows, away, np.nan, axis=0)
                for column, name in enumerate(self._classes):
                    color = tuple(0.85 * part / 255 for part in emotion_color(name))
                    panel.plot(times, rows[:, column] / rows[:, -1], label=name, color=color, linewidth=1.6)
                panel.set(ylim=(0, 1), ylabel=f"face {number}")
                panel.grid(alpha=0.25)
                if track.thumbnail is not None:
                    beside = panel.inset_axes((1.01, 0, 0.1, 1))
                    beside.imshow(track.thumbnail[..., ::-1])
                    beside.set_axis_off()
            if tracks:
                legend = figure.legend(
                    *panels[0].get_legend_handles_labels(),
                    loc="outside upper center",
                    ncols=7,
                    frameon=False,
                    title=self._title(),
                    title_fontsize=11,
                )
                legend.get_title().set_parse_math(False)  # a name may have dollar signs in it
            else:
                figure.suptitle(self._title(), fontsize=11, parse_math=False)
                panels[0].text(0.5, 0.5, "no face was found", ha="center", va="center", transform=panels[0].transAxes)
            panels[-1].set(xlabel="seconds", xlim=(0, max(self._now or 0, self._span)))
            return as_png(figure)

    def _title(self) -> str:
        count, shown = len(self._tracks), min(len(self._tracks), _PLOTTED_TRACKS)
        faces = f"{count} face{'' if count == 1 else 's'}"
        if shown < count:
            faces += f", the {shown} longest in view"
        seconds = 0.0 if self._now is None else self._now + self._step
        return f"{printable(self._name)}: {seconds:.1f} s, {faces}".removeprefix(": ")

    def _longest(self) -> list[tuple[int, _Track]]:
        return sorted(self._tracks.items(), key=lambda item: item[1].total, reverse=True)

    def _rows(self) -> list[tuple[str, _Track]]:
        """The tracks, the longest in view first, and all of them together."""
        longest = self._longest()
        together = _Track(dict.fromkeys(self._classes, 0.0), first=min((t.first for _, t in longest), default=0.0))
        for _, track in longest:
            together.uncertain += track.uncertain
            together.last = max(together.last, track.last)
            for name, seconds in track.seconds.items():
                together.seconds[name] += seconds
        return [("all", together), *((str(number), track) for number, track in longest)] if longest else []


def _cut(image: BGRImage, box: Box) -> BGRImage:
    """The part of a picture in a box, as far as the box lies in it, in a square."""
    x, y, w, h = (round(side) for side in box)
    height, width = image.shape[:2]
    left, top = max(0, min(x, width - 1)), max(0, min(y, height - 1))
    part = image[top : max(top + 1, y + h), left : max(left + 1, x + w)]
    return np.asarray(cv2.resize(part, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA), np.uint8)
