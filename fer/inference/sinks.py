"""Where results go: annotated pictures, annotated video, and predictions as JSON lines or as a table.

Every file is written beside its place under another name and takes its own when it is whole, so that a run that fails
leaves an older result as it was. An output belongs to one run at a time (`output_lock`). Knows nothing of detectors,
networks or windows.
"""

import errno
import io
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np

from fer.errors import UserError
from fer.files import as_csv, at_home, cell, is_dir, is_file, locked, write_whole
from fer.inference.h264 import H264Writer, has_h264
from fer.inference.pictures import BGRImage
from fer.inference.prediction import Prediction

# Without the extra `video`: MPEG-4 part 2 and MJPEG are what OpenCV's wheels can encode fast on every system (H.264 is
# not in them), and every desktop player opens them; VP9 takes 80 times as long.
_CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
VIDEO_OUTPUTS = tuple(_CODECS)
# As OpenCV writes them, nothing plays these without the index that comes last; of the others, and of H.264, all but the
# last one or two seconds do.
LOST_WHEN_KILLED = (".mp4", ".mov")
PICTURE_OUTPUTS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

# A disk that is full to the last byte leaves no room for a video's index, without which no player opens it.
_RESERVE = 4 << 20
_INDEX_BYTES_PER_FRAME = 32
_LONGEST_FREEZE = 2.0  # seconds of a live recording that are filled with one picture, when the camera was silent


@dataclass(frozen=True)
class Outputs:
    """Which files a run writes; what was not asked for is None.

    Attributes:
        folder: every file is in it or under it.
        predictions: the JSON lines or the table.
        video: the annotated video, of a video or a camera.
        picture: the annotated picture, when the user named it; else annotated pictures go to `folder`.
        timeline: the plot over time, of a video or a camera.
        summary: the table of emotions' shares.
    """

    folder: Path
    predictions: Path
    video: Path | None = None
    picture: Path | None = None
    timeline: Path | None = None
    summary: Path | None = None


def plan_outputs(output: str, mode: str, name: str, table_format: str, part: tuple[int, int] | None = None) -> Outputs:
    """What `output=` stands for.

    Args:
        output: a folder, made when it is missing, or the name of the annotated video (picture) itself.
        mode: "image", "video" or "webcam".
        name: the stem of the annotated video in a folder.
        table_format: of the predictions, "jsonl" or "csv".
        part: number and count, where a run sees a part of the pictures only. The predictions' names sort as the parts.

    Raises:
        UserError: a suffix that cannot be written, or a file where a folder is needed.
    """
    path = at_home(output)
    suffix = path.suffix.lower()
    allowed = PICTURE_OUTPUTS if mode == "image" else VIDEO_OUTPUTS
    if suffix in allowed and not is_dir(path):
        if part is not None:
            raise UserError(f"output={output}: the parts of a shard go to one folder; name that")
        folder, prefix = path.parent, f"{path.stem}."
        named, predictions = path, path.with_name(f"{path.stem}.{table_format}")
    elif is_file(path) or suffix in (*VIDEO_OUTPUTS, *PICTURE_OUTPUTS, ".webm", ".gif", ".wmv", ".flv", ".m4v"):
        kind = "picture" if mode == "image" else "video"
        raise UserError(f"output={output}: a {kind} is written as {', '.join(allowed)}; or name a folder")
    else:
        folder, prefix, named = path, "", None
        which = "" if part is None else "-{:0{digits}}-of-{:0{digits}}".format(*part, digits=max(4, len(str(part[1]))))
        predictions = path / f"predictions{which}.{table_format}"
    if mode == "image":
        return Outputs(folder, predictions, picture=named)
    return Outputs(
        folder,
        predictions,
        video=named or folder / f"{name}{video_suffix()}",
        timeline=folder / f"{prefix}timeline.png",
        summary=folder / f"{prefix}summary.csv",
    )


def video_suffix() -> str:
    """Of videos that nobody has named: one that survives a kill, and that browsers play if H.264 can be had."""
    return ".mp4" if has_h264() else ".mkv"


def make_folder(folder: Path) -> None:
    """Makes `folder` with its parents, and tries that it can be written to.

    Raises:
        UserError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"{folder} cannot be written to: {error.strerror}; choose another output=") from error


@contextmanager
def output_lock(outputs: Outputs) -> Iterator[None]:
    """Holds an output, so that no other run writes the same files meanwhile (see `fer.files.locked`).

    Raises:
        UserError: another run holds it, or the folder cannot be written to.
    """
    path = outputs.predictions.with_name(f".{outputs.predictions.stem}.lock")
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path))
        except BlockingIOError as error:
            raise UserError(
                f"another run is writing to {path.parent} under the same names; wait for its end, or choose another "
                "output="
            ) from error
        except OSError as error:
            raise _unwritable(path, error) from error
        yield


class PredictionLog:
    """Predictions on disk: a line per face and frame, of which every one is whole at any time.

    As JSON lines the keys are source, frame, time (seconds), track, box ([x, y, w, h], pixels of the source), score (of
    the detector), emotion, confidence, probabilities (by class, of this frame alone) and smoothed. As CSV the box and
    the classes are columns of their own. What is not there (the time of a picture, the track without tracking) is null
    or empty.

    Args:
        path: where it goes; its suffix says whether it is a table or JSON lines.
        classes: names of the network's classes, in its order.
        header: whether a table begins with the names of its columns.

    Attributes:
        path: after closing, where the file is: at its place, or, when the run failed and an older one is there, beside.

    Raises:
        UserError: cannot be written, or the disk is full; the lines before are kept.
    """

    def __init__(self, path: Path, classes: Sequence[str], header: bool = True) -> None:
        self.path = path
        self._classes = tuple(classes)
        self._header = header
        self._as_table = path.suffix == ".csv"
        self._size = 0  # up to the end of the last whole line
        self._lines = 0

    def __enter__(self) -> Self:
        self._partial, self._file = _open_partial(self.path)
        if self._as_table and self._header:
            header = ["source", "frame", "time", "track", "x", "y", "w", "h", "score", "emotion", "confidence"]
            header += [f"probability_{name}" for name in self._classes] + [f"smoothed_{name}" for name in self._classes]
            self._append(as_csv([header]))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is not None and not self._lines:
            self._partial.unlink()
            return
        self.path = _take_name(self._partial, self.path, whole=kind is None)

    def write(self, source: str, frame: int, time: float | None, predictions: Sequence[Prediction]) -> None:
        """Appends the faces of one frame."""
        place = {"source": source, "frame": frame, "time": _rounded(time)}
        self._append("".join(self._line({**place, **face_fields(prediction)}) for prediction in predictions))
        self._lines += len(predictions)

    def _append(self, text: str) -> None:
        data = text.encode(errors="replace")  # file names need not be Unicode
        try:
            if self._file.write(data) != len(data):  # the file system took what had room
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._file.truncate(self._size)
            raise _unwritable(self.path, error) from error
        self._size += len(data)

    def _line(self, row: Mapping[str, Any]) -> str:
        if not self._as_table:
            return json.dumps(row, ensure_ascii=False) + "\n"
        place = [cell(row["source"]), row["frame"], row["time"], row["track"], *(row["box"] or [None] * 4)]
        shares = [row[kind][name] for kind in ("probabilities", "smoothed") for name in self._classes]
        return as_csv([[*place, row["score"], row["emotion"], row["confidence"], *shares]])


class VideoSink:
    """An annotated video with a constant frame rate. Its size is that of the first picture.

    Given times (a live source), a picture is repeated or left out so that the video runs as fast as the world did;
    without, every picture is one frame.

    Args:
        path: its suffix, one of `VIDEO_OUTPUTS`, chooses the container; the codec is H.264 where it can be had.
        fps: frames per second.

    Attributes:
        path: as of `PredictionLog`.
        frames: how many it holds.

    Raises:
        UserError: cannot be written, or the disk is nearly full; the video up to then is closed and plays.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        self.fps = fps
        self.frames = 0
        self._partial = path  # until the first picture
        self._writer: cv2.VideoWriter | H264Writer | None = None
        self._size = (0, 0)
        self._last: BGRImage = np.empty((0, 0, 3), np.uint8)
        self._offset: float | None = None  # a live recording's own zero, moved on where the camera was silent

    def __enter__(self) -> Self:
        self._require_room()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._writer is None:
            return
        if self._finish(self._writer):
            self.path = _take_name(self._partial, self.path, whole=kind is None)
            return
        wanted, self.path = self.path, self._partial
        if kind is None:
            raise UserError(f"{wanted} could not be finished, most likely because the disk is full; free some room")

    def _finish(self, writer: cv2.VideoWriter | H264Writer) -> bool:
        """Closes the file; whether it is whole."""
        try:
            writer.release()
        except OSError:
            return False
        if isinstance(writer, H264Writer):
            return True
        # OpenCV tells of no failure, so the file is looked at.
        written = cv2.VideoCapture(str(self._partial.absolute()), cv2.CAP_FFMPEG)
        complete = written.isOpened() and abs(written.get(cv2.CAP_PROP_FRAME_COUNT) - self.frames) <= 1
        written.release()
        return complete

    def write(self, image: BGRImage, time: float | None = None) -> None:
        """Appends a picture, uint8 (H, W, 3), BGR; `time` in seconds, rising."""
        if self._writer is None:
            self._open(image)
        self._require_room()
        assert self._writer is not None
        image = _fitted(image, self._size)
        count = self._due(time)
        try:
            for number in range(count):
                self._writer.write(image if number == count - 1 else self._last)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self.frames += count
        self._last = image

    def _open(self, image: BGRImage) -> None:
        height, width = image.shape[:2]
        self._size = (width, height)
        self._last = image
        self._partial, file = _open_partial(self.path)
        file.close()  # OpenCV opens it again
        self._writer = _new_writer(self._partial, self.fps, self._size)
        if self._writer is None:
            self._partial.unlink(missing_ok=True)
            reason = "" if min(self._size) >= 2 and max(self._size) <= 8190 else f" at {width} x {height} pixels"
            raise UserError(f"the video {self.path} cannot be written{reason}; choose another output=")

    def _due(self, time: float | None) -> int:
        """How many frames bring the video to `time`; all but the last still show the picture before."""
        if time is None:
            return 1
        if self._offset is None:
            self._offset = time
        due = round((time - self._offset) * self.fps) + 1 - self.frames
        most = max(1, int(_LONGEST_FREEZE * self.fps))
        if due > most:
            self._offset += (due - most) / self.fps
            due = most
        return max(0, due)

    def _require_room(self) -> None:
        try:
            free = shutil.disk_usage(self.path.parent).free
        except OSError as error:
            raise _unwritable(self.path, error) from error
        if free < _RESERVE + _INDEX_BYTES_PER_FRAME * self.frames:
            raise UserError(
                f"the disk of {self.path} is nearly full, so the video was closed after {self.frames} frames; "
                "free some room or choose another output="
            )


def _new_writer(path: Path, fps: float, size: tuple[int, int]) -> cv2.VideoWriter | H264Writer | None:
    """What writes to an empty file; None where nothing can."""
    suffix = path.suffix.lower()
    if has_h264() and suffix != ".avi":
        try:
            return H264Writer(path, fps, size)
        except OSError:
            return None
    codec = cv2.VideoWriter.fourcc(*_CODECS[suffix])
    writer = cv2.VideoWriter(str(path.absolute()), cv2.CAP_FFMPEG, codec, fps, size)
    return writer if writer.isOpened() else None


def write_picture(path: Path, image: BGRImage) -> None:
    """Writes a picture, uint8 (H, W, 3), BGR, in the format that the suffix names; an older one is replaced whole.

    Raises:
        UserError: cannot be written, or the disk is full.
    """
    try:
        encoded, data = cv2.imencode(path.suffix.lower(), image)
    except cv2.error as error:
        height, width = image.shape[:2]
        raise UserError(f"{path} cannot hold {width} x {height} pixels; choose .png") from error
    assert encoded
    write_file(path, data.tobytes())


def write_file(path: Path, content: bytes) -> None:
    """Writes a file; an older one is replaced whole.

    Raises:
        UserError: it cannot be written, or the disk is full.
    """
    try:
        write_whole(path, content)
    except OSError as error:
        raise _unwritable(path, error) from error


def picture_output(folder: Path, source: Path, root: Path) -> Path:
    """Where the annotated copy of the picture `source` under `root` goes: the same place under `folder`."""
    target = folder / source.relative_to(root)
    return target if target.suffix.lower() in PICTURE_OUTPUTS else target.with_name(f"{target.name}.png")


def _open_partial(path: Path) -> tuple[Path, io.FileIO]:
    """A new file beside `path`, for what will be `path` when it is whole: one that no other run has, nor a link."""
    host = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:20]
    mark = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
    partial = path.with_name(f"{path.stem[:40]}.partial-{mark}{path.suffix}")  # no longer than file systems allow
    try:
        return partial, partial.open("xb", buffering=0)
    except OSError as error:
        raise _unwritable(path, error) from error


def _take_name(partial: Path, path: Path, whole: bool) -> Path:
    """Gives a closed file its name, a file of a run that failed only where nothing better is; returns its place."""
    if path.exists() and not whole:
        return partial
    return partial.replace(path)


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be written: {error.strerror or error}; free some room or choose another output=")


def _fitted(image: BGRImage, size: tuple[int, int]) -> BGRImage:
    """The picture in a frame of `size` (width, height), with black edges: a stream may come back in another size."""
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    scale = min(size[0] / width, size[1] / height)
    inner = (max(1, round(scale * width)), max(1, round(scale * height)))
    frame = np.zeros((size[1], size[0], 3), np.uint8)
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    frame[top : top + inner[1], left : left + inner[0]] = cv2.resize(image, inner, interpolation=cv2.INTER_AREA)
    return frame


def face_fields(prediction: Prediction) -> dict[str, Any]:
    """What predictions.jsonl says of a face, from "track" to "smoothed"."""
    return {
        "track": prediction.track,
        "box": None if prediction.box is None else [_rounded(side, 1) for side in prediction.box],
        "score": _rounded(prediction.score),
        "emotion": prediction.label,
        "confidence": _rounded(prediction.confidence),
        "probabilities": {name: _rounded(value) for name, value in prediction.probabilities.items()},
        "smoothed": {
            name: _rounded(value) for name, value in (prediction.smoothed or prediction.probabilities).items()
        },
    }


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None else round(float(value), digits)
