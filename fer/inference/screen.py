"""The window with everything that its keys do, and the figures in its corner."""

import datetime
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from fer.inference.overlay import draw_message, draw_status
from fer.inference.pictures import BGRImage
from fer.inference.sinks import Outputs, VideoSink, make_folder, video_suffix, write_picture
from fer.inference.sources import Frame, Report, Source
from fer.inference.window import HELP, Action, Window

SNAPSHOTS = Path("outputs/infer")  # snapshots and recordings of a run without output=

_MESSAGE_SECONDS = 2.5
_SILENCE_SECONDS = 1.0  # after which the window says that the camera is silent
_SMOOTHING = 0.1  # share of the newest value in the running figures


class Figures:
    """Running averages of what a person wants to know of the speed.

    Attributes:
        fps: frames per second.
        latency: milliseconds from the camera (or file) to here.
        stages: milliseconds by stage.
    """

    def __init__(self) -> None:
        self.fps = 0.0
        self.latency = 0.0
        self.stages: dict[str, float] = {}
        self._interval = 0.0
        self._last: float | None = None

    def update(self, frame: Frame, stages: Mapping[str, float]) -> None:
        """Takes in a frame that was just finished, and its milliseconds by stage."""
        now = time.monotonic()
        self.latency = _mixed(self.latency, 1000 * (now - frame.captured_at))
        for name, milliseconds in stages.items():
            self.stages[name] = _mixed(self.stages.get(name, 0.0), milliseconds)
        if self._last is not None:
            self._interval = _mixed(self._interval, now - self._last)
            self.fps = 1 / self._interval if self._interval else 0.0  # a coarse clock has not moved yet
        self._last = now

    def pause(self) -> None:
        """Leaves the time until the next frame out."""
        self._last = None

    def lines(self) -> list[str]:
        """As shown in the corner of the window."""
        stages = ", ".join(f"{name} {milliseconds:.1f}" for name, milliseconds in self.stages.items())
        return [f"{self.fps:.1f} fps, {self.latency:.0f} ms behind", f"{stages} ms"]


class Screen:
    """The window with everything that its keys do: pausing, snapshots, recording, help.

    Snapshots and recordings go to the folder of output=, or else to outputs/infer.

    Args:
        window: where pictures are shown.
        outputs: of the run; None when nothing else is written.
        source: what is watched.
        report: takes the sentences about files that were written, for the terminal.
        pace: whether a video file is shown at its own speed rather than as fast as possible.
    """

    def __init__(
        self, window: Window, outputs: Outputs | None, source: Source, report: Report, pace: bool = False
    ) -> None:
        self._window = window
        self._folder = outputs.folder if outputs else SNAPSHOTS
        self._source = source
        self._report = report
        self._pace = pace and not source.live
        self._clock: float | None = None  # what monotonic time the video's zero has
        self._recording: VideoSink | None = None
        self._help = False
        self._message: tuple[str, float] = ("", 0.0)  # and until when it stays
        self._shown: tuple[Frame, BGRImage, list[str], BGRImage] | None = None
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.__exit__(*error)  # type: ignore[arg-type]
        if self._recording is not None:
            self._report(f"saved {self._recording.path}")

    def show(self, frame: Frame, drawn: BGRImage, figures: Figures, mirrored: BGRImage | None = None) -> bool:
        """Shows a video's annotated frame and does what the keys ask for; False when the user wants to end.

        `mirrored` is what the window shows instead of `drawn`, which files are made of.
        """
        self._shown = (frame, drawn, figures.lines(), drawn if mirrored is None else mirrored)
        if self._recording is not None:
            fps = self._source.fps
            self._recording.write(drawn, frame.time if self._source.live or fps is None else frame.index / fps)
        self._draw()
        action = self._window.poll(self._wait(frame))
        if action == "pause":
            action = self._stay("paused")
            figures.pause()
            self._clock = None
        return self._obey(action)

    def show_and_wait(self, frame: Frame, drawn: BGRImage) -> bool:
        """Shows an annotated picture until a key is pressed; False when the user wants to end."""
        self._shown = (frame, drawn, [], drawn)
        return self._obey(self._stay(""))

    def idle(self) -> bool:
        """Looks after the window while a camera gives nothing; False when the user wants to end."""
        if self._shown is not None and time.monotonic() - self._shown[0].captured_at > _SILENCE_SECONDS:
            self._draw(f"no picture from {self._source.name}")
        return self._obey(self._window.poll())

    def _stay(self, message: str) -> Action | None:
        """Keeps the picture until the user goes on or quits."""
        while True:
            self._draw(message)
            action = self._window.poll(30)
            if action in ("quit", "pause") or (action == "other" and not message):
                return "quit" if action == "quit" else None
            self._obey(action)

    def _obey(self, action: Action | None) -> bool:
        if action == "help":
            self._help = not self._help
        elif action == "snapshot":
            self._save_snapshot()
        elif action == "record":
            self._toggle_recording()
        return action != "quit"

    def _draw(self, message: str = "") -> None:
        if self._shown is None:
            return
        _, _, figures, picture = self._shown
        canvas = picture.copy()
        if self._help:
            draw_message(canvas, HELP)
        # In the corner, and over the help: in the middle a message would lie on the face that it is about.
        news = self._message[0] if time.monotonic() < self._message[1] else ""
        lines = [line for line in (message, news, *figures) if line]
        if lines:
            draw_status(canvas, lines, recording=self._recording is not None)
        self._window.show(canvas)

    def _wait(self, frame: Frame) -> int:
        """Milliseconds until the next frame is due."""
        if not self._pace or frame.time is None or self._source.fps is None:
            return 1
        now = time.monotonic()
        if self._clock is None or now > self._clock + frame.time + 1 / self._source.fps:  # never hurries to catch up
            self._clock = now - frame.time
        return max(1, int(1000 * (self._clock + frame.time + 1 / self._source.fps - now)))

    def _save_snapshot(self) -> None:
        if self._shown is None:
            return
        frame, drawn, _, _ = self._shown
        path = self._folder / f"snapshot_{_timestamp()}_{frame.index}.png"
        write_picture(path, drawn)
        self._tell(f"saved {path}")

    def _toggle_recording(self) -> None:
        if self._source.fps is None:  # pictures
            return
        if self._recording is None:
            make_folder(self._folder)
            path = self._folder / f"recording_{_timestamp()}{video_suffix()}"
            self._recording = self._closing.enter_context(VideoSink(path, self._source.fps))
            self._message = ("recording", time.monotonic() + _MESSAGE_SECONDS)
        else:
            self._closing.close()
            self._tell(f"saved {self._recording.path}")
            self._recording = None

    def _tell(self, text: str) -> None:
        """Says something in the window for a moment, and in the terminal to stay."""
        self._message = (text, time.monotonic() + _MESSAGE_SECONDS)
        self._report(text)


def _timestamp() -> str:
    return datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def _mixed(old: float, new: float) -> float:
    return new if old == 0 else (1 - _SMOOTHING) * old + _SMOOTHING * new
