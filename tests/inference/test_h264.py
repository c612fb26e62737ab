"""H.264 where PyAV is installed: whole, readable by ourselves, and alive after a kill."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fer.errors import UserError
from fer.inference.sinks import VideoSink, plan_outputs
from fer.inference.sources import VideoFile, open_source

av = pytest.importorskip("av", reason="PyAV is not installed: pip install 'fer-lightning[video]'")

ROOT = Path(__file__).parents[2]


def moving(number: int, width: int = 65, height: int = 49) -> np.ndarray:
    return np.full((height, width, 3), 4 * number, np.uint8)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_every_frame_in_h264_as_we_read_it_ourselves(tmp_path, suffix):
    path = tmp_path / f"a, 1: b{suffix}"
    with VideoSink(path, 30000 / 1001) as video:
        for number in range(50):
            video.write(moving(number))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    with av.open(str(path)) as written:
        (stream,) = written.streams.video
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"  # of others browsers show nothing
        assert (stream.width, stream.height) == (66, 50)
    said: list[str] = []
    with open_source("video", str(path), said.append) as source:
        assert isinstance(source, VideoFile)
        frames = list(source)
    assert said == []
    assert source.fps == pytest.approx(30000 / 1001, abs=0.01)
    assert [frame.index for frame in frames] == list(range(50))
    assert frames[-1].time == pytest.approx(49 * 1001 / 30000, abs=0.002)
    for number in (0, 20, 49):
        assert frames[number].image.mean() == pytest.approx(4 * number, abs=4)


def test_a_folder_gets_a_video_that_browsers_play(tmp_path):
    assert plan_outputs(str(tmp_path), "video", "clip", "jsonl").video == tmp_path / "clip.mp4"


def test_a_kill_leaves_all_but_the_last_second_or_two(tmp_path):
    code = f"""
import os, signal
import numpy as np
from fer.inference.sinks import VideoSink
from pathlib import Path
with VideoSink(Path({str(tmp_path)!r}) / "a.mp4", 30) as video:
    for number in range(300):
        video.write(np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120)
    assert done.returncode == -signal.SIGKILL
    (partial,) = tmp_path.iterdir()
    with av.open(str(partial)) as left:
        assert sum(1 for _ in left.decode(video=0)) >= 240


def write_noise(path: Path, count: int) -> None:
    with VideoSink(path, 30) as video:
        for number in range(count):
            video.write(np.random.default_rng(number).integers(0, 256, (96, 128, 3), np.uint8))


def test_a_full_disk_is_said_and_takes_no_name(tmp_path):
    (tmp_path / "a.mp4").write_text("older and whole")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(UserError, match=r"a\.mp4 c(annot be written|ould not be finished).*free some room"):
            write_noise(tmp_path / "a.mp4", 200)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "a.mp4").read_text() == "older and whole"


def test_a_size_that_cannot_be(tmp_path):
    with (
        pytest.raises(UserError, match=r"a\.mp4 cannot be written at 40000 x 2 pixels"),
        VideoSink(tmp_path / "a.mp4", 30) as video,
    ):
        video.write(np.zeros((2, 40_000, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []
