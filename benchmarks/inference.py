"""How fast and how steady infer.py is: frames per second, milliseconds per stage, start, memory, age of live frames.

    python benchmarks/inference.py                          all of it, with a minute of video for the memory
    python benchmarks/inference.py speed                    one part: speed, threads, start, browser, memory or age
    python benchmarks/inference.py memory --minutes 10

Speed is measured end to end, as `mode=video output=...` runs: from a file through decoding, detection, network and
drawing to an encoded video and JSON lines, without the first 20 frames. Detection counts where it is done: every other
frame, unless a face is new. "CPU ms" is the time that all threads together worked per frame: unlike the others it says
the same on a busy machine. The faces of the clip are cut from photographs in FER_SHARED/media (else ../shared/media),
laid out in a grid and moved about; speed and start are skipped where there are none. Every combination is a fresh
process. The browser's round trip is that of `mode=browser`: a JPEG of 640x480 sent over the WebSocket until its answer
is there, one at a time, as the page does. Age compares a loop over `cv2.VideoCapture` with `LiveStream`, both on a
simulated camera of 30 frames per second whose driver queues four pictures, with 80 ms of work per frame.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import cv2
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from fer.inference.detectors import Haar
from fer.inference.pictures import read_picture
from fer.inference.run import find_checkpoint
from fer.inference.sources import Frame, LiveStream, VideoFile, open_source

ROOT = Path(__file__).parents[1]
MEDIA = Path(os.environ.get("FER_SHARED", ROOT.parent / "shared")) / "media"
GRIDS = {1: (1, 1), 4: (2, 2), 16: (4, 4)}  # faces: columns, rows
SIZES = ((640, 480), (1280, 720))
PARTS = ("speed", "threads", "start", "browser", "memory", "age")
WORK = 0.08  # seconds per frame in the measurement of age
console = Console(width=118)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["all", *PARTS], default="all")
    parser.add_argument("--ckpt", help="as ckpt= of infer.py")
    parser.add_argument("--detectors", nargs="+", default=["yunet", "haar"])
    parser.add_argument("--frames", type=int, default=200, help="of each clip")
    parser.add_argument("--minutes", type=float, default=1.0, help="of video at 30 frames per second, for the memory")
    parser.add_argument("--job", help=argparse.SUPPRESS)  # JSON: what a process of its own measures
    options = parser.parse_args()
    if options.job:
        print(json.dumps(measure(json.loads(options.job))))
        return
    console.print(f"{os.cpu_count()} cores; other programs kept {os.getloadavg()[0]:.1f} of them busy before")
    wanted = PARTS if options.part == "all" else (options.part,)
    if "age" in wanted:
        report_age()
    if wanted == ("age",):
        return
    options.ckpt = str(find_checkpoint(options.ckpt))
    console.print(f"Checkpoint {options.ckpt}", highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        if "start" in wanted:
            report_start(options, Path(folder))
        if "browser" in wanted:
            report_browser(options)
        if "speed" in wanted:
            report_speed(options, Path(folder))
        if "threads" in wanted:
            report_threads(options)
        if "memory" in wanted:
            report_memory(options, Path(folder))


# --- the parts --------------------------------------------------------------------------------------------------------


def report_speed(options: argparse.Namespace, folder: Path) -> None:
    portraits = load_portraits()
    if not portraits:
        console.print(f"Speed: skipped, there are no photographs in {MEDIA}")
        return
    table = Table(title="End to end; milliseconds are p50/p95", box=box.SIMPLE_HEAD, padding=0)
    for name in ("detector", "size", "faces", "found", "frames/s", "CPU ms", *STAGES, "peak MB"):
        table.add_column(name, justify="right")
    for detector in options.detectors:
        for size in SIZES:
            for count in GRIDS:
                clip = folder / f"{size[0]}_{count}.mp4"
                if not clip.exists():
                    write_clip(clip, portraits, size, count, options.frames)
                job = run_job(options, {"clip": str(clip), "detector": detector, "output": str(folder / "out")})
                cells = ["/".join(f"{value:.1f}" for value in job["stages"][name]) for name in STAGES]
                shown = [detector, f"{size[0]}x{size[1]}", str(count), f"{job['found']:g}", f"{job['fps']:.0f}"]
                shown.append(f"{job['cpu']:.1f}")
                table.add_row(*shown, *cells, f"{job['peak']:.0f}")
    console.print(table)


def report_start(options: argparse.Namespace, folder: Path) -> None:
    portraits = load_portraits()
    if not portraits:
        console.print(f"Start: skipped, there are no photographs in {MEDIA}")
        return
    cv2.imwrite(str(folder / "photo.png"), next(draw_frames(portraits, (640, 480), 1, 1)))
    command = ["infer.py", "mode=image", f"source={folder / 'photo.png'}", f"ckpt={options.ckpt}", "window=false"]
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        with subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=-3) as process:
            assert process.stdout is not None
            assert process.stdout.readline(), "infer.py printed nothing"
            seconds.append(time.perf_counter() - start)
            process.stdout.read()
    first, *others = seconds
    console.print(
        f"From the command to the first prediction: {first:.2f} s the first time, then {min(others):.2f} s at best and "
        f"{np.median(others):.2f} s in the median of {len(others)}"
    )


def report_browser(options: argparse.Namespace) -> None:
    portraits = load_portraits()
    if not portraits:
        console.print(f"Browser: skipped, there are no photographs in {MEDIA}")
        return
    for count in (1, 4):
        jpegs = [cv2.imencode(".jpg", frame)[1].tobytes() for frame in draw_frames(portraits, (640, 480), count, 120)]
        command = ["infer.py", "mode=browser", "port=0", f"ckpt={options.ckpt}"]
        with subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            address = next(line.split()[1] for line in process.stdout if line.startswith("Open "))
            try:
                trips, answers = asyncio.run(talk(address.replace("/?", "/ws?"), jpegs))
            finally:
                process.terminate()
        median, late = np.percentile(trips[20:], (50, 95))
        parts = {
            name: np.median([answer["milliseconds"][name] for answer in answers]) for name in ("detect", "network")
        }
        found = np.median([len(answer["faces"]) for answer in answers])
        console.print(
            f"Browser, {found:g} of {count} faces: round trip {median:.0f} ms in the median, {late:.0f} ms p95; of the "
            f"median {parts['detect']:.0f} ms detector, {parts['network']:.0f} ms network"
        )


async def talk(address: str, jpegs: list[bytes]) -> tuple[list[float], list[dict[str, Any]]]:
    """Milliseconds from each picture to its answer, and the answers."""
    trips, answers = [], []
    async with aiohttp.ClientSession() as session, session.ws_connect(address) as socket:
        for jpeg in jpegs:
            start = time.perf_counter()
            await socket.send_bytes(jpeg)
            answers.append(await socket.receive_json())
            trips.append(1000 * (time.perf_counter() - start))
    return trips, answers


def report_threads(options: argparse.Namespace) -> None:
    """64 pictures through one `Predictor`, by one thread and by eight, in turns."""
    from fer.inference.predictor import Predictor

    portraits = load_portraits()
    if not portraits:
        console.print(f"Threads: skipped, there are no photographs in {MEDIA}")
        return
    pictures = list(draw_frames(portraits, (640, 480), 4, 64))
    for detector in options.detectors:
        predictor = Predictor.load(options.ckpt, detector=detector)
        predictor(pictures[0])
        seconds: dict[int, list[float]] = {1: [], 8: []}
        for _ in range(3):
            for count, times in seconds.items():
                with ThreadPoolExecutor(count) as pool:
                    start = time.perf_counter()
                    list(pool.map(predictor, pictures))
                    times.append(time.perf_counter() - start)
        one, eight = (float(np.median(times)) for times in seconds.values())
        console.print(
            f"Threads, {detector}: {len(pictures)} pictures in {one:.2f} s by one and in {eight:.2f} s by eight, "
            f"{eight / one:.2f} times as long (at most 1.1 wanted)"
        )


def report_memory(options: argparse.Namespace, folder: Path) -> None:
    portraits = load_portraits() or [np.full((64, 64, 3), 128, np.uint8)]
    write_clip(folder / "long.mp4", portraits, (640, 480), 4, 300)
    repeats = max(1, round(options.minutes * 60 * 30 / 300))
    job = run_job(
        options, {"clip": str(folder / "long.mp4"), "detector": "auto", "output": str(folder), "repeats": repeats}
    )
    tenths = [f"{np.median(part):.0f}" for part in np.array_split(job["memory"], 10)]
    console.print(
        f"Memory over {300 * repeats} frames ({10 * repeats / 60:.1f} minutes of video), MB in each tenth of them: "
        f"{', '.join(tenths)}; peak {job['peak']:.0f}; {job['fps']:.0f} frames/s"
    )


def report_age() -> None:
    naive: list[float] = []
    ours: list[float] = []
    camera = SimulatedCamera()
    while len(naive) < 60:
        camera.grab()
        naive.append(time.monotonic() - camera.taken_at)
        time.sleep(WORK)
    camera = SimulatedCamera()
    taken: dict[float, float] = {}
    camera.remember = taken
    with LiveStream(camera, "camera", None, console.print) as source:
        for frame in source:
            if frame is None:
                continue
            ours.append(time.monotonic() - taken[float(frame.image[0, 0, 0])])
            time.sleep(WORK)
            if len(ours) == 60:
                break
    a, b = (1000 * np.percentile(ages[10:], (50, 95)) for ages in (naive, ours))
    console.print(
        f"Age of a live frame when its work begins, p50 / p95: {a[0]:.0f} / {a[1]:.0f} ms in the usual loop, "
        f"{b[0]:.0f} / {b[1]:.0f} ms here"
    )


# --- in a process of its own ------------------------------------------------------------------------------------------

STAGES = ("read", "detect", "crop", "classify", "draw", "write")


def run_job(options: argparse.Namespace, job: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--job", json.dumps({**job, "ckpt": options.ckpt})]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Runs the real loop with a clock around each of its parts."""
    from fer.inference import run
    from fer.inference.overlay import Annotator
    from fer.inference.sinks import VideoSink, plan_outputs
    from fer.settings.infer import DetectorSettings, InferSettings

    config = InferSettings(mode="video", detector=DetectorSettings(name=job["detector"]))
    quiet = Console(file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    new_analyzer, classes = run._load(config, Path(job["ckpt"]), quiet)
    analyzer = new_analyzer()
    source = Repeated(job["clip"], job.get("repeats", 1))
    times: dict[str, list[float]] = {name: [] for name in STAGES}
    memory, found, moments = [], [], []

    def timed(name: str, function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments)
            times[name].append(1000 * (time.perf_counter() - start))
            return result

        return call

    class TimedAnalyzer:
        timings: dict[str, float] = {}
        __call__ = analyzer.__call__
        find = analyzer.find

        def classify(self, sighting: Any) -> Any:
            return analyze(analyzer.classify(sighting))

    def analyze(predictions: Any) -> Any:
        for name, milliseconds in analyzer.timings.items():
            times[name].append(milliseconds)
        found.append(len(predictions))
        moments.append((time.perf_counter(), time.process_time()))
        if len(found) % 50 == 0:
            memory.append(resident_megabytes())
        return predictions

    class TimedVideo(VideoSink):
        write = timed("write", VideoSink.write)

    class TimedAnnotator(Annotator):
        __call__ = timed("draw", Annotator.__call__)

    run.Annotator = TimedAnnotator  # type: ignore[attr-defined]
    run.VideoSink = TimedVideo  # type: ignore[attr-defined]
    outputs = plan_outputs(job["output"], "video", "benchmark", "jsonl")
    outputs.folder.mkdir(exist_ok=True)
    run.watch_video(source, TimedAnalyzer(), classes, outputs, None, quiet, quiet)
    times["read"] = source.reading
    return {
        "fps": (len(moments) - 21) / (moments[-1][0] - moments[20][0]),
        "cpu": 1000 * (moments[-1][1] - moments[20][1]) / (len(moments) - 21),
        "found": float(np.median(found)),
        "stages": {
            name: list(np.percentile([value for value in values[20:] if value], (50, 95)))
            for name, values in times.items()
        },
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "memory": memory or [resident_megabytes()],
    }


class Repeated(VideoFile):
    """A video file that is played several times as one long one."""

    def __init__(self, path: str, repeats: int) -> None:
        self._path, self._repeats = path, repeats
        first = open_source("video", path, print)
        self.name, self.fps, self.length = path, first.fps or 30.0, None
        self.reading: list[float] = []

    def __iter__(self) -> Iterator[Frame]:
        count = 0
        for _ in range(self._repeats):
            with open_source("video", self._path, print) as source:
                frames = iter(source)
                while True:
                    start = time.perf_counter()
                    frame = next(frames, None)
                    if frame is None:
                        break
                    self.reading.append(1000 * (time.perf_counter() - start))
                    yield Frame(frame.image, count, count / self.fps, self.name, frame.captured_at)
                    count += 1


def resident_megabytes() -> float:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


# --- what is looked at ------------------------------------------------------------------------------------------------


def load_portraits() -> list[np.ndarray]:
    """Squares of twice the size of the face in them."""
    portraits = []
    for path in sorted(MEDIA.glob("human_stock-emotions-a-*.jpg")):
        picture = read_picture(path)
        faces = Haar()(picture)
        if len(faces) == 1:
            x, y, w, h = (round(side) for side in faces[0].box)
            padded = cv2.copyMakeBorder(picture, h, h, w, w, cv2.BORDER_REPLICATE)
            portraits.append(padded[y + h // 2 : y + 5 * h // 2, x + w // 2 : x + 5 * w // 2])
    return portraits


def draw_frames(portraits: list[np.ndarray], size: tuple[int, int], count: int, frames: int) -> Iterator[np.ndarray]:
    """`count` portraits in a grid on gray, each on a small circle of its own."""
    columns, rows = GRIDS[count]
    width, height = size[0] // columns, size[1] // rows
    side = round(0.85 * min(width, height))
    scaled = [cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA) for picture in portraits]
    for number in range(frames):
        frame = np.full((size[1], size[0], 3), 110, np.uint8)
        for index in range(count):
            angle = number / 12 + index
            left = (index % columns) * width + round((width - side) / 2 * (1 + 0.8 * np.cos(angle)))
            top = (index // columns) * height + round((height - side) / 2 * (1 + 0.8 * np.sin(angle)))
            frame[top : top + side, left : left + side] = scaled[index % len(scaled)]
        yield frame


def write_clip(path: Path, portraits: list[np.ndarray], size: tuple[int, int], count: int, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 30, size)
    for frame in draw_frames(portraits, size, count, frames):
        writer.write(frame)
    writer.release()


class SimulatedCamera:
    """30 frames per second; its driver, like V4L2's, queues four pictures and drops the newest when that is full."""

    PERIOD, QUEUE = 1 / 30, 4

    def __init__(self) -> None:
        self._start, self._delivered = time.monotonic(), 0
        self._queue: list[float] = []
        self.taken_at = 0.0
        self.remember: dict[float, float] = {}
        self._number = 0

    def _run_sensor(self) -> None:
        while self._start + self._delivered * self.PERIOD <= time.monotonic():
            if len(self._queue) < self.QUEUE:
                self._queue.append(self._start + self._delivered * self.PERIOD)
            self._delivered += 1

    def grab(self) -> bool:
        self._run_sensor()
        while not self._queue:
            time.sleep(max(0.0, self._start + self._delivered * self.PERIOD - time.monotonic()))
            self._run_sensor()
        self.taken_at = self._queue.pop(0)
        return True

    def retrieve(self) -> tuple[bool, np.ndarray]:
        self._number += 1
        self.remember[float(self._number % 200)] = self.taken_at
        return True, np.full((480, 640, 3), self._number % 200, np.uint8)

    def get(self, property_id: int, /) -> float:
        return 30.0

    def release(self) -> None:
        pass


if __name__ == "__main__":
    main()
