"""The window, on a real (virtual) screen, and its absence."""

import ctypes
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import ImageGrab

from fer.inference.window import Window, WindowProbe

needs_a_screen = pytest.mark.skipif(
    shutil.which("Xvfb") is None or shutil.which("xdotool") is None, reason="Xvfb or xdotool is not installed"
)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "900x700x24", "-noreset"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert server.stdout is not None
    display = f":{server.stdout.readline().decode().strip()}"
    monkeypatch.setenv("DISPLAY", display)
    yield display
    server.terminate()
    server.wait()
    server.stdout.close()


def press(key: str, title: str) -> None:
    subprocess.run(["xdotool", "search", "--name", title, "windowfocus", "key", key], check=True, capture_output=True)


class ClientMessage(ctypes.Structure):
    """Xlib's XClientMessageEvent, padded to the size of XEvent."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message_type", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5),
        ("padding", ctypes.c_long * 24),
    ]


def close(title: str) -> None:
    """Does what a window manager does when the cross in the title bar is clicked."""
    found = subprocess.run(["xdotool", "search", "--name", title], check=True, capture_output=True, text=True)
    window = int(found.stdout.split()[-1])
    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XInternAtom.restype = ctypes.c_ulong
    display = ctypes.c_void_p(x11.XOpenDisplay(None))
    protocols, delete = (x11.XInternAtom(display, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW"))
    event = ClientMessage(type=33, window=window, message_type=protocols, format=32)
    event.data[0] = delete
    x11.XSendEvent(display, ctypes.c_ulong(window), 0, ctypes.c_long(0), ctypes.byref(event))
    x11.XCloseDisplay(display)


def remap(title: str) -> bool:
    for command in ("windowunmap", "windowmap"):
        subprocess.run(["xdotool", "search", "--name", title, command], check=False, capture_output=True)
    return True


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_without_a_display_there_is_no_window_and_no_crash(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with WindowProbe() as probe:
        assert not probe.works()


def test_an_opencv_without_windows_says_so(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":987")
    monkeypatch.setattr("cv2.currentUIFramework", lambda: "")  # as opencv-python-headless has it
    with WindowProbe() as probe:
        assert not probe.works()
    assert "opencv-python-headless" in probe.missing


def test_a_display_that_does_not_answer_is_no_display(monkeypatch, capfd):
    monkeypatch.setenv("DISPLAY", ":987")  # OpenCV's Qt aborts the process that tries it
    with WindowProbe() as probe:
        assert not probe.works()
    assert capfd.readouterr().err == ""


# A process ends with the display that its Qt was opened on, so each test shows its window in a process of its own.
SHOW = """
import sys, time
import numpy as np
from fer.inference.window import Window
actions = []
with Window("a test of fer") as window:
    end = time.monotonic() + 20
    while time.monotonic() < end and "quit" not in actions:
        window.show(np.full((300, 400, 3), (40, 120, 250), np.uint8))
        action = window.poll(20)
        if action is not None:
            actions.append(action)
            print(action, flush=True)
"""


@pytest.fixture
def shown(screen: str, request: pytest.FixtureRequest) -> Iterator["subprocess.Popen[str]"]:
    root = request.config.rootpath
    process = subprocess.Popen([sys.executable, "-c", SHOW], cwd=root, stdout=subprocess.PIPE, text=True)

    def is_shown() -> bool:
        return tuple(np.asarray(ImageGrab.grab(xdisplay=screen))[100, 100]) == (250, 120, 40)

    # Where no window manager looks after windows, Qt 5 misses the first map and expose events of some (one in six here)
    # and paints nothing; any window manager causes more of them.
    appeared = eventually(is_shown, 4) or (remap("a test of fer") and eventually(is_shown, 15))
    if appeared:
        yield process
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    assert appeared


@needs_a_screen
def test_the_probe_finds_a_screen(screen):
    with WindowProbe() as probe:
        assert probe.works()


@needs_a_screen
def test_keys_arrive_as_actions(shown):
    assert shown.stdout is not None
    for key, action in (
        ("space", "pause"),
        ("s", "snapshot"),
        ("r", "record"),
        ("h", "help"),
        ("x", "other"),
        ("q", "quit"),
    ):
        press(key, "a test of fer")
        assert shown.stdout.readline().strip() == action
    assert shown.wait(10) == 0


@needs_a_screen
def test_closing_the_window_quits(shown):
    assert shown.stdout is not None
    close("a test of fer")
    assert shown.stdout.readline().strip() == "quit"
    assert shown.wait(10) == 0


def test_a_window_that_was_never_shown_asks_for_nothing():
    with Window("never") as window:
        assert window.poll() is None
