"""Where pictures come from: picture files, video files, cameras and network streams, each an iterator of `Frame`.

A file is not live: every picture of it comes, in order. A camera is live: a thread reads it all the time and keeps the
newest picture only, so that slow work on one picture makes none of the next ones old. Knows nothing of faces,
networks, windows, or what is written.
"""

import glob
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import cv2
import numpy as np

from fer.errors import UserError
from fer.files import at_home, is_dir, is_file, is_there, walk
from fer.inference.pictures import (
    HEIF_SUFFIXES,
    PICTURE_SUFFIXES,
    BGRImage,
    is_animated,
    read_picture,
    readable_suffixes,
)

# OpenCV's FFmpeg writes its own messages to the terminal, and asks for its level once, when it is first used.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

Report = Callable[[str], None]  # takes one sentence for the person at the keyboard

# fmt: off
VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".gif", ".mov", ".m4v", ".webm",
                  ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp", ".ogv")
# fmt: on
_SECRET = "(?:token|key|pas|pw|secret|auth|sig|cred)"  # in the name of an argument of an address
_ONLY_PICTURES = set(PICTURE_SUFFIXES) - set(VIDEO_SUFFIXES)
_ONLY_VIDEOS = set(VIDEO_SUFFIXES) - set(PICTURE_SUFFIXES)

_IDLE_SECONDS = 0.05  # a live source hands back control this often, so that a window keeps answering keys
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 8.0  # seconds before a broken stream is opened again, doubled every time
_OPEN_TIMEOUT, _READ_TIMEOUT = 10_000, 5_000  # milliseconds that FFmpeg waits for a server before the stream is broken
_FAILURES_IN_ROW, _FAILURES_AT_END = 1000, 10  # of reading a file, after which it has ended
_UNEVEN = 0.0025  # seconds by which even frames may be off; Matroska rounds times to milliseconds
_MOST_FRAMES = 100_000_000  # that a file may say it has: 19 days of 60 frames a second
_MOST_KINDS = 8  # of files left out that a sentence names
_PTS = 71  # cv2.CAP_PROP_PTS, in frames; before OpenCV 4.11 there is none, and the answer is 0
_CAMERA_RETRIES = 5  # a driver may fail to deliver one picture without the camera being gone


@dataclass(frozen=True)
class Frame:
    """One picture of a source.

    Attributes:
        image: uint8 (H, W, 3), BGR, upright.
        index: its number, from 0 for the first that was given out; on a live source the dropped ones between count, so
            that gaps show.
        time: seconds since the first frame that was given out; None for a picture, which has no time.
        source: what it was taken from: a path, a URL without its password, "camera 0".
        captured_at: `time.monotonic()` when the camera or the file gave it.
    """

    image: BGRImage
    index: int
    time: float | None
    source: str
    captured_at: float


@dataclass(frozen=True)
class _Shot:
    """A picture as the reader thread leaves it."""

    image: BGRImage
    number: int
    captured_at: float


class SourceEnded(UserError):
    """A source ended before its time; the frames before are good."""


class Capture(Protocol):
    """The part of `cv2.VideoCapture` that is used here; tests bring their own."""

    def grab(self) -> bool: ...  # noqa: D102
    def retrieve(self) -> tuple[bool, Any]: ...  # noqa: D102
    def get(self, propId: int, /) -> float: ...  # noqa: D102
    def release(self) -> None: ...  # noqa: D102


class PictureFiles:
    """Pictures on disk, one frame each, in natural order ("2.jpg" before "10.jpg").

    A picture that cannot be read is reported and left out, unless it is the only one.

    Args:
        paths: the files.
        root: the folder that all of them are in; their place under it is kept when results are written.
        report: takes the sentences about pictures that are left out.
        first: the number of the first one; None: 0, and these are all. Of a part all may be broken.

    Attributes:
        broken: how many could not be read so far.

    Raises:
        SourceEnded: while iterating, when not one picture can be read.
    """

    live = False
    fps = None

    def __init__(self, paths: list[Path], root: Path, report: Report, first: int | None = None) -> None:
        self.paths = paths
        self.first = first or 0
        self._all = first is None
        self.root = root
        self.name = str(paths[0] if len(paths) == 1 else root)
        self.broken = 0
        self._report = report

    @property
    def length(self) -> int:
        """How many frames to expect."""
        return len(self.paths)

    def part(self, number: int, count: int) -> "PictureFiles":
        """The part `number`, from 1, of `count` blocks as equal as can be; its frames have their numbers in the whole.

        A part may be empty.
        """
        start, end = ((step * len(self.paths)) // count for step in (number - 1, number))
        return PictureFiles(self.paths[start:end], self.root, self._report, first=start)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self.paths, self.first):
            captured_at = time.monotonic()
            try:
                image = read_picture(path)
            except UserError as error:
                self.broken += 1
                if self._all and len(self.paths) == 1:
                    raise SourceEnded(str(error)) from error
                if self._all and self.broken == len(self.paths):
                    raise SourceEnded(f"none of the {len(self.paths)} pictures of {self.name} can be read") from error
                self._report(f"left out: {error}")
                continue
            yield Frame(image, index, None, str(path), captured_at)


class VideoFile:
    """A video of known length: every frame, in order; turned upright where the file carries a rotation tag.

    What is damaged in it is left out, and its end reported with how much that was: frames keep their numbers and times
    in the file, so that gaps show.

    Args:
        capture: opened.
        name: how messages and results call it.
        report: takes the sentence about frames that were left out.

    Attributes:
        fps: frames per second; 25 where the file does not say.
        length: how many frames the file says it has; None where it says nothing, or nonsense.
        skipped: how many frames could not be read so far.

    Raises:
        SourceEnded: while iterating, after the last frame that could be read, when the file ends too early.
    """

    live = False

    def __init__(self, capture: Capture, name: str, report: Report) -> None:
        self.name = name
        self.fps = _frame_rate(capture, otherwise=25.0)
        self.length = _declared_length(capture)
        self.skipped = 0
        self._capture = capture
        self._report = report
        suffix = Path(name.partition("?")[0]).suffix.lower()
        self._matroska = suffix in (".mkv", ".webm")
        self._counts_frames = suffix in (".mp4", ".m4v", ".mov", ".avi")  # others know a duration only
        # Where others are damaged, FFmpeg seeks the next good frame by itself. A GIF's gaps are meant.
        self._skips_in_silence = not self._counts_frames and suffix != ".gif"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[Frame]:
        index, last = -1, -1 / self.fps
        failures = 0  # of reading, before this frame
        even = True  # whether all frames so far were whole intervals apart, so that a gap tells how many are missing
        while (read := self._read(index)) is not None:
            image, seconds, captured_at, failed = read
            if index < 0:
                self._forget_what_was_before(seconds)
            failures += failed
            if index >= 0 and seconds <= last:  # a container without times, or with wrong ones
                seconds = last + 1 / self.fps
            intervals = (seconds - last) * self.fps
            even = even and abs(intervals - round(intervals)) < _UNEVEN * self.fps
            missing = max(0, round(intervals) - 1) if even else 0
            if index < 0 or not self._skips_in_silence:
                missing = min(missing, failures - self.skipped)
            self.skipped += missing
            index, last = index + 1 + missing, seconds
            yield Frame(_three_channels(image), index, seconds, self.name, captured_at)
        if index < 0:
            raise SourceEnded(f"{self.name} holds no frame that can be read; it is damaged, or no video")
        if self.skipped:
            self._report(
                f"{self.name} is damaged: {self.skipped} of its {self.length or index + 1} frames are missing or could "
                "not be read; the others keep their numbers and times"
            )
        if self.length is not None and self._is_cut_short(index + 1, last):
            raise SourceEnded(
                f"{self.name} is damaged or cut short: it should have {self.length} frames and ends after {index + 1}; "
                "what was found in them is kept"
            )

    def _forget_what_was_before(self, seconds: float) -> None:
        """Of a piece of a longer Matroska file: its first frame need not be at 0, and its duration is counted from 0.

        Args:
            seconds: the time of the frame that was read first, since the file's first.
        """
        if self.length is not None and self._matroska:
            before = round(self._capture.get(_PTS) - seconds * self.fps)
            self.length = max(1, self.length - max(0, before))

    def _read(self, index: int) -> tuple[BGRImage, float, float, int] | None:
        """The frame after frame `index`, its time, when it was read, and how often that failed before; None at the end.

        FFmpeg fails once for each damaged packet, and reads the next one when it is asked again.
        """
        near_end = self.length is None or index + 1 >= self.length - 2
        begun = time.monotonic()
        for failed in range(_FAILURES_AT_END if near_end else _FAILURES_IN_ROW):
            captured_at = time.monotonic()
            if self._capture.grab():
                read, image = self._capture.retrieve()
                if read:
                    # The file's own time: frames may be uneven.
                    return image, self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, captured_at, failed
            if time.monotonic() - begun > _READ_TIMEOUT / 1000:  # a server that answers no more
                break
        return None

    def _is_cut_short(self, count: int, last: float) -> bool:
        assert self.length is not None
        if self._counts_frames:
            return count < self.length - 2
        # A duration may be stretched a little by the sound.
        missing = self.length / self.fps - (last + 1 / self.fps)
        return missing > max(1.0, 0.05 * self.length / self.fps)


class LiveStream:
    """A camera or a network stream: always the newest picture, the older ones dropped.

    Iterating gives None when nothing new came for a moment, so that the caller can look after its window. A stream
    that breaks is opened again, with growing pauses and a report each time; a camera that is gone ends the iteration.

    Args:
        capture: opened.
        name: how messages and results call it.
        reopen: opens a network stream again, None while that fails; None for a camera, which is not opened again.
        report: takes the sentences about breaks.
        patience: seconds without a picture after which the stream is given up.

    Raises:
        SourceEnded: while iterating, when the camera is gone or the stream was given up.
    """

    live = True
    length = None

    def __init__(
        self,
        capture: Capture,
        name: str,
        reopen: Callable[[], Capture | None] | None,
        report: Report,
        patience: float = 60.0,
    ) -> None:
        self.name = name
        self.fps = _frame_rate(capture, otherwise=30.0)
        self._capture: Capture | None = capture
        self._reopen = reopen
        self._report = report
        self._patience = patience
        self._newest: _Shot | None = None
        self._failure: Exception | None = None
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._reader = threading.Thread(target=self._read, name="camera reader", daemon=True)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        # A reader that waits for a silent camera ends by itself later; nobody should wait for it.
        self._reader.join(timeout=1.0)

    def __iter__(self) -> Iterator[Frame | None]:
        first: _Shot | None = None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest or self._failure, timeout=_IDLE_SECONDS)
                shot, self._newest = self._newest, None
                failure = self._failure
            if shot is not None:
                first = first or shot
                seconds = shot.captured_at - first.captured_at
                yield Frame(shot.image, shot.number - first.number, seconds, self.name, shot.captured_at)
            elif failure is not None:
                raise failure
            else:
                yield None

    def _read(self) -> None:
        """The reader thread: the only place that touches the capture after `__init__`."""
        count = failures = 0
        try:
            while not self._stop.is_set():
                grabbed = self._capture is not None and self._capture.grab()
                captured_at = time.monotonic()
                read, image = self._capture.retrieve() if self._capture is not None and grabbed else (False, None)
                if not read or image is None:
                    failures += 1
                    if not self._recover(failures):
                        return
                    continue
                failures = 0
                shot = _Shot(_three_channels(image), count, captured_at)
                count += 1
                with self._changed:
                    self._newest = shot
                    self._changed.notify_all()
        except Exception as error:  # of the driver or of ours: it must not leave the main thread waiting
            self._fail(error)
        finally:
            if self._capture is not None:
                self._capture.release()

    def _recover(self, failures: int) -> bool:
        """Whether reading goes on after `failures` failures in a row."""
        if self._reopen is None:
            if failures <= _CAMERA_RETRIES:
                return not self._stop.wait(0.05)
            self._fail(
                SourceEnded(f"{self.name} gives no more pictures; was it unplugged, or taken by another program?")
            )
            return False
        if self._capture is not None:
            self._capture.release()
            self._capture = None
        broken_at, delay = time.monotonic(), _FIRST_DELAY
        while time.monotonic() - broken_at < self._patience:
            self._report(f"{self.name} broke off; opening it again in {delay:g} s")
            if self._stop.wait(min(delay, self._patience)):
                return False
            self._capture = self._reopen()
            if self._capture is not None:
                self._report(f"{self.name} is back after {time.monotonic() - broken_at:.1f} s")
                return True
            delay = min(2 * delay, _LONGEST_DELAY)
        message = f"{self.name} broke off and did not come back within {self._patience:g} s; is the sender running?"
        self._fail(SourceEnded(message))
        return False

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._failure = error
            self._changed.notify_all()


Source = PictureFiles | VideoFile | LiveStream


def guess_mode(sources: Sequence[str]) -> str:
    """What `open_source` does best with sources whose mode nobody has said: "webcam", "video" or "image".

    Nothing, a number and a device of /dev are a camera; an address is a video (or a stream, which mode=video reads as
    well) unless it ends like a picture; of files the suffix decides, of a GIF and of other suffixes the content.
    Folders and globs hold pictures. Files are looked at, and nothing else is done.

    Raises:
        UserError: a file that is neither, and cannot be guessed; sources of different kinds.
    """
    modes = {source: _guess_one(source) for source in sources}
    if len(set(modes.values())) > 1:
        said = ", ".join(f"{hide_password(source)} ({mode})" for source, mode in modes.items())
        raise UserError(f"one run takes one kind of source, and these are several: {said}")
    return next(iter(modes.values()), "webcam")


def _guess_one(source: str) -> str:
    if source.isdecimal() or source.startswith("/dev/"):
        return "webcam"
    path = at_home(source.partition("?")[0] if "://" in source else source)
    suffix = path.suffix.lower()
    if "://" in source:
        return "image" if suffix in _ONLY_PICTURES else "video"
    there = is_there(path)
    if is_dir(path) or (glob.has_magic(source) and not there):
        return "image"
    if suffix in _ONLY_VIDEOS:
        return "video"
    if suffix in _ONLY_PICTURES:
        return "image"
    if not there:
        raise UserError(f"source={source} does not exist; give a picture, a folder, a video, an address or a camera")
    moves = is_animated(path)
    if moves is not None:
        return "video" if moves else "image"
    capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
    opened = capture.isOpened()
    capture.release()
    if not opened:
        raise UserError(f"source={source} is neither a picture nor a video, as far as can be seen")
    return "video"


def open_source(
    mode: str, source: str | Sequence[str], report: Report, recursive: bool = False, leave_out: Path | None = None
) -> Source:
    """Opens what the user named.

    Args:
        mode: "image" (`source` is a file, a folder or a glob), "video" (a file or a URL) or "webcam" (a camera's
            index or device, or a URL).
        source: see `mode`; `~` is the home directory. In mode "image" it may be several, which are taken in their
            order, each file once.
        report: takes sentences about what goes wrong on the way without ending it.
        recursive: whether folders are searched with their sub-folders.
        leave_out: a folder whose pictures are not taken: the one that results go to.

    Raises:
        UserError: nothing there, not readable, or not what `mode` promises.
    """
    quiet_opencv()
    sources = [source] if isinstance(source, str) else list(source)
    if mode == "image":
        return _open_pictures(sources, report, recursive, leave_out)
    if len(sources) != 1:
        raise UserError(f"mode={mode} takes one source, and these are {len(sources)}; start it once for each")
    (source,) = sources
    if "://" in source:
        return _open_stream(source, report, live=mode == "webcam")
    return _open_camera(source, report) if mode == "webcam" else _open_video(source, report)


def quiet_opencv() -> None:
    """Keeps OpenCV from writing to the terminal what a `UserError` says better; OPENCV_LOG_LEVEL brings it back."""
    if "OPENCV_LOG_LEVEL" not in os.environ:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def hide_password(url: str) -> str:
    """`url` as it may be shown and stored: rtsp://user:***@host/path?token=***.

    Passwords as people write them, with a / or an @ in them, are hidden whole. What stands between a colon and a slash
    is a port where it is a number, and the @ behind it belongs to the path.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    user, colon, after = rest.partition(":")
    if colon and "/" not in user and "@" in after and not re.match(r"\d+(/|\?|$)", after):
        rest = f"{user}:***@{after.rpartition('@')[2]}"
    rest = re.sub(rf"(?i)([?&;#][^=&;#]*{_SECRET}[^=&;#]*=)[^&;#]*", r"\1***", rest)
    # Recorders have /user=admin_password=..._channel=1 as a path.
    rest = re.sub(rf"(?i)([/_,][^=&;#?/_,]*{_SECRET}[^=&;#?/_,]*=)(?:(?!_[^\W_]+=)[^#?])*", r"\1***", rest)
    return scheme + separator + rest


def _open_pictures(sources: Sequence[str], report: Report, recursive: bool, leave_out: Path | None) -> PictureFiles:
    found = [_find_pictures(source, report, recursive, leave_out) for source in sources]
    if len(found) == 1:
        return PictureFiles(*found[0], report)
    unique: dict[Path, Path] = {}
    for paths, _ in found:
        for path in paths:
            unique.setdefault(path.resolve(), _without_dots(path))
    try:
        # The pictures' folders besides: behind a link, "*/.." leads out of a root.
        folders = {path.parent for path in unique.values()} | {_without_dots(root) for _, root in found}
        root = Path(os.path.commonpath(folders))
    except ValueError as error:  # two drives of Windows
        raise UserError(
            "the sources lie on several drives, so results have no common folder; run once for each"
        ) from error
    return PictureFiles(list(unique.values()), root, report)


def _without_dots(path: Path) -> Path:
    """`path` from the root and without "..", by which a copy of it would leave its folder.

    What stands before the last ".." is resolved, as the system does: behind a link it leads elsewhere than it seems.
    """
    parts = path.absolute().parts
    if ".." not in parts:
        return Path(*parts)
    after = len(parts) - parts[::-1].index("..")
    return Path(*parts[:after]).resolve().joinpath(*parts[after:])


def _find_pictures(source: str, report: Report, recursive: bool, leave_out: Path | None) -> tuple[list[Path], Path]:
    """The picture files of a source, and the folder that all of them are in."""
    if "://" in source:
        raise UserError(f"source={hide_password(source)}: mode=image reads files; download the picture first")
    path = at_home(source)
    if is_file(path):
        if path.suffix.lower() in _ONLY_VIDEOS:
            raise UserError(f"source={source} is a video: use mode=video")
        return [path], path.parent
    if is_dir(path):
        found = _files_below(path, report) if recursive else path.iterdir()
        root = path
    elif glob.has_magic(source):
        # A folder's name may have brackets, too.
        folders = (folder for folder in path.parents if not glob.has_magic(str(folder)) or is_there(folder))
        root = next(folders)
        found = root.glob(str(path.relative_to(root)))
    else:
        raise UserError(f"source={source} does not exist; give a picture, a folder, or a glob such as 'photos/*.jpg'")
    if leave_out is not None and root.resolve() not in leave_out.resolve().parents:
        leave_out = None  # elsewhere, or all around the pictures
    try:
        files = sorted((file for file in found if _is_wanted(file, leave_out)), key=_natural_order)
    except (OSError, ValueError) as error:  # ValueError of a glob such as photos/**.jpg
        raise UserError(f"source={source} cannot be searched: {getattr(error, 'strerror', error)}") from error
    readable = readable_suffixes()
    paths = [file for file in files if file.suffix.lower() in readable]
    others = Counter(file.suffix.lower() for file in files if file.suffix.lower() not in readable)
    if others:
        report(f"{source}: left out {sum(others.values())} files that are no pictures it can read: {_in_kinds(others)}")
    if not paths:
        deeper = "" if recursive or not path.is_dir() else "; recursive=true looks into its sub-folders too"
        raise UserError(f"source={source} holds no pictures ({', '.join(PICTURE_SUFFIXES[:5])} ...){deeper}")
    return paths, root


def _files_below(top: Path, report: Report) -> Iterator[Path]:
    """All files of a folder and its sub-folders, behind links, too; says which folder may not be read."""

    def unreadable(error: OSError) -> None:
        report(f"{error.filename} is left out, as it cannot be searched: {error.strerror}")

    for folder, _, files in walk(top, unreadable):
        yield from (folder / name for name in files)


def _in_kinds(others: Mapping[str, int]) -> str:
    """How many files of which kind, the most frequent first: "3 .heic (pip install pillow-heif reads them), 1 .txt"."""

    def said(suffix: str, count: int) -> str:
        reads = " (pip install pillow-heif reads them)" if suffix in HEIF_SUFFIXES else ""
        video = " (mode=video)" if suffix in VIDEO_SUFFIXES else ""
        return f"{count} {suffix or 'without a suffix'}{reads}{video}"

    kinds = sorted(others.items(), key=lambda kind: (kind[0] not in HEIF_SUFFIXES, -kind[1], kind[0]))
    named = [said(*kind) for kind in kinds[:_MOST_KINDS]]
    rest = sum(count for _, count in kinds[_MOST_KINDS:])
    return ", ".join([*named, f"{rest} others"] if rest else named)


def _is_wanted(path: Path, leave_out: Path | None) -> bool:
    if path.name.startswith(".") or not path.is_file():
        return False
    return leave_out is None or leave_out.resolve() not in path.resolve().parents


def _natural_order(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", str(path).lower())
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]


def _open_video(source: str, report: Report) -> VideoFile:
    path = at_home(source)
    if not is_there(path):
        raise UserError(f"source={source} does not exist; mode=video takes a file or an rtsp:// or http:// address")
    if path.is_dir():
        raise UserError(f"source={source} is a folder; mode=video takes one file, mode=image a folder of pictures")
    if path.suffix.lower() in _ONLY_PICTURES:
        raise UserError(f"source={source} is a picture: use mode=image")
    if not os.access(path, os.R_OK):
        raise UserError(f"source={source} may not be read: permission denied")
    # FFmpeg only: OpenCV's other readers take "a_01.mp4" for a numbered series of pictures. The path is absolute
    # because FFmpeg takes what stands before a colon for a protocol.
    capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise UserError(f"{source} cannot be read as a video; it is damaged, cut short, or something else")
    return VideoFile(capture, source, report)


def _open_stream(url: str, report: Report, live: bool) -> VideoFile | LiveStream:
    def connect() -> Capture | None:
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN_TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _READ_TIMEOUT]
        capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, limits)
        return capture if capture.isOpened() else None

    name = hide_password(url)
    capture = connect()
    if capture is None:
        raise UserError(f"{name} cannot be opened; is the address right and the sender running?")
    if _declared_length(capture) is not None:  # a file behind an address
        if live:
            report(f"{name} is a file and no camera: it is played once, all of its frames")
        return VideoFile(capture, name, report)
    return LiveStream(capture, name, connect, report)


def _open_camera(source: str, report: Report) -> LiveStream:
    if not source.isdecimal() and not source.startswith("/dev/"):
        mode = "image" if Path(source).suffix.lower() in PICTURE_SUFFIXES else "video"
        raise UserError(
            f"source={source} is no camera: give its number (0 is the first) or a stream's address, or use mode={mode}"
        )
    name = f"camera {source}"
    device = Path(f"/dev/video{source}" if source.isdecimal() else source)
    if sys.platform == "linux" and not is_there(device):
        others = sorted(Path("/dev").glob("video*"), key=_natural_order)
        there = f"there are {', '.join(map(str, others))}" if others else "this computer shows no camera at all"
        raise UserError(f"there is no {name} ({device}); {there}")
    capture = cv2.VideoCapture(int(source) if source.isdecimal() else source)
    if not capture.isOpened():
        if device.exists() and not os.access(device, os.R_OK | os.W_OK):
            raise UserError(f"{name} may not be used: permission denied for {device}; join the group that owns it")
        raise UserError(f"{name} cannot be opened; is it plugged in, and no other program using it?")
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return LiveStream(capture, name, None, report)


def _declared_length(capture: Capture) -> int | None:
    declared = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(declared) if 0 < declared < _MOST_FRAMES else None


def _frame_rate(capture: Capture, otherwise: float) -> float:
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if 0.1 <= fps <= 1000 else otherwise


def _three_channels(image: BGRImage) -> BGRImage:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8) if image.ndim == 2 else image
