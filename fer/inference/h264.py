"""H.264 by PyAV, where the extra `video` is installed: what browsers, chat programs and notebooks play."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fer.inference.pictures import BGRImage

# An index with every second of video in place of one at the end, so that what a killed process has written plays.
_FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}


def has_h264() -> bool:
    """Whether PyAV is installed."""
    return importlib.util.find_spec("av") is not None


class H264Writer:
    """The part of `cv2.VideoWriter` that `fer.inference.sinks.VideoSink` uses.

    Args:
        path: .mp4, .mov or .mkv.
        fps: frames per second.
        size: width and height in pixels; H.264 wants even ones, so an odd picture's last row and column come twice.

    Raises:
        OSError: it cannot be written, or not in this size.
    """

    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        import av

        width, height = size
        fragments = {} if path.suffix.lower() == ".mkv" else _FRAGMENTS
        self._odd = (width % 2, height % 2)
        self._new_frame = av.VideoFrame.from_ndarray
        with _told_as_oserror():
            self._container: Any = av.open(str(path.absolute()), "w", options={**fragments, "flush_packets": "1"})
            self._stream: Any = self._container.add_stream("libx264", rate=Fraction(fps).limit_denominator(65535))
            self._stream.width, self._stream.height = width + self._odd[0], height + self._odd[1]
            self._stream.pix_fmt = "yuv420p"
            self._stream.options = {"preset": "veryfast", "crf": "20", "g": str(max(1, round(fps)))}
            self._stream.codec_context.open()

    def write(self, image: BGRImage) -> None:
        """Appends a picture, uint8 (H, W, 3), BGR."""
        if any(self._odd):
            image = np.asarray(
                cv2.copyMakeBorder(image, 0, self._odd[1], 0, self._odd[0], cv2.BORDER_REPLICATE), np.uint8
            )
        self._mux(self._new_frame(np.ascontiguousarray(image), format="bgr24"))

    def release(self) -> None:
        """Writes what is left, and closes the file."""
        try:
            self._mux(None)
        finally:
            with _told_as_oserror():
                self._container.close()

    def _mux(self, frame: Any) -> None:
        with _told_as_oserror():
            for packet in self._stream.encode(frame):
                self._container.mux(packet)


@contextmanager
def _told_as_oserror() -> Iterator[None]:
    import av

    try:
        yield
    except (av.FFmpegError, ValueError) as error:
        raise OSError(getattr(error, "errno", None) or 0, getattr(error, "strerror", None) or str(error)) from error
