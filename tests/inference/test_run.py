"""The run loop with an analyzer that needs no network: what is written, printed and shown, and how runs end."""

import csv
import io
import json
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from fer import weights
from fer.checkpoint import PREFIX, SPEC_KEY, write_checkpoint
from fer.errors import UserError
from fer.inference import run as run_module
from fer.inference import sinks
from fer.inference.pictures import read_picture
from fer.inference.prediction import Prediction
from fer.inference.run import find_checkpoint, run, watch_pictures, watch_video
from fer.inference.screen import Figures, Screen
from fer.inference.sinks import plan_outputs
from fer.inference.sources import Frame, LiveStream, PictureFiles, VideoFile, open_source
from fer.inference.timeline import Timeline
from fer.inference.window import Action, Window
from fer.labels import EMOTION_COLORS
from fer.models.cnn import CNN
from fer.models.network import EmotionNetwork, NetworkSpec
from fer.settings.infer import InferSettings
from fer.settings.words import read

CLASSES = ("happy", "sad")


def says(label: str, track: int | None = 1, confidence: float = 0.75) -> Prediction:
    other = "sad" if label == "happy" else "happy"
    row = {label: confidence, other: 1 - confidence}
    return Prediction(label, confidence, {name: row[name] for name in CLASSES}, (10, 10, 30, 30), track, 0.9)


class FakeAnalyzer:
    """One happy face in the first second, then two: the first is sad by then."""

    def __init__(self) -> None:
        self.timings = {"detect": 3.0, "classify": 2.0}
        self.times: list[float | None] = []

    def __call__(self, image: np.ndarray, time: float | None) -> list[Prediction]:
        self.times.append(time)
        if time is None:
            return [says("sad", None)]
        return [says("happy")] if time < 0.99 else [says("sad"), says("happy", 2)]

    def find(self, image: np.ndarray, time: float | None) -> Any:
        return image, time

    def classify(self, sighting: Any) -> list[Prediction]:
        return self(*sighting)


class FakeWindow(Window):
    """Shows nothing, and answers with what the test wants pressed."""

    def __init__(self, *actions: Action | None) -> None:
        self.actions = list(actions)
        self.shown: list[np.ndarray] = []
        self.waited: list[int] = []

    def show(self, image: np.ndarray) -> None:
        self.shown.append(image)

    def poll(self, milliseconds: int = 1) -> Action | None:
        self.waited.append(milliseconds)
        return self.actions.pop(0) if self.actions else None


@pytest.fixture(autouse=True)
def without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    """What OpenCV writes; test_h264.py is about the other."""
    monkeypatch.setattr(sinks, "has_h264", lambda: False)


def silent(text: str) -> None:
    pass


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """60 frames, 2 seconds."""
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 30, (320, 240))
    for number in range(60):
        writer.write(np.full((240, 320, 3), 4 * number, np.uint8))
    writer.release()
    return path


@pytest.fixture
def console() -> Console:
    return Console(record=True, width=100, file=io.StringIO())


def open_clip(path: Path) -> VideoFile:
    source = open_source("video", str(path), silent)
    assert isinstance(source, VideoFile)
    return source


def count_frames(path: Path) -> int:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    count = 0
    while capture.grab():
        count += 1
    return count


# --- videos -----------------------------------------------------------------------------------------------------------


def test_a_video_gives_video_predictions_timeline_and_summary(tmp_path, clip, console):
    outputs = plan_outputs(str(tmp_path / "out"), "video", "clip", "jsonl")
    outputs.folder.mkdir()
    watch_video(open_clip(clip), FakeAnalyzer(), CLASSES, outputs, None, console, console)
    assert sorted(path.name for path in outputs.folder.iterdir()) == [
        "clip.mkv",
        "predictions.jsonl",
        "summary.csv",
        "timeline.png",
    ]
    assert count_frames(outputs.folder / "clip.mkv") == 60
    lines = [json.loads(line) for line in outputs.predictions.read_text().splitlines()]
    assert [line["frame"] for line in lines] == [*range(30), *(number for number in range(30, 60) for _ in range(2))]
    assert lines[-1]["time"] == pytest.approx(59 / 30, abs=1e-3)
    with (outputs.folder / "summary.csv").open() as file:
        rows = {row["track"]: row for row in csv.DictReader(file)}
    assert float(rows["1"]["seconds"]) == pytest.approx(2, abs=0.01)
    assert float(rows["1"]["share_sad"]) == pytest.approx(0.5, abs=0.01)
    assert float(rows["2"]["first"]) == pytest.approx(1, abs=0.01)
    assert float(rows["all"]["share_happy"]) == pytest.approx(2 / 3, abs=0.01)
    assert read_picture(outputs.folder / "timeline.png").std() > 10
    text = console.export_text()
    assert "60 frames" in text
    assert "50%" in text


def test_nothing_is_written_where_nothing_was_asked_for(tmp_path, clip, console, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    watch_video(open_clip(clip), FakeAnalyzer(), CLASSES, None, FakeWindow(), console, console)
    assert sorted(tmp_path.rglob("*")) == before
    assert "Share of the time" in console.export_text()


def test_a_source_that_breaks_keeps_all_that_came_before(tmp_path, clip, console):
    cut = tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(cut), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 30, (320, 240))
    for number in range(60):
        writer.write(np.full((240, 320, 3), 4 * number, np.uint8))
    writer.release()
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    outputs = plan_outputs(str(tmp_path / "out.mp4"), "video", "cut", "csv")
    with pytest.raises(UserError, match="cut short"):
        watch_video(open_clip(cut), FakeAnalyzer(), CLASSES, outputs, None, console, console)
    frames = count_frames(tmp_path / "out.mp4")
    assert 20 < frames < 50
    with (tmp_path / "out.csv").open() as file:
        assert len({row["frame"] for row in csv.DictReader(file)}) == frames
    assert (tmp_path / "out.timeline.png").exists()


def test_ctrl_c_leaves_half_a_file_beside_an_older_whole_one(tmp_path, clip, console):
    class Interrupted(FakeAnalyzer):
        def __call__(self, image: np.ndarray, time: float | None) -> list[Prediction]:
            if len(self.times) == 20:
                raise KeyboardInterrupt
            return super().__call__(image, time)

    outputs = plan_outputs(str(tmp_path / "out.mp4"), "video", "clip", "jsonl")
    outputs.predictions.write_text("older and whole\n")
    with pytest.raises(KeyboardInterrupt):
        watch_video(open_clip(clip), Interrupted(), CLASSES, outputs, None, console, console)
    assert outputs.predictions.read_text() == "older and whole\n"
    (partial,) = tmp_path.glob("out.partial-*.jsonl")
    assert len(partial.read_text().splitlines()) == 20
    assert count_frames(tmp_path / "out.mp4") == 20  # no older one was in its way
    assert partial.name in console.export_text()


def test_a_video_is_watched_at_its_own_speed_and_written_as_fast_as_possible(tmp_path, clip, console):
    waits = {}
    for output in (None, plan_outputs(str(tmp_path / "out.mp4"), "video", "clip", "jsonl")):
        window = FakeWindow()
        watch_video(open_clip(clip), FakeAnalyzer(), CLASSES, output, window, console, console)
        waits[output is None] = window.waited
    assert len(waits[True]) == len(waits[False]) == 60
    assert set(waits[False]) == {1}
    assert np.median(waits[True]) > 15  # of the 33 ms between frames, less the work


def test_q_ends_a_video_in_order(tmp_path, clip, console):
    outputs = plan_outputs(str(tmp_path / "out.mp4"), "video", "clip", "jsonl")
    watch_video(open_clip(clip), FakeAnalyzer(), CLASSES, outputs, FakeWindow(None, None, "quit"), console, console)
    assert count_frames(tmp_path / "out.mp4") == len(outputs.predictions.read_text().splitlines()) == 3


# --- cameras ----------------------------------------------------------------------------------------------------------


class FakeCapture:
    """A camera of 60 frames per second."""

    def __init__(self, pictures: int) -> None:
        self._left = pictures

    def grab(self) -> bool:
        time.sleep(1 / 60)
        self._left -= 1
        return self._left >= 0

    def retrieve(self):
        return True, np.zeros((240, 320, 3), np.uint8)

    def get(self, property_id: int) -> float:
        return 60.0 if property_id == cv2.CAP_PROP_FPS else 0.0

    def release(self) -> None:
        pass


def test_an_unplugged_camera_keeps_what_was_recorded(tmp_path, console):
    outputs = plan_outputs(str(tmp_path), "webcam", "camera", "jsonl")
    outputs.predictions.write_text("of an older run\n")
    camera = LiveStream(FakeCapture(30), "camera 0", None, silent)
    with camera, pytest.raises(UserError, match="unplugged"):
        watch_video(camera, FakeAnalyzer(), CLASSES, outputs, None, console, console)
    lines = [json.loads(line) for line in outputs.predictions.read_text().splitlines()]
    assert len(lines) >= 10
    assert lines[0]["source"] == "camera 0"
    assert count_frames(tmp_path / "camera.mkv") == pytest.approx(60 * lines[-1]["time"] + 1, abs=1.5)


def test_ctrl_c_is_how_a_camera_ends(tmp_path, console):
    class Interrupted(FakeAnalyzer):
        def __call__(self, image: np.ndarray, time: float | None) -> list[Prediction]:
            if len(self.times) == 5:
                raise KeyboardInterrupt
            return super().__call__(image, time)

    outputs = plan_outputs(str(tmp_path), "webcam", "camera", "jsonl")
    camera = LiveStream(FakeCapture(600), "camera 0", None, silent)
    with camera:
        watch_video(camera, Interrupted(), CLASSES, outputs, None, console, console)
    assert len(outputs.predictions.read_text().splitlines()) == 5


def test_a_silent_camera_can_be_left(console):
    class Silent(FakeCapture):
        def grab(self) -> bool:
            time.sleep(0.4)
            return True

    window = FakeWindow(None, "quit")
    with LiveStream(Silent(9), "camera 0", None, silent) as camera:
        watch_video(camera, FakeAnalyzer(), CLASSES, None, window, console, console)
    assert not window.shown


def test_a_camera_in_the_window_is_a_mirror_and_its_files_are_not(tmp_path, console):
    class HalfWhite(FakeCapture):
        def retrieve(self):
            image = np.zeros((240, 320, 3), np.uint8)
            image[:, 250:] = 255
            return True, image

    outputs = plan_outputs(str(tmp_path), "webcam", "camera", "jsonl")
    window = FakeWindow("record", "snapshot", "quit")
    camera = LiveStream(HalfWhite(30), "camera 0", None, silent)
    assert run_module._mirrors(InferSettings(mode="webcam"), camera)
    with camera:
        watch_video(camera, FakeAnalyzer(), CLASSES, outputs, window, console, console, mirrors=True)
    happy = EMOTION_COLORS["happy"][::-1]
    for shown in window.shown:
        assert shown[120, :60].min() == 255  # the white part is on the left
        assert shown[120, 270:].max() == 0
        assert (shown[10:40, 278:311] == happy).all(axis=2).any()  # and the face's box on the right
    capture = cv2.VideoCapture(str(tmp_path / "camera.mkv"))
    snapshot = read_picture(next(tmp_path.glob("snapshot_*.png")))
    for written in (capture.read()[1], snapshot):
        assert written[120, 270:].min() > 200
        assert written[120, :60].max() < 60
    (recording,) = tmp_path.glob("recording_*.mkv")
    said = console.export_text()
    assert f"saved {recording}" in said
    assert "saved " in said
    assert str(next(tmp_path.glob("snapshot_*.png"))) in said


@pytest.mark.parametrize(
    ("mirror", "mode", "name", "wanted"),
    [
        ("auto", "webcam", "camera 0", True),
        ("auto", "webcam", "rtsp://door", False),
        (True, "webcam", "rtsp://door", True),
    ],
)
def test_which_windows_are_mirrors(mirror, mode, name, wanted):
    camera = LiveStream(FakeCapture(1), name, None, silent)
    assert run_module._mirrors(InferSettings(mode=mode, mirror=mirror), camera) is wanted
    assert not run_module._mirrors(InferSettings(mode=mode, mirror=False), camera)


def test_a_camera_shows_no_progress_that_means_nothing():
    file = io.StringIO()
    terminal = Console(file=file, force_terminal=True, width=100)
    with run_module._progress(terminal, endless=True) as progress:
        task = progress.add_task("camera 0", total=None)
        progress.update(task, completed=7)
        progress.refresh()
    said = file.getvalue()
    assert "7 frames" in said
    assert "7/?" not in said
    assert "-:--:--" not in said


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.png", "c.gif", "deep/d.jpg"):
        Image.new("RGB", (100, 80), "gray").save(folder / name)
    (folder / "b.jpg").write_text("no picture")
    return folder


def open_photos(folder: Path) -> PictureFiles:
    source = open_source("image", str(folder), silent, recursive=True)
    assert isinstance(source, PictureFiles)
    return source


def test_a_folder_gives_annotated_copies_and_predictions(tmp_path, photos, console):
    outputs = plan_outputs(str(tmp_path / "out"), "image", "photos", "jsonl")
    outputs.folder.mkdir()
    analyzer = FakeAnalyzer()
    watch_pictures(open_photos(photos), analyzer, CLASSES, outputs, None, console, console)
    found = sorted(str(path.relative_to(outputs.folder)) for path in outputs.folder.rglob("*.*"))
    assert found == ["a.png", "c.gif.png", "deep/d.jpg", "predictions.jsonl"]
    lines = [json.loads(line) for line in outputs.predictions.read_text().splitlines()]
    assert [Path(line["source"]).name for line in lines] == ["a.png", "c.gif", "d.jpg"]
    assert [line["frame"] for line in lines] == [0, 2, 3]  # the broken one keeps its number
    assert (lines[0]["time"], lines[0]["track"]) == (None, None)
    assert analyzer.times == [None, None, None]
    text = console.export_text()
    assert "3 pictures, 3 faces" in text
    assert "1 could not be read" in text


def test_without_output_what_was_seen_is_printed(photos, console):
    watch_pictures(open_photos(photos), FakeAnalyzer(), CLASSES, None, None, console, console)
    assert "a.png: sad 75%" in console.export_text()


def test_pictures_wait_for_a_key(photos, console):
    window = FakeWindow(None, "other", "help", "pause", "quit")
    watch_pictures(open_photos(photos), FakeAnalyzer(), CLASSES, None, window, console, console)
    assert not window.actions
    assert len(window.shown) == 5


@pytest.mark.parametrize("table_format", ["jsonl", "csv"])
def test_shards_one_after_another_are_the_file_of_one_run(tmp_path, monkeypatch, console, capsys, table_format):
    monkeypatch.setattr(run_module, "_load", lambda *_: (FakeAnalyzer, CLASSES))
    (tmp_path / "photos").mkdir()
    for number in range(1, 12):
        cv2.imwrite(str(tmp_path / "photos" / f"{number}.png"), np.full((60, 60, 3), number, np.uint8))
    (tmp_path / "photos" / "2.png").write_text("broken, and a part of its own")
    words = [f"{tmp_path}/photos", "mode=image", f"format={table_format}"]

    def watched(output: str, *more: str) -> Path:
        run(read(InferSettings, [*words, f"output={tmp_path}/{output}", *more], bare="source"))
        folder: Path = tmp_path / output
        return folder

    whole = (watched("whole") / f"predictions.{table_format}").read_bytes()
    for count in (3, 11, 14):
        for number in range(1, count + 1):
            folder = watched(f"parts{count}", f"shard={number}/{count}")
        parts = sorted(folder.glob("predictions*"))
        assert [path.name for path in parts][:: count - 1] == [
            f"predictions-0001-of-{count:04}.{table_format}",
            f"predictions-{count:04}-of-{count:04}.{table_format}",
        ]
        assert len(parts) == count
        assert b"".join(path.read_bytes() for path in parts) == whole
        assert len(list(folder.glob("*.png"))) == 10  # the annotated copies, under the names of one run
    assert (
        f"cat {folder}/predictions-*-of-0014.{table_format} > {folder}/predictions.{table_format}"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shard=0/3"], "it is NUMBER/COUNT with numbers from 1"),
        (["shard=4/3"], "it is NUMBER/COUNT with numbers from 1"),
        (["shard=3"], "it is NUMBER/COUNT with numbers from 1"),
        (["shard=1/3", "output=a.png"], "the parts of a shard go to one folder"),
        (["shard=1/3", "mode=video", "source=CLIP"], "shard=1/3 divides pictures, and .*clip.mp4 is none"),
    ],
)
def test_shards_that_cannot_be(photos, clip, words, message):
    words = [word.replace("CLIP", str(clip)) for word in words]
    with pytest.raises(UserError, match=message):
        run(read(InferSettings, [f"source={photos}", "mode=image", *words], bare="source"))


# --- the window's keys ------------------------------------------------------------------------------------------------


def frame_at(number: int) -> Frame:
    return Frame(np.full((240, 320, 3), 90, np.uint8), number, number / 30, "clip", time.monotonic())


def test_keys_pause_record_save_and_help(tmp_path, clip, monkeypatch):
    monkeypatch.chdir(tmp_path)
    window = FakeWindow("record", None, "snapshot", "record", "help", "pause", "snapshot", None, "pause", "quit")
    with Screen(window, None, open_clip(clip), silent) as screen:
        kept = 0
        while screen.show(frame_at(kept), frame_at(kept).image, Figures()):
            kept += 1
    assert kept == 6  # the pause held the frame back, and "quit" came with the next
    recording = list(tmp_path.glob("outputs/infer/recording_*.mkv"))
    snapshots = list(tmp_path.glob("outputs/infer/snapshot_*.png"))
    assert len(recording) == 1
    assert count_frames(recording[0]) == 3  # frames 1 to 3
    assert {path.stem.rsplit("_", 1)[1] for path in snapshots} == {"2", "5"}
    picture = cv2.imread(str(snapshots[0]))
    assert picture is not None
    assert (picture == 90).all()  # the picture, without figures or help


def test_messages_lie_in_the_corner_and_appear_over_the_help_too(tmp_path, clip, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    window = FakeWindow("help", "snapshot", "help", "pause", None, "quit")
    with Screen(window, None, open_clip(clip), said.append) as screen:
        while screen.show(frame_at(0), frame_at(0).image, Figures()):
            pass
    plain, helped, both, news, paused, _ = window.shown
    corner = np.s_[170:, :]
    assert (helped[:170] != plain[:170]).any()
    assert (both[:170] == helped[:170]).all()
    assert (both[corner] != helped[corner]).any()  # the message, while the help is open
    assert (paused[:120] == plain[:120]).all()  # the face stays as it is
    assert (news[corner] != plain[corner]).any()
    (snapshot,) = tmp_path.glob("outputs/infer/snapshot_*.png")
    assert said == [f"saved {snapshot.relative_to(tmp_path)}"]


def test_snapshots_go_to_the_output_folder(tmp_path, clip):
    outputs = plan_outputs(str(tmp_path / "out"), "video", "clip", "jsonl")
    with Screen(FakeWindow("snapshot"), outputs, open_clip(clip), silent) as screen:
        assert screen.show(frame_at(7), frame_at(7).image, Figures())
    assert [path.suffix for path in outputs.folder.iterdir()] == [".png"]


def test_figures_are_running_averages():
    figures = Figures()
    for number in range(20):
        time.sleep(0.01)
        taken = Frame(np.zeros((2, 2, 3), np.uint8), number, 0.0, "clip", time.monotonic() - 0.05)
        figures.update(taken, {"detect": 4.0 if number % 2 else 0.0})
    assert 30 < figures.fps < 101
    assert 45 < figures.latency < 80
    assert 1.0 < figures.stages["detect"] < 3.0


def test_figures_bear_a_clock_that_stands_still(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)  # Windows' moves every 16 ms
    figures = Figures()
    for number in range(2):
        figures.update(Frame(np.zeros((2, 2, 3), np.uint8), number, 0.0, "clip", 5.0), {})
    assert figures.fps == 0


# --- checkpoints and mistakes -----------------------------------------------------------------------------------------


@pytest.fixture
def no_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "weights")
    (tmp_path / "weights").mkdir()


def make(path: str) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return file


def test_which_checkpoint_is_taken(no_weights, tmp_path):
    with pytest.raises(UserError, match=r"senet_7\.ckpt does not exist"):
        find_checkpoint(None)
    make("outputs/old/checkpoints/best.ckpt")
    make("outputs/new/checkpoints/last.ckpt")
    make("senet_7/checkpoints/best.ckpt")  # of another network that somebody calls so
    assert find_checkpoint("outputs/old") == Path("outputs/old/checkpoints/best.ckpt")
    make("weights/senet_5.ckpt")
    seven = make("weights/senet_7.ckpt")
    assert find_checkpoint(None) == tmp_path / seven
    assert find_checkpoint("senet_5") == tmp_path / "weights/senet_5.ckpt"
    assert find_checkpoint("outputs/new/checkpoints/last.ckpt").name == "last.ckpt"
    for missing in ("nothing.ckpt", "outputs"):
        with pytest.raises(UserError, match="does not exist"):
            find_checkpoint(missing)


def test_all_mistakes_are_told_at_once_before_anything_is_written(no_weights, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    config = InferSettings(mode="video", source="nothing.mp4", ckpt="nothing.ckpt", output="out.gif")
    with pytest.raises(UserError) as error:
        run(config)
    assert [line.split()[0] for line in str(error.value).splitlines()] == [
        "ckpt=nothing.ckpt",
        "output=out.gif:",
        "source=nothing.mp4",
    ]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"ckpt": "text.ckpt"}, "text.ckpt is refused"), ({"min_confidence": "auto"}, "min_confidence=auto")],
)
def test_a_mistake_that_shows_on_loading_leaves_no_folder(tmp_path, monkeypatch, photos, settings, message):
    monkeypatch.chdir(tmp_path)
    Path("text.ckpt").write_text("no network")
    torch.manual_seed(0)
    network = EmotionNetwork(NetworkSpec("cnn", CLASSES))
    state = {PREFIX + name: tensor for name, tensor in network.state_dict().items()}
    write_checkpoint({SPEC_KEY: network.spec.to_dict(), "state_dict": state}, "plain.ckpt")
    base = {"ckpt": "plain.ckpt", "mode": "image", "source": str(photos), "output": "new/deep", "threads": 1}
    with pytest.raises(UserError, match=message):
        run(InferSettings(**{**base, **settings}))
    assert not Path("new").exists()


def test_a_source_is_never_written_over(no_weights, tmp_path, clip, photos):
    make("any.ckpt")
    same = InferSettings(mode="video", source=str(clip), output=str(clip), ckpt="any.ckpt")
    with pytest.raises(UserError, match=r"would write over .*clip\.mp4"):
        run(same)
    with pytest.raises(UserError, match=r"would write over .*a\.png"):
        run(InferSettings(mode="image", source=str(photos), output=str(photos), ckpt="any.ckpt"))
    with pytest.raises(UserError, match="is one picture, and there are"):
        run(InferSettings(mode="image", source=str(photos), output="one.png", ckpt="any.ckpt"))


@pytest.mark.parametrize(
    ("sources", "output", "message"),
    [
        ([".", ".."], "out", None),
        (["x.jpg", "b/x.jpg"], "b", r"would write over .*b/x\.jpg"),
        (["x.jpg", "b/x.jpg"], "alias", r"would write over .*b/x\.jpg"),
        (["link/../x.jpg", "x.jpg"], "out", None),
        (["*/../../x.jpg"], "out", "outside of output="),
        (["twins"], "out", r"p\.gif and .*p\.gif\.png would both be written to out/p\.gif\.png"),
        (["shard=2/2", "x.jpg", "b/x.jpg"], "b", r"would write over .*b/x\.jpg"),
    ],
    ids=str,
)
def test_no_source_is_lost_and_no_file_goes_elsewhere(tmp_path, monkeypatch, sources, output, message):
    monkeypatch.setattr(run_module, "_load", lambda *_: (FakeAnalyzer, CLASSES))
    work = tmp_path / "work" / "photos"
    for number, name in enumerate(["../x.jpg", "x.jpg", "b/x.jpg", "far/x.jpg", "far/off/y.jpg"]):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 60), (20 * number, 0, 0)).save(work / name)
    (work / "twins").mkdir()
    for name in ("p.gif", "p.gif.png"):
        Image.new("RGB", (60, 60)).save(work / "twins" / name)
    (work / "link").symlink_to("far/off")
    (work / "alias").symlink_to("b")
    monkeypatch.chdir(work)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    config = read(InferSettings, [*sources, "mode=image", f"output={output}"], bare="source")
    if message is None:
        run(config)
        assert len(list(Path(output).rglob("*.jpg"))) == 2
        lines = (Path(output) / "predictions.jsonl").read_text().splitlines()
        assert {Path(json.loads(line)["source"]) for line in lines} <= set(before)
    else:
        with pytest.raises(UserError, match=message):
            run(config)
        assert output != "out" or not Path(output).exists()
    assert {path: path.read_bytes() for path in before} == before
    others = {path for path in tmp_path.rglob("*.*") if path.is_file()} - set(before)
    assert all(path.is_relative_to(work / output) for path in others)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_kill_and_a_closed_terminal_end_as_ctrl_c_does():
    before = signal.getsignal(signal.SIGHUP)
    for number in (signal.SIGTERM, signal.SIGHUP):
        with pytest.raises(KeyboardInterrupt), run_module._terminate_as_interrupt():
            signal.raise_signal(number)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with run_module._terminate_as_interrupt():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


# --- the timeline -----------------------------------------------------------------------------------------------------


def test_a_long_recording_takes_no_more_memory_than_a_short_one():
    timeline = Timeline(CLASSES, 30)
    for number in range(20_000):
        timeline.add(number / 30, [says("happy" if number % 3 else "sad")])
    (track,) = timeline._tracks.values()
    assert 900 < len(track.spans) <= 2000
    assert sum(row[-1] for row in track.spans.values()) == 20_000  # merged, not dropped
    assert track.seconds["happy"] / track.total == pytest.approx(2 / 3, abs=0.01)


def test_a_silent_stream_counts_as_seen_for_a_second_at_most():
    timeline = Timeline(CLASSES, 10)
    for moment in (0.0, 0.1, 500.0):
        timeline.add(moment, [says("happy")])
    (track,) = timeline._tracks.values()
    assert track.total == pytest.approx(0.1 + 0.1 + 1.0)


def test_a_timeline_without_faces_can_be_saved(tmp_path):
    timeline = Timeline(CLASSES, 30)
    timeline.add(0.0, [])
    (tmp_path / "timeline.png").write_bytes(timeline.to_png())
    assert timeline.to_csv().count("\n") == 1
    assert read_picture(tmp_path / "timeline.png").shape[1] > 500


def test_the_surest_find_of_a_face_stands_beside_its_plot_under_a_title():
    plain, shown = Timeline(CLASSES, 10), Timeline(CLASSES, 10, "cash $5 $6.mp4")
    red, blue = (np.full((60, 60, 3), color, np.uint8) for color in ((0, 0, 255), (255, 0, 0)))
    for moment, image, score in ((0.0, blue, 0.8), (0.1, red, 0.95), (0.2, blue, 0.9)):
        face = replace(says("happy"), score=score, box=(-10, 20, 90, 90))
        plain.add(moment, [face])
        shown.add(moment, [face], image)
    assert shown._title() == "cash $5 $6.mp4: 0.3 s, 1 face"
    pictures: list[Any] = [
        cv2.imdecode(np.frombuffer(one.to_png(), np.uint8), cv2.IMREAD_COLOR) for one in (plain, shown)
    ]
    reds = [int((picture == (0, 0, 255)).all(axis=2).sum()) for picture in pictures]
    assert reds[0] == 0
    assert reds[1] > 5000
    assert not (pictures[1] == (255, 0, 0)).all(axis=2).any()


def test_thumbnails_are_kept_of_the_faces_longest_in_view():
    timeline = Timeline(CLASSES, 10)
    image = np.zeros((60, 60, 3), np.uint8)
    for number in range(100):
        timeline.add(number / 10, [says("happy", 1), says("sad", 2 + number)], image)
    kept = {number for number, track in timeline._tracks.items() if track.thumbnail is not None}
    assert len(kept) == 64
    assert 1 in kept


def test_many_faces_are_listed_as_far_as_the_terminal_goes(console):
    timeline = Timeline(CLASSES, 30)
    for number in range(100):
        timeline.add(number / 30, [says("happy", track) for track in range(1, 41) if number % track == 0])
    console.print(timeline.table())
    assert "and 28 more faces" in console.export_text()


def test_a_camera_without_a_screen_is_pointed_to_the_page() -> None:
    assert "mode=browser" in run_module._remedy(InferSettings(mode="webcam", output="out"))
    assert "mode=browser" not in run_module._remedy(InferSettings(mode="video", source="clip.mp4"))


def test_a_checkpoint_of_another_project_that_the_settings_describe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    network = CNN(num_classes=3, image_size=64).eval()
    torch.save({"state_dict": {f"model.{key}": value for key, value in network.state_dict().items()}}, "theirs.pth")
    face = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    cv2.imwrite("face.png", face)
    words = ["face.png", "mode=image", "window=false", "detector=none", "device=cpu", "threads=1", "ckpt=theirs.pth"]
    described = ["model=cnn", "model.image_size=64", "model.mean=0.5", "model.std=[0.25]", "classes=[keen,bored,sad]"]
    settings = read(InferSettings, [*words, *described], bare="source")
    settings.refuse_contradictions()
    run(settings)
    with torch.inference_mode():
        pixels = (torch.from_numpy(face)[None, None] / 255 - 0.5) / 0.25
        probabilities = torch.softmax(network(pixels)[0], 0)
    label = ("keen", "bored", "sad")[int(probabilities.argmax())]
    assert capsys.readouterr().out.strip() == f"face.png: {label} {float(probabilities.max()):.0%}"

    with pytest.raises(
        UserError, match=r"infer\.py takes it all the same where model\.name= and classes=\[\.\.\.\] say so"
    ):
        run(read(InferSettings, words, bare="source"))
    with pytest.raises(UserError, match="classes= are those of a checkpoint of another project"):
        read(InferSettings, [*words, "classes=[a,b]"], bare="source").refuse_contradictions()
    with pytest.raises(UserError, match="name that, too: ckpt=FILE"):
        read(InferSettings, ["face.png", "model.name=cnn"], bare="source").refuse_contradictions()
