"""What is written: every line whole, every video playable, and nothing half-written in the place of something whole."""

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import pytest

from fer.errors import UserError
from fer.inference import sinks
from fer.inference.prediction import Prediction
from fer.inference.sinks import (
    Outputs,
    PredictionLog,
    VideoSink,
    make_folder,
    output_lock,
    picture_output,
    plan_outputs,
    write_picture,
)

ROOT = Path(__file__).parents[2]
CLASSES = ("happy", "sad")
FACE = Prediction(
    "happy", 0.75, {"happy": 0.6, "sad": 0.4}, (1.04, -2, 30, 30), 3, 0.9, smoothed={"happy": 0.75, "sad": 0.25}
)
CROP = Prediction("sad", 0.8, {"happy": 0.2, "sad": 0.8})


@pytest.fixture(autouse=True)
def without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    """What OpenCV writes; test_h264.py is about the other."""
    monkeypatch.setattr(sinks, "has_h264", lambda: False)


@pytest.fixture
def small_files():
    """A file system that takes no file over 20 kB: a write fails in the middle, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def frames_in(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    frames: list[np.ndarray] = []
    while True:
        read, image = capture.read()
        if not read:
            return frames
        frames.append(image)


def gray(value: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.full((*size, 3), value, np.uint8)


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (120, 160, 3), np.uint8)


# --- predictions ------------------------------------------------------------------------------------------------------


def test_a_json_line_per_face_and_frame(tmp_path):
    with PredictionLog(tmp_path / "a.jsonl", CLASSES) as log:
        log.write("ü.mp4", 7, 0.23333333, [FACE, CROP])
        log.write("ü.mp4", 8, 0.26666666, [])
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines == [
        {
            "source": "ü.mp4",
            "frame": 7,
            "time": 0.2333,
            "track": 3,
            "box": [1.0, -2.0, 30.0, 30.0],
            "score": 0.9,
            "emotion": "happy",
            "confidence": 0.75,
            "probabilities": {"happy": 0.6, "sad": 0.4},
            "smoothed": {"happy": 0.75, "sad": 0.25},
        },
        {
            "source": "ü.mp4",
            "frame": 7,
            "time": 0.2333,
            "track": None,
            "box": None,
            "score": None,
            "emotion": "sad",
            "confidence": 0.8,
            "probabilities": {"happy": 0.2, "sad": 0.8},
            "smoothed": {"happy": 0.2, "sad": 0.8},
        },
    ]


def test_the_table_holds_the_same(tmp_path):
    with PredictionLog(tmp_path / "a.csv", CLASSES) as log:
        log.write("a, b.jpg", 0, None, [FACE, CROP])
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        face, crop = csv.DictReader(file)
    assert (face["source"], face["time"], face["track"], face["x"], face["emotion"]) == (
        "a, b.jpg",
        "",
        "3",
        "1.0",
        "happy",
    )
    assert (face["probability_happy"], face["smoothed_happy"]) == ("0.6", "0.75")
    assert (crop["track"], crop["w"], crop["score"], crop["smoothed_sad"]) == ("", "", "", "0.8")


def test_lines_are_on_disk_at_once(tmp_path):
    with PredictionLog(tmp_path / "a.jsonl", CLASSES) as log:
        log.write("a", 0, 0.0, [FACE])
        (partial,) = tmp_path.iterdir()
        assert partial.name.startswith("a.partial-")
        assert partial.read_text().endswith("}\n")
        assert not (tmp_path / "a.jsonl").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_failed_run_leaves_an_older_result_alone(tmp_path):
    (tmp_path / "a.jsonl").write_text("older and whole\n")

    def fail() -> None:
        log = PredictionLog(tmp_path / "a.jsonl", CLASSES)
        with log:
            log.write("a", 0, 0.0, [FACE])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (tmp_path / "a.jsonl").read_text() == "older and whole\n"
    (partial,) = tmp_path.glob("a.partial-*.jsonl")
    assert len(partial.read_text().splitlines()) == 1


def test_two_runs_share_no_partial_file_and_follow_no_link(tmp_path, monkeypatch):
    with PredictionLog(tmp_path / "a.jsonl", CLASSES) as one, PredictionLog(tmp_path / "a.jsonl", CLASSES) as other:
        one.write("one", 0, 0.0, [FACE])
        other.write("other", 0, 0.0, [FACE])
        assert len(list(tmp_path.iterdir())) == 2
    assert json.loads((tmp_path / "a.jsonl").read_text())["source"] == "one"  # which took its name last
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    monkeypatch.setattr("socket.gethostname", lambda: "../host.name")
    (tmp_path / "victim").write_text("somebody's")
    (tmp_path / f"b.partial-hostname-{os.getpid()}-guessed.jsonl").symlink_to(tmp_path / "victim")
    with pytest.raises(UserError, match=r"b\.jsonl cannot be written: File exists"):
        PredictionLog(tmp_path / "b.jsonl", CLASSES).__enter__()
    assert (tmp_path / "victim").read_text() == "somebody's"


def test_names_as_long_as_file_systems_allow(tmp_path):
    path = tmp_path / ("ü" * 124 + ".jsonl")  # 254 bytes
    with PredictionLog(path, CLASSES) as log:
        log.write("a", 0, 0.0, [FACE])
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_an_output_is_held_by_one_run(tmp_path):
    video = plan_outputs(str(tmp_path), "video", "clip", "jsonl")
    with output_lock(video):
        with pytest.raises(UserError, match="another run is writing to"):
            output_lock(plan_outputs(str(tmp_path), "video", "other", "csv")).__enter__()
        with output_lock(plan_outputs(str(tmp_path / "x.mkv"), "video", "clip", "jsonl")):
            pass  # other names in the same folder
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".predictions.lock").touch()  # of a run that was killed
    with output_lock(video):
        pass


def test_a_full_disk_leaves_whole_lines(tmp_path, small_files):
    def fill() -> None:
        with PredictionLog(tmp_path / "a.jsonl", CLASSES) as log:
            for frame in range(1000):
                log.write("a", frame, frame / 30, [FACE, FACE])

    with pytest.raises(UserError, match=r"a\.jsonl cannot be written"):
        fill()
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert 50 < len(lines) < 200
    assert (tmp_path / "a.jsonl").read_bytes().endswith(b"\n")


# --- video ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", sinks.VIDEO_OUTPUTS)
@pytest.mark.parametrize("fps", [7.0, 12.5, 30000 / 1001, 60.0])
def test_every_frame_at_the_frame_rate_of_the_source(tmp_path, suffix, fps, capfd):
    path = tmp_path / f"a{suffix}"
    with VideoSink(path, fps) as video:
        for number in range(31):
            video.write(gray(8 * number))
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(fps, abs=0.01)
    frames = frames_in(path)
    assert len(frames) == 31
    assert max(abs(frame.mean() - 8 * number) for number, frame in enumerate(frames)) < 6
    assert capfd.readouterr().err == ""


def test_odd_sizes_lose_at_most_a_line(tmp_path):
    with VideoSink(tmp_path / "a.mp4", 30) as video:
        video.write(gray(100, (49, 65)))
    assert frames_in(tmp_path / "a.mp4")[0].shape == (48, 64, 3)


def test_a_live_recording_runs_as_fast_as_the_world(tmp_path):
    with VideoSink(tmp_path / "a.mp4", 30) as video:
        for number, time in enumerate((5.0, 5.1, 5.11, 5.2, 6.0)):  # slow work, a burst, and slow again
            video.write(gray(50 * number), time)
    levels = [round(frame.mean() / 50) for frame in frames_in(tmp_path / "a.mp4")]
    assert len(levels) == 31  # one second and its last frame
    # The picture of 5.11 s came within the time of the frame of 5.1 s, and stands until 5.2 s.
    assert levels == 3 * [0] + [1] + 2 * [2] + 24 * [3] + [4]


def test_a_silent_camera_does_not_fill_the_disk(tmp_path):
    with VideoSink(tmp_path / "a.mp4", 30) as video:
        for time in (0.0, 3600.0, 3600.5):
            video.write(gray(9), time)
    assert len(frames_in(tmp_path / "a.mp4")) == 1 + 60 + 15


def test_a_stream_that_comes_back_in_another_size(tmp_path):
    with VideoSink(tmp_path / "a.mp4", 30) as video:
        video.write(gray(200, (48, 64)))
        video.write(gray(200, (200, 100)))
    second = frames_in(tmp_path / "a.mp4")[1]
    assert second.shape == (48, 64, 3)
    assert second[:, 28:36].mean() > 180
    assert second[:, :16].mean() < 20


def test_a_nearly_full_disk_ends_a_video_that_plays(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    free = 1 << 30
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(free))

    def fill() -> None:
        nonlocal free
        with VideoSink(tmp_path / "a.mp4", 30) as video:
            for number in range(30):
                free = free if number < 20 else 1 << 20
                video.write(gray(number))

    with pytest.raises(UserError, match="nearly full, so the video was closed after 20 frames"):
        fill()
    assert len(frames_in(tmp_path / "a.mp4")) == 20


def test_a_video_that_could_not_be_finished_takes_no_name(tmp_path, small_files):
    (tmp_path / "a.mp4").write_text("older and whole")

    def fill() -> None:
        with VideoSink(tmp_path / "a.mp4", 30) as video:
            for number in range(60):
                video.write(noise(number))

    with pytest.raises(UserError, match=r"a\.mp4 could not be finished"):
        fill()
    assert (tmp_path / "a.mp4").read_text() == "older and whole"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize("suffix", [suffix for suffix in sinks.VIDEO_OUTPUTS if suffix not in sinks.LOST_WHEN_KILLED])
def test_a_recording_survives_a_kill(tmp_path, suffix):
    code = f"""
import os, signal
import numpy as np
from pathlib import Path
from fer.inference import sinks
sinks.has_h264 = lambda: False
with sinks.VideoSink(Path({str(tmp_path / f"a{suffix}")!r}), 30) as video:
    rng = np.random.default_rng(0)
    for number in range(300):
        video.write(rng.integers(0, 255, (240, 320, 3), np.uint8))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == -signal.SIGKILL
    (partial,) = tmp_path.iterdir()
    assert len(frames_in(partial)) >= 270


def test_pictures_that_no_codec_takes(tmp_path):
    def write() -> None:
        with VideoSink(tmp_path / "a.mp4", 30) as video:
            video.write(gray(9, (1, 1)))

    with pytest.raises(UserError, match="at 1 x 1 pixels"):
        write()
    assert not list(tmp_path.iterdir())


# --- pictures and places ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", sinks.PICTURE_OUTPUTS)
def test_pictures_of_every_suffix(tmp_path, suffix):
    path = tmp_path / "new" / f"a{suffix.upper()}"
    write_picture(path, gray(77))
    picture = cv2.imread(str(path))
    assert picture is not None
    assert abs(picture.mean() - 77) < 2
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_picture_that_cannot_be_written_leaves_the_older_one(tmp_path, small_files):
    (tmp_path / "a.png").write_text("older and whole")
    with pytest.raises(UserError, match=r"a\.png cannot be written"):
        write_picture(tmp_path / "a.png", noise(0))
    assert (tmp_path / "a.png").read_text() == "older and whole"
    assert len(list(tmp_path.iterdir())) == 1


def test_where_results_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = Path("out")
    assert plan_outputs("out", "video", "clip", "jsonl") == Outputs(
        out, out / "predictions.jsonl", out / "clip.mkv", None, out / "timeline.png", out / "summary.csv"
    )
    assert plan_outputs("out/x.AVI", "video", "clip", "csv") == Outputs(
        out, out / "x.csv", out / "x.AVI", None, out / "x.timeline.png", out / "x.summary.csv"
    )
    assert plan_outputs("out", "image", "photos", "jsonl") == Outputs(out, out / "predictions.jsonl")
    assert plan_outputs("x.png", "image", "a", "csv") == Outputs(Path(), Path("x.csv"), picture=Path("x.png"))
    assert plan_outputs("run.1", "webcam", "camera", "csv").folder == Path("run.1")  # a dot is no suffix


@pytest.mark.parametrize(
    ("output", "mode"), [("a.webm", "video"), ("a.gif", "image"), ("a.png", "video"), ("file", "image")]
)
def test_what_cannot_be_written_is_refused(tmp_path, monkeypatch, output, mode):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(UserError, match="is written as"):
        plan_outputs(output, mode, "clip", "jsonl")


def test_annotated_pictures_keep_their_place_and_name(tmp_path):
    assert picture_output(Path("out"), Path("in/a/b.JPG"), Path("in")) == Path("out/a/b.JPG")
    assert picture_output(Path("out"), Path("in/b.gif"), Path("in")) == Path("out/b.gif.png")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written to: Not a directory"):
        make_folder(tmp_path / "file" / "out")
