"""A window on the screen and its keys. Knows nothing of faces, sources or files."""

import os
import subprocess
import sys
from typing import Literal, Self

import cv2

from fer.errors import UserError
from fer.inference.pictures import BGRImage

Action = Literal["quit", "pause", "snapshot", "record", "help", "other"]

HELP = ("q or Esc: quit", "space: pause or go on", "s: save a snapshot", "r: record, or stop", "h: show these keys")
_ACTIONS: dict[int, Action] = {
    ord("q"): "quit",
    27: "quit",
    ord(" "): "pause",
    ord("s"): "snapshot",
    ord("r"): "record",
    ord("h"): "help",
}
_LARGEST_AT_FIRST = (1280, 800)  # pixels; the user may pull the window larger


class WindowProbe:
    """Finds out whether a window can be opened here, in a process of its own that runs from the start.

    OpenCV's wheel ends the whole process when there is no display, so nobody may ask in the main one.

    Attributes:
        missing: what there is not, where no window can be opened; a sentence.
    """

    def __init__(self) -> None:
        self._process = None
        self.missing = "There is no display to open a window on"
        if not cv2.currentUIFramework():
            self.missing = "This OpenCV has no windows (opencv-python-headless; uninstall it, reinstall opencv-python)"
            return
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            return
        self._process = subprocess.Popen(
            [sys.executable, "-c", "import cv2; cv2.namedWindow('probe'); cv2.waitKey(1)"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def works(self) -> bool:
        """Whether a window can be opened; waits for the answer."""
        if self._process is None:
            return False
        try:
            return self._process.wait(timeout=10) == 0
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.works()


class Window:
    """Shows pictures, and tells which of its keys was pressed.

    Only to be made where `WindowProbe.works`.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:
            cv2.destroyWindow(self._title)

    def show(self, image: BGRImage) -> None:
        """Shows a picture, uint8 (H, W, 3), BGR; the first one opens the window in its size."""
        if not self._open:
            # Without GUI_NORMAL, Qt adds a tool bar whose keys hide ours.
            flags = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL
            try:
                cv2.namedWindow(self._title, flags)
            except cv2.error as error:
                raise UserError("no window can be opened here; window=false goes without") from error
            height, width = image.shape[:2]
            scale = min(1.0, _LARGEST_AT_FIRST[0] / width, _LARGEST_AT_FIRST[1] / height)
            cv2.resizeWindow(self._title, max(1, round(scale * width)), max(1, round(scale * height)))
            self._open = True
        cv2.imshow(self._title, image)

    def poll(self, milliseconds: int = 1) -> Action | None:
        """What the user asks for now, or within `milliseconds`; closing the window is "quit"."""
        if not self._open:
            return None
        key = cv2.waitKey(max(1, milliseconds))
        if not self._is_there():
            self._open = False
            return "quit"
        if key < 0:
            return None
        return _ACTIONS.get(ord(chr(key & 0xFF).lower()), "other")

    def _is_there(self) -> bool:
        try:
            return cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:  # Qt's answer once the user has closed the last window
            return False
