"""`python infer.py` as a person types it."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageGrab

from fer.inference.h264 import has_h264
from fer.inference.sinks import output_lock, plan_outputs, video_suffix

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("FER_SHARED", ROOT.parent / "shared"))
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def infer(command: Command) -> Command:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return command(*arguments, script="infer.py")

    return run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from fer.checkpoint import PREFIX, SPEC_KEY, write_checkpoint
    from fer.models.network import EmotionNetwork, NetworkSpec

    torch.manual_seed(0)
    network = EmotionNetwork(NetworkSpec("net", ("angry", "happy", "sad", "neutral"), kwargs={"widths": [4, 8]}))
    path = tmp_path_factory.mktemp("run") / "checkpoints" / "best.ckpt"
    state = {PREFIX + name: tensor for name, tensor in network.state_dict().items()}
    write_checkpoint({SPEC_KEY: network.spec.to_dict(), "state_dict": state}, path)
    return path


def write_clip(path: Path, count: int = 30) -> None:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 30, (160, 120))
    for number in range(count):
        writer.write(np.full((120, 160, 3), 40 + 5 * number % 200, np.uint8))
    writer.release()


def entries(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- before anything runs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("argument", "shown"), [("--help", "smoothing=0.4"), ("--cfg=job", "smoothing: 0.4")])
def test_help_and_settings_import_nothing_heavy(tmp_path, argument, shown):
    result = subprocess.run(
        [
            sys.executable,
            "-X",
            "importtime",
            str(ROOT / "infer.py"),
            argument.replace("=", " ").split()[0],
            *argument.split("=")[1:],
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0
    assert shown in result.stdout
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in result.stderr.splitlines()}
    assert not imported & {
        "hydra",
        "omegaconf",
        "torch",
        "cv2",
        "numpy",
        "matplotlib",
        "PIL",
        "rich",
        "timm",
        "lightning",
    }
    assert entries(tmp_path) == []


def test_every_mistake_at_once_with_the_nearest_right_name(infer):
    result = infer("mode=video", "sorce=a.mp4", "detector=yunett", "detector.paht=a", "smoothing=much")
    assert result.returncode == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    text = result.stderr
    for word in (
        "error: detector=yunett: ",
        "did you mean source?",
        "did you mean yunet?",
        "did you mean detector.path?",
        "smoothing=much",
    ):
        assert word in text
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no camera 0"),
        (["a.png", "clip.mp4"], "one run takes one kind of source"),
        (["nowhere"], "source=nowhere does not exist"),
        (["a=b.jpg", "sorce=c.jpg"], "did you mean source?"),
        (["x" * 300], "does not exist"),
        (["~nobody7/a.jpg"], "source=~nobody7/a.jpg does not exist"),
        (["a.png", "mode=image", "ckpt=~nobody7/a.ckpt"], "ckpt=~nobody7/a.ckpt does not exist"),
        (["mode=webcam", "detector.path=~nobody7/a"], "detector.path=~nobody7/a does not exist"),
        (["x" * 300 + ".jpg", "y=" + "z" * 300], "y: there is no such setting"),
        (["a.png", "mode=image", "ckpt=" + "x" * 300], "does not exist"),
        (["a.png", "mode=image", "detector.path=" + "x" * 300], "does not exist"),
        (["a.png", "--output", "out"], "--output: settings have no dashes, and are KEY=VALUE"),
        (["a.png", "source=b.png"], "source=b.png stands beside a.png; give all of them one way"),
        (["a.png", "min_confidence=80%"], "min_confidence=80%: it must be auto or a number"),
        (["detector=haar", "detector.name=x"], "error: detector.name=x: there is auto, yunet"),
        (["mode=wbcam"], "did you mean webcam?"),
        (["mode=webcam", "device=cude"], "did you mean cuda?"),
        (["mode=video"], "source is missing"),
        (["mode=image", "source=a.png", "-m"], "without -m"),
        (
            ["mode=webcam", "threads=0", "min_confidence=2"],
            "min_confidence=2: it must be auto, or a number between 0 and 1",
        ),
        (
            ["mode=webcam", "window=perhaps", "format=xml", "detect_every=0", "smoothing=-1"],
            "there is auto, true, false",
        ),
        (["mode=webcam", "detector.path=nothing.onnx"], "detector.path=nothing.onnx does not exist"),
        (
            ["mode=video", "source=nothing, at [all]=1 'here'.mp4", "ckpt=nothing.ckpt"],
            "source=nothing, at [all]=1 'here'.mp4",
        ),
    ],
)
def test_mistakes_end_in_a_sentence_and_exit_code_2(infer, tmp_path, arguments, message):
    result = infer(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert all(line.startswith("error: ") for line in result.stderr.splitlines())
    assert entries(tmp_path) == []


def test_a_bare_word_is_a_source_and_its_mode_is_guessed(infer, checkpoint, tmp_path):
    for name in ("a b.png", "x=1.png"):
        cv2.imwrite(str(tmp_path / name), np.full((48, 48), 90, np.uint8))
    done = infer("a b.png", "x=1.png", f"ckpt={checkpoint}", "detector=none", "window=false")
    assert done.returncode == 0, done.stderr
    assert [Path(line.rpartition(":")[0]).name for line in done.stdout.splitlines()[:2]] == ["a b.png", "x=1.png"]


# --- real runs --------------------------------------------------------------------------------------------------------


def test_a_video_without_a_display(infer, checkpoint, tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    write_clip(tmp_path / "my clip, part 1.mp4")
    result = infer("mode=video", "source=my clip, part 1.mp4", "output=out", f"ckpt={checkpoint}", "detector=none")
    assert result.returncode == 0, result.stderr
    assert entries(tmp_path) == [
        "my clip, part 1.mp4",
        f"out/my clip, part 1{video_suffix()}",
        "out/predictions.jsonl",
        "out/summary.csv",
        "out/timeline.png",
    ]
    assert "no display" in result.stderr
    assert str(checkpoint) in result.stderr
    assert "30 frames" in result.stdout
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(30))
    assert list(lines[0]["probabilities"]) == ["angry", "happy", "sad", "neutral"]
    assert sum(lines[0]["smoothed"].values()) == pytest.approx(1, abs=1e-3)
    assert {line["track"] for line in lines} == {1}


def test_two_runs_into_one_output(infer, checkpoint, tmp_path):
    """The second is refused while the first is at work, and may have the place after it."""
    write_clip(tmp_path / "a.mp4", 20)
    write_clip(tmp_path / "b.mp4", 3)
    out = tmp_path / "out"
    arguments = ["mode=video", "output=out/seen.mp4", f"ckpt={checkpoint}", "detector=none", "window=false"]
    plan = plan_outputs(str(out / "seen.mp4"), "video", "", "jsonl")
    out.mkdir()
    with output_lock(plan):
        refused = infer("source=b.mp4", *arguments)
    assert refused.returncode == 2
    assert "another run is writing to out under the same names" in refused.stderr
    assert entries(out) == []
    both = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "infer.py"), f"source={name}.mp4", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for name in "ab"
    ]
    errors = [process.communicate(timeout=100)[1] for process in both]
    codes = [process.returncode for process in both]
    assert 0 in codes, errors
    assert set(codes) <= {0, 2}, errors  # both 0 where one was over before the other began
    if codes == [0, 2]:
        assert json.loads((out / "seen.jsonl").read_text().splitlines()[-1])["source"] == "a.mp4"
    assert ("plays only if this run ends in order" in errors[codes.index(0)]) is not has_h264()
    assert entries(out) == ["seen.jsonl", "seen.mp4", "seen.summary.csv", "seen.timeline.png"]
    sources = {json.loads(line)["source"] for line in (out / "seen.jsonl").read_text().splitlines()}
    frames = cv2.VideoCapture(str(out / "seen.mp4"), cv2.CAP_FFMPEG).get(cv2.CAP_PROP_FRAME_COUNT)
    assert (sources, frames) in [({"a.mp4"}, 20), ({"b.mp4"}, 3)]


def test_pictures_of_all_kinds_and_a_broken_one(infer, checkpoint, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (1, 1)).save(folder / "tiny.png")
    Image.new("CMYK", (60, 40)).save(folder / "print.jpg")
    Image.new("RGB", (12_000, 20)).save(folder / "wide.png")
    (folder / "broken.jpg").write_text("no picture")
    result = infer("mode=image", "source=photos", "output=out", "format=csv", f"ckpt={checkpoint}", "detector=haar")
    assert result.returncode == 0, result.stderr
    assert entries(tmp_path / "out") == ["predictions.csv", "print.jpg", "tiny.png", "wide.png"]
    assert "broken.jpg cannot be read" in result.stderr
    assert "3 pictures" in result.stdout


@pytest.mark.parametrize("kind", ["text", "code"])
def test_a_checkpoint_that_is_not_one(infer, tmp_path, kind):
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("touch payload-was-run",)

    if kind == "text":
        (tmp_path / "bad.ckpt").write_text("no network")
    else:
        import torch

        torch.save({"state_dict": Payload()}, tmp_path / "bad.ckpt")
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    result = infer("mode=image", "source=a.png", "ckpt=bad.ckpt", "output=out", "detector=none")
    assert result.returncode == 2
    assert "bad.ckpt" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert entries(tmp_path) == ["a.png", "bad.ckpt"]


@pytest.mark.skipif(
    shutil.which("Xvfb") is None or shutil.which("xdotool") is None, reason="Xvfb or xdotool is not installed"
)
class TestOnAScreen:
    """A virtual one."""

    @pytest.fixture
    def screen(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
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

    def test_a_video_is_shown_until_q_is_pressed(self, screen, checkpoint, tmp_path):
        write_clip(tmp_path / "clip.mp4", 2700)  # 90 seconds: it does not end by itself
        arguments = ["mode=video", "source=clip.mp4", f"ckpt={checkpoint}", "detector=none"]
        with subprocess.Popen(
            [sys.executable, str(ROOT / "infer.py"), *arguments],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            window = ["xdotool", "search", "--name", "clip.mp4"]
            pictures: list[np.ndarray] = []
            end, patience = time.monotonic() + 60, time.monotonic() + 12
            while time.monotonic() < end and process.poll() is None:
                if time.monotonic() > patience:  # see `shown` in test_window.py; it may have painted an empty window
                    for command in ("windowunmap", "windowmap"):
                        subprocess.run([*window, command], check=False, capture_output=True)
                    patience = time.monotonic() + 12
                picture = np.asarray(ImageGrab.grab(xdisplay=screen))
                if picture.max() > 0 and not any(np.array_equal(picture, other) for other in pictures):
                    pictures.append(picture)
                    patience = time.monotonic() + 12
                if len(pictures) == 3:  # it moves
                    break
                time.sleep(0.1)
            subprocess.run([*window, "windowfocus", "key", "q"], check=True, capture_output=True)
            out, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors
        assert len(pictures) == 3
        assert "frames" in out
        assert entries(tmp_path) == ["clip.mp4"]


# --- real photographs -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "media").is_dir(), reason="the shared photographs are not on this machine")
def test_real_pictures_give_as_many_faces_as_they_have(infer, checkpoint, tmp_path):
    wanted = {
        **{f"human_stock-emotions-a-{number}.jpg": 1 for number in range(1, 9)},
        "human_stock-group-1.jpg": 15,
        "dlib_bald_guys.jpg": 24,
        "dlib_2008_002079.jpg": 6,
        "fr_two_people.jpg": 2,
        "human_background.jpg": 0,
        "fer_no-faces.jpg": 0,
    }
    result = infer("mode=image", f"source={SHARED / 'media'}/*.jpg", "output=out", f"ckpt={checkpoint}")
    assert result.returncode == 0, result.stderr
    found = dict.fromkeys(wanted, 0)
    for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines():
        found[Path(json.loads(line)["source"]).name] += 1
    assert found == wanted
