"""The run loop of infer.py: frames from a source through the analyzer to the screen, to files and to the terminal.

Knows every part of inference, but neither torch nor Hydra: the network is behind `FaceAnalyzer`.
"""

import re
import shlex
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import cache, partial
from pathlib import Path
from types import FrameType

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fer import weights
from fer.errors import UserError
from fer.files import at_home, is_file, printable
from fer.inference.analyzer import Analyzer, FaceAnalyzer, watch
from fer.inference.confidence import minimum_confidence
from fer.inference.detectors import create_detector
from fer.inference.h264 import has_h264
from fer.inference.overlay import Annotator, annotate, mirrored
from fer.inference.prediction import Prediction
from fer.inference.predictor import Predictor, foreign_spec
from fer.inference.runtimes import choose_runtime
from fer.inference.screen import Figures, Screen
from fer.inference.sinks import (
    LOST_WHEN_KILLED,
    Outputs,
    PredictionLog,
    VideoSink,
    make_folder,
    output_lock,
    picture_output,
    plan_outputs,
    write_file,
    write_picture,
)
from fer.inference.sources import LiveStream, PictureFiles, Source, SourceEnded, VideoFile, open_source
from fer.inference.timeline import Timeline
from fer.inference.window import Window, WindowProbe
from fer.settings.infer import InferSettings

RUNS = Path("outputs")


def run(config: InferSettings) -> None:
    """Does what `python infer.py` was asked for.

    Raises:
        UserError: a mistake in the settings or the surroundings; several, found together, in a line each.
    """
    messages = Console(stderr=True)
    results = Console()
    report = partial(say, messages, style="yellow")
    warnings.filterwarnings("ignore", module="PIL")  # of large pictures, which are welcome, and of odd metadata
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
            if config.part is not None:
                if not isinstance(source, PictureFiles):
                    raise UserError(f"shard={config.shard} divides pictures, and {source.name} is none")
                source = source.part(*config.part)
        except UserError as error:
            problems.append(str(error))
        if problems or ckpt is None or source is None:
            raise UserError("\n".join(problems))
        probe = stack.enter_context(WindowProbe()) if _window_is_wanted(config) else None
        new_analyzer, classes = _load(config, ckpt, messages)
        analyzer = new_analyzer()
        if outputs is not None:
            make_folder(outputs.folder)
            stack.enter_context(output_lock(outputs))
            if outputs.video is not None and outputs.video.suffix.lower() in LOST_WHEN_KILLED and not has_h264():
                report(
                    f"{outputs.video} plays only if this run ends in order; a .mkv survives a kill or a power cut, too"
                )
        window = None
        if probe is not None and probe.works():
            window = stack.enter_context(Window(f"{source.name} - fer"))
        elif probe is not None and (config.mode != "image" or config.window is True):
            report(f"{probe.missing}; going on without.{_remedy(config)}")
        stack.enter_context(_terminate_as_interrupt())
        if isinstance(source, PictureFiles):
            number, count = config.part or (1, 1)
            watch_pictures(source, analyzer, classes, outputs, window, results, messages, header=number == 1)
            if outputs is not None and count > 1:
                folder = shlex.quote(str(outputs.folder))
                parts = re.sub(r"-\d+-of-", "-*-of-", outputs.predictions.name)
                say(messages, f"When all are there: cat {folder}/{parts} > {folder}/predictions.{config.format}")
        else:
            mirrors = _mirrors(config, source)
            watch_video(source, analyzer, classes, outputs, window, results, messages, mirrors)


def find_checkpoint(ckpt: str | None) -> Path:
    """The checkpoint to use: that of the package with all 7 classes, or the named one.

    `ckpt` names a file, a run's folder, or a network of the package.

    Raises:
        UserError: there is none.
    """
    path = weights.FOLDER / f"{weights.DEFAULT}.ckpt" if ckpt is None else weights.resolve(ckpt)
    best = path / "checkpoints" / "best.ckpt"
    if is_file(best):
        return best
    if not is_file(path):
        raise UserError(
            f"ckpt={ckpt or path} does not exist; give a .ckpt file, the folder of a run under {RUNS}/, or one of "
            f"{', '.join(weights.names())}"
        )
    return path


def watch_pictures(
    source: PictureFiles,
    analyzer: Analyzer,
    classes: Sequence[str],
    outputs: Outputs | None,
    window: Window | None,
    results: Console,
    messages: Console,
    header: bool = True,
) -> None:
    """Goes through picture files; prints what is in them where nothing is written.

    Of a divided table the first part only has the `header`, so that the parts make a whole one after another.

    Raises:
        UserError: not one picture can be read, or a result cannot be written.
    """
    counts = dict.fromkeys(classes, 0)
    seen = empty = 0
    with ExitStack() as stack:
        log = stack.enter_context(PredictionLog(outputs.predictions, classes, header)) if outputs else None
        screen = stack.enter_context(Screen(window, outputs, source, partial(say, messages))) if window else None
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
                say(results, f"{frame.source}: {text}")
            progress.update(task, completed=frame.index - source.first + 1)
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
    mirrors: bool = False,
) -> None:
    """Watches a video to its end, or a camera until the user ends it; then prints how long each emotion was seen.

    Ctrl-C ends a camera as "q" does; of a file it leaves half, and is passed on. With `mirrors` the window shows what
    a mirror would; files never do.

    Raises:
        UserError: the source ended before its time (what was written is whole), or a result cannot be written.
    """
    timeline = Timeline(classes, source.fps, Path(source.name).name)
    figures = Figures()
    annotator, in_mirror = Annotator(), Annotator()
    ended: SourceEnded | None = None
    log: PredictionLog | None = None
    video: VideoSink | None = None
    frames = 0
    try:
        with ExitStack() as stack:
            if outputs is not None and outputs.video is not None:
                log = stack.enter_context(PredictionLog(outputs.predictions, classes))
                video = stack.enter_context(VideoSink(outputs.video, source.fps))
            screen = None
            if window is not None:
                told = partial(say, messages)
                screen = stack.enter_context(Screen(window, outputs, source, told, pace=video is None))
            progress = stack.enter_context(_progress(messages, endless=source.length is None))
            task = progress.add_task(source.name, total=source.length)
            analyzed = stack.enter_context(closing(watch(source, analyzer)))
            try:
                for frame, predictions in analyzed:
                    if frame is None:
                        if screen is not None and not screen.idle():
                            break
                        continue
                    assert frame.time is not None
                    timeline.add(frame.time, predictions, frame.image)
                    start = time.monotonic()
                    drawn = annotator(frame.image, predictions) if video or screen else frame.image
                    seen = in_mirror(*mirrored(frame.image, predictions)) if screen and mirrors else None
                    figures.update(frame, {**analyzer.timings, "draw": 1000 * (time.monotonic() - start)})
                    if video is not None and log is not None:
                        video.write(drawn, frame.time if source.live else frame.index / source.fps)
                        log.write(frame.source, frame.index, frame.time, predictions)
                    frames += 1
                    progress.update(task, completed=frames, description=_line(source, figures, predictions))
                    if screen is not None and not screen.show(frame, drawn, figures, seen):
                        break
            except SourceEnded as error:
                ended = error
            except KeyboardInterrupt:
                if not source.live:
                    raise
        if frames:
            say(results, f"{source.name}: {frames} frames")
            results.print(timeline.table())
        if frames and outputs is not None and outputs.timeline is not None and outputs.summary is not None:
            write_file(outputs.summary, timeline.to_csv().encode())
            write_file(outputs.timeline, timeline.to_png())
    finally:
        if log is not None and video is not None and outputs is not None:
            _print_places(messages, [video.path, log.path, outputs.timeline, outputs.summary])
    if ended is not None:
        raise ended


def _outputs(config: InferSettings) -> Outputs | None:
    assert config.mode is not None
    if config.output is None:
        return None
    source = (config.sources or ["0"])[0]
    name = "camera" if config.mode == "webcam" else "stream" if "://" in source else Path(source).stem
    return plan_outputs(config.output, config.mode, name, config.format, config.part)


def _refuse_overwriting(source: Source, outputs: Outputs | None) -> None:
    """Of pictures `source` are all, also where this run sees a part only: the others' sources are not to be lost."""
    if outputs is None or isinstance(source, LiveStream):
        return
    if isinstance(source, VideoFile):
        sources = [at_home(source.name)]
        files = [outputs.video, outputs.predictions, outputs.timeline, outputs.summary]
        targets = [path for path in files if path is not None]
    else:
        sources = source.paths
        if outputs.picture is not None and source.length > 1:
            raise UserError(f"output={outputs.picture} is one picture, and there are {source.length}; name a folder")
        targets = [outputs.picture or picture_output(outputs.folder, path, source.root) for path in sources]
        resolved = cache(Path.resolve)
        taken: dict[Path, Path] = {}
        for target, path in zip(targets, sources, strict=True):
            place = resolved(target.parent) / target.name
            if not place.is_relative_to(resolved(outputs.folder)):
                raise UserError(f"{path} would be written to {place}, outside of output=; choose another folder")
            other = taken.setdefault(place, path)
            if other != path:
                raise UserError(f"{other} and {path} would both be written to {target}; rename one of them")
    # By identity: names may differ by links, and in capitals where the system makes no difference.
    there = [identity for target in targets if (identity := _identity(target))]
    if not there:
        return
    originals = {_identity(path): path for path in sources}
    lost = next((originals[identity] for identity in there if identity in originals), None)
    if lost is not None:
        raise UserError(f"output= would write over {lost} itself; choose another folder")


def _identity(path: Path) -> tuple[int, int] | None:
    """What two names of one file share; None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _mirrors(config: InferSettings, source: Source) -> bool:
    """Whether the window is a mirror: by itself for a camera of this computer, in which people see themselves."""
    if config.mirror == "auto":
        return isinstance(source, LiveStream) and "://" not in source.name
    return config.mirror


def _window_is_wanted(config: InferSettings) -> bool:
    if config.window == "auto":
        return config.mode != "image" or config.output is None
    return config.window


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
        server.run(*_load(config, ckpt, messages))


def _load(config: InferSettings, ckpt: Path, messages: Console) -> tuple[Callable[[], FaceAnalyzer], tuple[str, ...]]:
    """What makes analyzers, which share the network and the detector; the classes."""
    detector = create_detector(**config.detector.model_dump())
    # The first to need torch, which takes seconds to import.
    predictor = Predictor.load(
        ckpt,
        config.threads,
        config.runtime,
        detector,
        config.device,
        foreign=foreign_spec(config.model, config.classes),
    )
    classes = predictor.classes
    min_confidence = minimum_confidence(config.min_confidence, predictor.thresholds)
    say(messages, f"Checkpoint {ckpt}: {', '.join(classes)}")

    def new_analyzer() -> FaceAnalyzer:
        return FaceAnalyzer(predictor, detector, config.detect_every, config.smoothing, min_confidence)

    return new_analyzer, classes


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


def _progress(console: Console, hidden: bool = False, endless: bool = False) -> Progress:
    ends = [TextColumn("{task.completed} frames")]
    return Progress(
        TextColumn("{task.description}", markup=False),
        *(ends if endless else [BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn()]),
        console=console,
        disable=hidden or not console.is_terminal,
        transient=True,
    )


def say(console: Console, text: str, style: str | None = None) -> None:
    """Prints a sentence as it is: a path in it may look like markup."""
    console.print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)


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
    say(console, f"{seen} pictures, {sum(counts.values())} faces, {empty} without a face{left_out}")
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for name in counts:
        table.add_column(name, justify="right")
    table.add_row(*map(str, counts.values()))
    console.print(table)


def _print_places(console: Console, paths: Sequence[Path | None]) -> None:
    there = [str(path) for path in paths if path is not None and path.exists()]
    if there:
        say(console, f"Written: {', '.join(there)}")
