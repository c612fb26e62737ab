"""The run loop of infer.py: frames from a source through the analyzer to the screen, to files and to the terminal.

Knows every part of inference, but neither torch nor Hydra: the network is behind `FaceAnalyzer`.
"""

import datetime
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Self

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fer import weights
from fer.errors import UserError
from fer.inference.analyzer import Analyzer, FaceAnalyzer, watch
from fer.inference.confidence import minimum_confidence
from fer.inference.detectors import create_detector
from fer.inference.overlay import annotate, draw_message, draw_status
from fer.inference.prediction import Prediction
from fer.inference.predictor import Predictor
from fer.inference.runtimes import choose_runtime
from fer.inference.sinks import (
    LOST_WHEN_KILLED,
    OutputLock,
    Outputs,
    PredictionLog,
    VideoSink,
    make_folder,
    picture_output,
    plan_outputs,
    write_file,
    write_picture,
)
from fer.inference.sources import Frame, LiveStream, PictureFiles, Source, SourceEnded, VideoFile, open_source
from fer.inference.timeline import Timeline
from fer.inference.window import HELP, Action, Window, WindowProbe
from fer.settings.infer import InferSettings

BGRImage = npt.NDArray[np.uint8]  # (H, W, 3)

RUNS = Path("outputs")
SNAPSHOTS = RUNS / "infer"  # snapshots and recordings of a run without output=

_MESSAGE_SECONDS = 2.5
_SILENCE_SECONDS = 1.0  # after which the window says that the camera is silent
_SMOOTHING = 0.1  # share of the newest value in the running figures


def run(config: InferSettings) -> None:
    """Does what `python infer.py` was asked for.

    Raises:
        UserError: a mistake in the settings or the surroundings; several, found together, in a line each.
    """
    messages = Console(stderr=True)
    results = Console()

    def report(text: str) -> None:
        messages.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)

    assert config.mode is not None
    if config.mode == "browser":
        _serve(config, messages, report)
        return
    with ExitStack() as stack:
        problems: list[str] = []
        ckpt = outputs = source = None
        try:
            ckpt = find_checkpoint(config.ckpt)
            choose_runtime(ckpt, config.runtime, config.device)
        except UserError as error:
            problems.append(str(error))
        try:
            outputs = _outputs(config)
        except UserError as error:
            problems.append(str(error))
        try:
            leave_out = outputs.folder if outputs else None
            source = open_source(config.mode, config.sources or "0", report, config.recursive, leave_out)
            stack.enter_context(source)
            _refuse_overwriting(source, outputs)
        except UserError as error:
            problems.append(str(error))
        if problems or ckpt is None or source is None:
            raise UserError("\n".join(problems))
        if outputs is not None:
            make_folder(outputs.folder)
            stack.enter_context(OutputLock(outputs))
            if outputs.video is not None and outputs.video.suffix.lower() in LOST_WHEN_KILLED:
                report(
                    f"{outputs.video} plays only if this run ends in order; a .mkv survives a kill or a power cut, too"
                )
        probe = stack.enter_context(WindowProbe()) if _window_is_wanted(config) else None
        new_analyzer, classes, _ = _load(config, ckpt, messages)
        analyzer = new_analyzer()
        window = None
        if probe is not None and probe.works():
            window = stack.enter_context(Window(f"{source.name} - fer"))
        elif probe is not None and (config.mode != "image" or config.window is True):
            report("There is no display to open a window on; going on without." + _remedy(config))
        stack.enter_context(_terminate_as_interrupt())
        if isinstance(source, PictureFiles):
            watch_pictures(source, analyzer, classes, outputs, window, results, messages)
        else:
            watch_video(source, analyzer, classes, outputs, window, results, messages)


def find_checkpoint(ckpt: str | None) -> Path:
    """The checkpoint to use: the named one, else that of the package, else the newest run's best one.

    `ckpt` names a file, a run's folder, or or a network of the package, whose default has all 7 classes.

    Raises:
        UserError: there is none.
    """
    if ckpt is not None:
        path = weights.resolve(ckpt)
        best = path / "checkpoints" / "best.ckpt"
        if path.is_dir() and best.is_file():
            return best
        if not path.is_file():
            raise UserError(
                f"ckpt={ckpt} does not exist; give a .ckpt file, the folder of a run under {RUNS}/, or one of "
                f"{', '.join(weights.names())}"
            )
        return path
    packaged = weights.packaged(weights.DEFAULT)
    trained = sorted(RUNS.glob("**/best.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
    if packaged is None and not trained:
        raise UserError(
            f"there is no trained network, neither with the package nor under {RUNS}/: train one with "
            "`python train.py` (or, for a trial, `python train.py data=synthetic`), or give ckpt="
        )
    return packaged or trained[0]


def watch_pictures(
    source: PictureFiles,
    analyzer: Analyzer,
    classes: Sequence[str],
    outputs: Outputs | None,
    window: Window | None,
    results: Console,
    messages: Console,
) -> None:
    """Goes through picture files; prints what is in them where nothing is written.

    Raises:
        UserError: not one picture can be read, or a result cannot be written.
    """
    counts = dict.fromkeys(classes, 0)
    seen = empty = 0
    with ExitStack() as stack:
        log = stack.enter_context(PredictionLog(outputs.predictions, classes)) if outputs else None
        screen = stack.enter_context(Screen(window, outputs, source)) if window else None
        progress = stack.enter_context(_progress(messages, hidden=source.length == 1))
        task = progress.add_task(source.name, total=source.length)
        for frame in source:
            predictions = analyzer(frame.image, None)
            seen += 1
            empty += not predictions
            for prediction in predictions:
                counts[prediction.label] += 1
            if log is not None and outputs is not None:
                log.write(frame.source, frame.index, None, predictions)
                path = outputs.picture or picture_output(outputs.folder, Path(frame.source), source.root)
                write_picture(path, annotate(frame.image, predictions))
            else:
                text = ", ".join(_in_words(prediction) for prediction in predictions) or "no face"
                results.print(f"{frame.source}: {text}", markup=False, highlight=False, soft_wrap=True)
            progress.update(task, completed=frame.index + 1)
            if screen is not None and not screen.show_and_wait(frame, annotate(frame.image, predictions)):
                break
    if source.length > 1 or outputs:
        _print_counts(results, counts, seen, empty, source.broken)
    if log is not None and outputs is not None:
        _print_places(messages, [outputs.picture or outputs.folder, log.path])


def watch_video(
    source: VideoFile | LiveStream,
    analyzer: Analyzer,
    classes: Sequence[str],
    outputs: Outputs | None,
    window: Window | None,
    results: Console,
    messages: Console,
) -> None:
    """Watches a video to its end, or a camera until the user ends it; then prints how long each emotion was seen.

    Ctrl-C ends a camera as "q" does; of a file it leaves half, and is passed on.

    Raises:
        UserError: the source ended before its time (what was written is whole), or a result cannot be written.
    """
    timeline = Timeline(classes, source.fps)
    figures = Figures()
    ended: SourceEnded | None = None
    log: PredictionLog | None = None
    video: VideoSink | None = None
    frames = 0
    try:
        with ExitStack() as stack:
            if outputs is not None and outputs.video is not None:
                log = stack.enter_context(PredictionLog(outputs.predictions, classes))
                video = stack.enter_context(VideoSink(outputs.video, source.fps))
            screen = stack.enter_context(Screen(window, outputs, source, pace=video is None)) if window else None
            progress = stack.enter_context(_progress(messages))
            task = progress.add_task(source.name, total=source.length)
            analyzed = stack.enter_context(closing(watch(source, analyzer)))
            try:
                for frame, predictions in analyzed:
                    if frame is None:
                        if screen is not None and not screen.idle():
                            break
                        continue
                    assert frame.time is not None
                    timeline.add(frame.time, predictions)
                    start = time.monotonic()
                    drawn = annotate(frame.image, predictions) if video or screen else frame.image
                    figures.update(frame, {**analyzer.timings, "draw": 1000 * (time.monotonic() - start)})
                    if video is not None and log is not None:
                        video.write(drawn, frame.time if source.live else frame.index / source.fps)
                        log.write(frame.source, frame.index, frame.time, predictions)
                    frames += 1
                    progress.update(task, completed=frames, description=_line(source, figures, predictions))
                    if screen is not None and not screen.show(frame, drawn, figures):
                        break
            except SourceEnded as error:
                ended = error
            except KeyboardInterrupt:
                if not source.live:
                    raise
        if frames:
            results.print(f"{source.name}: {frames} frames", markup=False, highlight=False, soft_wrap=True)
            results.print(timeline.table())
        if frames and outputs is not None and outputs.timeline is not None and outputs.summary is not None:
            write_file(outputs.summary, timeline.to_csv().encode())
            write_file(outputs.timeline, timeline.to_png())
    finally:
        if log is not None and video is not None and outputs is not None:
            _print_places(messages, [video.path, log.path, outputs.timeline, outputs.summary])
    if ended is not None:
        raise ended


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
            self.fps = 1 / self._interval
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
        pace: whether a video file is shown at its own speed rather than as fast as possible.
    """

    def __init__(self, window: Window, outputs: Outputs | None, source: Source, pace: bool = False) -> None:
        self._window = window
        self._folder = outputs.folder if outputs else SNAPSHOTS
        self._source = source
        self._pace = pace and not source.live
        self._clock: float | None = None  # what monotonic time the video's zero has
        self._recording: VideoSink | None = None
        self._help = False
        self._message: tuple[str, float] = ("", 0.0)  # and until when it stays
        self._shown: tuple[Frame, BGRImage, list[str]] | None = None
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.__exit__(*error)  # type: ignore[arg-type]

    def show(self, frame: Frame, drawn: BGRImage, figures: Figures) -> bool:
        """Shows a video's annotated frame and does what the keys ask for; False when the user wants to end."""
        self._shown = (frame, drawn, figures.lines())
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
        self._shown = (frame, drawn, [])
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
        _, drawn, figures = self._shown
        canvas = drawn.copy()
        if figures:
            draw_status(canvas, figures, recording=self._recording is not None)
        news = self._message[0] if time.monotonic() < self._message[1] else ""
        lines = HELP if self._help else [line for line in (message, news) if line]
        if lines:
            draw_message(canvas, lines)
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
        frame, drawn, _ = self._shown
        path = self._folder / f"snapshot_{_timestamp()}_{frame.index}.png"
        write_picture(path, drawn)
        self._message = (f"saved {path}", time.monotonic() + _MESSAGE_SECONDS)

    def _toggle_recording(self) -> None:
        if self._source.fps is None:  # pictures
            return
        if self._recording is None:
            make_folder(self._folder)
            path = self._folder / f"recording_{_timestamp()}.mkv"
            self._recording = self._closing.enter_context(VideoSink(path, self._source.fps))
            self._message = ("recording", time.monotonic() + _MESSAGE_SECONDS)
        else:
            self._closing.close()
            self._message = (f"saved {self._recording.path}", time.monotonic() + _MESSAGE_SECONDS)
            self._recording = None


def _outputs(config: InferSettings) -> Outputs | None:
    assert config.mode is not None
    if config.output is None:
        return None
    source = (config.sources or ["0"])[0]
    name = "camera" if config.mode == "webcam" else "stream" if "://" in source else Path(source).stem
    return plan_outputs(config.output, config.mode, name, config.format)


def _refuse_overwriting(source: Source, outputs: Outputs | None) -> None:
    if outputs is None or isinstance(source, LiveStream):
        return
    if isinstance(source, VideoFile):
        pairs = [(outputs.video, Path(source.name).expanduser())]
    else:
        if outputs.picture is not None and source.length > 1:
            raise UserError(f"output={outputs.picture} is one picture, and there are {source.length}; name a folder")
        pairs = [(outputs.picture or picture_output(outputs.folder, path, source.root), path) for path in source.paths]
    for target, original in pairs:
        if target is not None and target.exists() and original.exists() and target.samefile(original):
            raise UserError(f"output= would write over {original} itself; choose another folder")


def _window_is_wanted(config: InferSettings) -> bool:
    if config.window == "auto":
        return config.mode != "image" or config.output is None
    return bool(config.window)


def _remedy(config: InferSettings) -> str:
    keep = "" if config.output else " Give output= to keep what is seen; here it is only printed."
    return keep + (" mode=browser shows the camera in a page." if config.mode == "webcam" else "")


def _serve(config: InferSettings, messages: Console, report: Callable[[str], None]) -> None:
    from fer.inference.browser import Server  # aiohttp takes a while to import

    with Server(config.host, config.port, config.names, config.cert, config.key) as server:
        if not server.is_local:
            camera = (
                "" if config.cert else "; it has no camera elsewhere than on localhost: cert= and key= make it https"
            )
            report(f"host={config.host}: whoever reaches this computer and has the token can use the page{camera}")
        ckpt = find_checkpoint(config.ckpt)
        choose_runtime(ckpt, config.runtime, config.device)
        new_analyzer, classes, min_confidence = _load(config, ckpt, messages)
        server.run(new_analyzer, classes, min_confidence)


def _load(
    config: InferSettings, ckpt: Path, messages: Console
) -> tuple[Callable[[], FaceAnalyzer], tuple[str, ...], float]:
    """What makes analyzers, which share the network and the detector; the classes; the minimal confidence."""
    detector = create_detector(**config.detector.model_dump())
    # The first to need torch, which takes seconds to import.
    predictor = Predictor.load(ckpt, config.threads, config.runtime, detector, config.device)
    classes = predictor.classes
    min_confidence = minimum_confidence(config.min_confidence, predictor.thresholds)
    messages.print(f"Checkpoint {ckpt}: {', '.join(classes)}", markup=False, highlight=False, soft_wrap=True)

    def new_analyzer() -> FaceAnalyzer:
        return FaceAnalyzer(predictor, detector, config.detect_every, config.smoothing, min_confidence)

    return new_analyzer, classes, min_confidence


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Lets `kill`, `docker stop` and a closed terminal end the run as Ctrl-C does: with everything written whole."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # nohup has a process ignore that its terminal is closed; it shall go on doing so.
    hangup = [signal.SIGHUP] if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, *hangup)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _progress(console: Console, hidden: bool = False) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=hidden or not console.is_terminal,
        transient=True,
    )


def _line(source: Source, figures: Figures, predictions: Sequence[Prediction]) -> str:
    faces = ", ".join(_in_words(prediction) for prediction in predictions[:3])
    return f"{Path(source.name).name} {figures.fps:.0f} fps {faces}"


def _in_words(prediction: Prediction) -> str:
    track = "" if prediction.track is None else f"#{prediction.track} "
    doubt = f"turned by {prediction.turned} degrees, " if prediction.turned else ""
    doubt += "uncertain, " if prediction.uncertain else ""
    return f"{track}{doubt}{prediction.label} {prediction.confidence:.0%}"


def _print_counts(console: Console, counts: Mapping[str, int], seen: int, empty: int, broken: int) -> None:
    left_out = f", {broken} could not be read" if broken else ""
    console.print(f"{seen} pictures, {sum(counts.values())} faces, {empty} without a face{left_out}", highlight=False)
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for name in counts:
        table.add_column(name, justify="right")
    table.add_row(*map(str, counts.values()))
    console.print(table)


def _print_places(console: Console, paths: Sequence[Path | None]) -> None:
    there = [str(path) for path in paths if path is not None and path.exists()]
    if there:
        console.print(f"Written: {', '.join(there)}", markup=False, highlight=False, soft_wrap=True)


def _timestamp() -> str:
    return datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


def _mixed(old: float, new: float) -> float:
    return new if old == 0 else (1 - _SMOOTHING) * old + _SMOOTHING * new
