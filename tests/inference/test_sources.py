"""Pictures, videos, cameras and streams: what comes out of each, and what a broken one says."""

import http.server
import os
import re
import statistics
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fer.errors import UserError
from fer.inference import pictures, sources
from fer.inference.pictures import read_picture
from fer.inference.sources import (
    LiveStream,
    PictureFiles,
    SourceEnded,
    VideoFile,
    guess_mode,
    hide_password,
    open_source,
)

MEDIA = Path(os.environ.get("FER_SHARED") or Path(__file__).parents[3] / "shared") / "media"
RED, WHITE = (0, 0, 255), (255, 255, 255)  # BGR


def silent(text: str) -> None:
    pass


def frames_of(source: sources.Source) -> list[sources.Frame]:
    with source:
        return [frame for frame in source if frame is not None]


def times_of(frames: list[sources.Frame]) -> list[float]:
    times = [frame.time for frame in frames if frame.time is not None]
    assert len(times) == len(frames)
    return times


def until_it_ends(source: sources.Source) -> tuple[list[sources.Frame], str]:
    """The frames of a source that ends before its time, and what it says then."""
    frames: list[sources.Frame] = []
    with source:
        iterator = iter(source)
        while True:
            try:
                frame = next(iterator)
            except SourceEnded as error:
                return frames, str(error)
            if frame is not None:
                frames.append(frame)


def solid(color: tuple[int, int, int], size: tuple[int, int] = (32, 24)) -> Image.Image:
    return Image.new("RGB", size, color[::-1])


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_exif_rotation_is_applied(tmp_path):
    picture = Image.new("RGB", (40, 20), "blue")
    picture.paste("red", (0, 0, 20, 20))  # red on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show rotated by 90 degrees clockwise
    picture.save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = read_picture(tmp_path / "a.jpg")
    assert image.shape == (40, 20, 3)
    assert image[5, 10, 2] > 200
    assert image[35, 10, 0] > 200


def test_cmyk_becomes_bgr(tmp_path):
    solid(RED).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_picture(tmp_path / "a.jpg").astype(int) - RED).max() < 12


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bit_gray_is_scaled_not_clipped(tmp_path, suffix):
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16)[None].repeat(8, axis=0)
    path = tmp_path / f"a{suffix}"
    Image.fromarray(ramp).save(path)
    image = read_picture(path)
    assert image.dtype == np.uint8
    assert image.shape == (8, 64, 3)
    np.testing.assert_array_equal(image[0, :, 0], ramp[0] // 257)


def test_16_bit_colour_is_scaled(tmp_path):
    deep = np.zeros((8, 8, 3), np.uint16)
    deep[..., 2] = 0x8080
    cv2.imwrite(str(tmp_path / "a.png"), deep)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png")[0, 0], (0, 0, 0x80))


def test_transparent_parts_become_white(tmp_path):
    picture = Image.new("RGBA", (10, 10), (255, 0, 0, 255))
    picture.paste((0, 255, 0, 0), (0, 0, 5, 10))
    picture.save(tmp_path / "a.png")
    image = read_picture(tmp_path / "a.png")
    assert tuple(image[5, 2]) == WHITE
    assert tuple(image[5, 8]) == RED


def test_palette_with_transparency(tmp_path):
    picture = Image.new("P", (10, 10), 1)
    picture.putpalette([0, 255, 0, 255, 0, 0])
    picture.paste(0, (0, 0, 5, 10))
    picture.save(tmp_path / "a.png", transparency=0)
    image = read_picture(tmp_path / "a.png")
    assert tuple(image[5, 2]) == WHITE
    assert tuple(image[5, 8]) == RED


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "CMYK"])
def test_one_pixel_of_any_mode(tmp_path, mode):
    path = tmp_path / "a.tiff"
    solid(WHITE, (1, 1)).convert(mode).save(path)
    image = read_picture(path)
    assert image.shape == (1, 1, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous


def test_large_pictures_are_welcome_and_bombs_are_refused(tmp_path, monkeypatch):
    solid(RED, (100, 100)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)  # Pillow warns over this, and refuses over twice this
    assert read_picture(tmp_path / "a.png").shape == (100, 100, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with pytest.raises(UserError, match="too large"):
        read_picture(tmp_path / "a.png")


def test_a_cut_picture_is_an_error(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:2000])
    with pytest.raises(UserError, match="damaged"):
        read_picture(tmp_path / "a.jpg")


def test_folder_in_natural_order_without_what_is_no_picture(tmp_path):
    for name in ("10.png", "9.JPG", "._9.jpg", "note.txt"):
        (tmp_path / name).write_bytes(b"")
    solid(RED).save(tmp_path / "10.png")
    solid(RED).save(tmp_path / "9.JPG", format="jpeg")
    (tmp_path / "deep").mkdir()
    solid(RED).save(tmp_path / "deep" / "1.bmp")
    source = open_source("image", str(tmp_path), silent)
    assert isinstance(source, PictureFiles)
    assert [path.name for path in source.paths] == ["9.JPG", "10.png"]
    frames = frames_of(source)
    assert [frame.index for frame in frames] == [0, 1]
    assert frames[0].time is None
    deep = open_source("image", str(tmp_path), silent, recursive=True)
    assert isinstance(deep, PictureFiles)
    assert [path.name for path in deep.paths] == ["9.JPG", "10.png", "1.bmp"]


def test_glob_and_brackets_in_names(tmp_path):
    for name in ("a.png", "b.png", "c[1].png"):
        solid(RED).save(tmp_path / name)
    source = open_source("image", str(tmp_path / "[ab].png"), silent)
    assert isinstance(source, PictureFiles)
    assert [path.name for path in source.paths] == ["a.png", "b.png"]
    assert source.root == tmp_path
    assert open_source("image", str(tmp_path / "c[1].png"), silent).length == 1
    (tmp_path / "deep").mkdir()
    solid(RED).save(tmp_path / "deep" / "a.png")
    assert open_source("image", str(tmp_path / "**" / "[ab].png"), silent).length == 3


@pytest.mark.parametrize("pattern", ["[2024] trip/*.jpg", "[2024] trip/a[1]/*.jpg", "[2024] trip/**/?.jpg", "*/a.jpg"])
def test_folders_with_brackets_are_taken_literally_before_a_glob(tmp_path, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "[2024] trip" / "a[1]").mkdir(parents=True)
    solid(RED).save(tmp_path / "[2024] trip" / "a.jpg")
    solid(RED).save(tmp_path / "[2024] trip" / "a[1]" / "b.jpg")
    assert guess_mode([pattern]) == "image"
    source = open_source("image", pattern, silent)
    assert isinstance(source, PictureFiles)
    assert source.length == (2 if "**" in pattern else 1)
    assert all(path.is_relative_to(source.root) for path in source.paths)


def test_links_are_followed_once_and_locked_folders_are_told(tmp_path):
    for folder in ("in/deep", "in/locked", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
        solid(RED).save(tmp_path / folder / f"{Path(folder).name}.png")
    (tmp_path / "in" / "link").symlink_to("../elsewhere")
    (tmp_path / "in" / "deep" / "around").symlink_to("..")
    told: list[str] = []
    source = open_source("image", str(tmp_path / "in"), told.append, recursive=True)
    assert isinstance(source, PictureFiles)
    assert sorted(path.name for path in source.paths) == ["deep.png", "elsewhere.png", "locked.png"]
    assert told == []
    if os.geteuid() == 0:
        return  # who may read everything
    (tmp_path / "in" / "locked").chmod(0)
    source = open_source("image", str(tmp_path / "in"), told.append, recursive=True)
    (tmp_path / "in" / "locked").chmod(0o700)
    assert source.length == 2
    assert "locked is left out, as it cannot be searched: Permission denied" in told[0]


def test_results_in_the_searched_folder_are_not_taken_for_pictures(tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("a.png", "out/a.png"):
        solid(RED).save(tmp_path / name)
    found = open_source("image", str(tmp_path), silent, recursive=True, leave_out=tmp_path / "out")
    assert isinstance(found, PictureFiles)
    assert [path.name for path in found.paths] == ["a.png"]
    around = open_source("image", str(tmp_path / "out"), silent, leave_out=tmp_path)
    assert around.length == 1


def test_a_broken_picture_is_reported_and_the_rest_goes_on(tmp_path):
    for name in ("a.png", "c.png"):
        solid(RED).save(tmp_path / name)
    (tmp_path / "b.png").write_text("no picture")
    told: list[str] = []
    source = open_source("image", str(tmp_path), told.append)
    assert isinstance(source, PictureFiles)
    assert [Path(frame.source).name for frame in frames_of(source)] == ["a.png", "c.png"]
    assert source.broken == 1
    assert len(told) == 1
    assert "b.png" in told[0]


def test_only_broken_pictures_are_an_error(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no picture")
    with pytest.raises(SourceEnded, match="none of the 2 pictures"):
        frames_of(open_source("image", str(tmp_path), silent))
    with pytest.raises(SourceEnded, match=r"a\.png cannot be read"):
        frames_of(open_source("image", str(tmp_path / "a.png"), silent))


def test_several_sources_are_taken_in_their_order_and_once(tmp_path):
    for name in ("one/b.png", "one/a.png", "two/c.png", "d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        solid(RED).save(tmp_path / name)
    sources = [str(tmp_path / "two"), str(tmp_path / "one" / "*.png"), str(tmp_path / "d.png"), f"{tmp_path}/one/b.png"]
    source = open_source("image", sources, silent)
    assert isinstance(source, PictureFiles)
    assert [str(path.relative_to(tmp_path)) for path in source.paths] == [
        "two/c.png",
        "one/a.png",
        "one/b.png",
        "d.png",
    ]
    assert source.root == tmp_path
    with pytest.raises(UserError, match="mode=video takes one source, and these are 2"):
        open_source("video", ["a.mp4", "b.mp4"], silent)
    with pytest.raises(UserError, match=r"source=.*nothing\.png does not exist"):
        open_source("image", [str(tmp_path / "d.png"), str(tmp_path / "nothing.png")], silent)


def test_files_left_out_are_counted_by_kind_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_reads_heif", lambda: False)
    solid(RED).save(tmp_path / "a.png")
    for name in ("b.txt", "c.TXT", "d.HEIC", "e.mp4", "README", ".hidden.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    told: list[str] = []
    source = open_source("image", str(tmp_path), told.append)
    assert isinstance(source, PictureFiles)
    assert [path.name for path in source.paths] == ["a.png"]
    assert told == [
        f"{tmp_path}: left out 5 files that are no pictures it can read: 1 .heic (pip install pillow-heif reads them), "
        "2 .txt, 1 without a suffix, 1 .mp4 (mode=video)"
    ]
    monkeypatch.setattr(pictures, "_reads_heif", lambda: True)
    source = open_source("image", str(tmp_path), silent)
    assert isinstance(source, PictureFiles)
    assert [path.name for path in source.paths] == ["a.png", "d.HEIC"]


@pytest.mark.parametrize(
    ("sources", "mode"),
    [
        ([], "webcam"),
        (["0"], "webcam"),
        (["/dev/video3"], "webcam"),
        (["rtsp://camera/stream"], "video"),
        (["http://host/clip.mp4?a=1"], "video"),
        (["http://host/a.JPG?size=2"], "image"),
        (["photo.jpg"], "image"),
        (["nothing.png"], "image"),
        (["CLIP.MP4"], "video"),
        (["folder"], "image"),
        (["folder/*.png"], "image"),
        (["still.gif"], "image"),
        (["moving.gif"], "video"),
        (["picture"], "image"),
        (["video"], "video"),
        (["photo.jpg", "folder", "still.gif"], "image"),
    ],
)
def test_the_mode_is_guessed_by_the_source(tmp_path, monkeypatch, sources, mode):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    solid(RED).save("photo.jpg")
    solid(RED).save("picture", format="png")
    solid(RED).save("still.gif")
    solid(RED).save("moving.gif", save_all=True, append_images=[solid(WHITE)])
    write_video(tmp_path / "video.mp4", 2)
    (tmp_path / "video.mp4").rename("video")
    assert guess_mode(sources) == mode


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["nothing"], "source=nothing does not exist"),
        (["notes.txt"], "neither a picture nor a video"),
        (["a.jpg", "b.mp4"], r"one kind of source, and these are several: a\.jpg \(image\), b\.mp4 \(video\)"),
        (["0", "a.jpg"], "one kind of source"),
    ],
)
def test_what_cannot_be_guessed(tmp_path, monkeypatch, sources, message, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(UserError, match=message):
        guess_mode(sources)
    assert capfd.readouterr().err == ""


# --- videos -----------------------------------------------------------------------------------------------------------


def write_video(
    path: Path, count: int, fps: float = 30.0, codec: str = "mp4v", size: tuple[int, int] = (64, 48)
) -> None:
    """Frame k is as bright as 6 k (modulo 240)."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, size)
    assert writer.isOpened()
    for number in range(count):
        writer.write(np.full((size[1], size[0], 3), 6 * number % 240, np.uint8))
    writer.release()


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mp4v"), ("a.mkv", "mp4v"), ("a.avi", "MJPG")])
def test_every_frame_of_a_file_in_order_with_its_time(tmp_path, name, codec):
    write_video(tmp_path / name, 40, fps=25.0, codec=codec)
    source = open_source("video", str(tmp_path / name), silent)
    assert isinstance(source, VideoFile)
    assert source.fps == pytest.approx(25)
    assert source.length == 40
    frames = frames_of(source)
    assert [frame.index for frame in frames] == list(range(40))
    brightness = np.array([frame.image.mean() for frame in frames])
    assert np.abs(brightness - 6 * np.arange(40)).max() < 5  # less than from one frame to the next
    np.testing.assert_allclose(times_of(frames), np.arange(40) / 25, atol=2e-3)


def test_gif_with_uneven_times(tmp_path):
    pictures = [Image.new("RGB", (32, 24), (value, value, value)) for value in (0, 80, 160, 240)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[100, 300, 100, 100])
    frames = frames_of(open_source("video", str(tmp_path / "a.gif"), silent))
    assert [round(frame.image.mean()) for frame in frames] == [0, 80, 160, 240]
    np.testing.assert_allclose(times_of(frames), [0, 0.1, 0.4, 0.5], atol=1e-3)


def rotate_tag(path: Path, degrees: int) -> None:
    """Writes a rotation into the display matrix of an mp4's track header, as phones do (ISO 14496-12, 8.3.2)."""
    one = 0x10000
    a, b, c, d = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[degrees]
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # after version, flags and the eight fields before the matrix
    assert struct.unpack_from(">9i", content, start) == (one, 0, 0, 0, one, 0, 0, 0, 0x40000000)
    struct.pack_into(">9i", content, start, a, b, 0, c, d, 0, 0, 0, 0x40000000)
    path.write_bytes(content)


@pytest.mark.parametrize(("degrees", "corner"), [(90, (0, -1)), (180, (-1, -1)), (270, (-1, 0))])
def test_rotation_tags_come_out_upright(tmp_path, degrees, corner):
    path = tmp_path / "a.mp4"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 30, (64, 32))
    image = np.zeros((32, 64, 3), np.uint8)
    image[:16, :32] = WHITE  # the upper left quarter
    for _ in range(3):
        writer.write(image)
    writer.release()
    rotate_tag(path, degrees)
    frames = frames_of(open_source("video", str(path), silent))
    assert len(frames) == 3
    assert frames[0].image.shape == ((32, 64, 3) if degrees == 180 else (64, 32, 3))
    for y in (0, -1):
        for x in (0, -1):
            assert (frames[0].image[y, x].mean() > 200) == ((y, x) == corner)


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "mp4v"), ("a.avi", "MJPG")])
def test_a_cut_video_gives_what_is_left_and_says_so(tmp_path, name, codec):
    path = tmp_path / name
    write_video(path, 120, codec=codec)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, message = until_it_ends(open_source("video", str(path), silent))
    assert "cut short" in message
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert 20 < len(frames) < 100


@pytest.mark.parametrize("cut", [False, True])
def test_a_piece_of_a_longer_matroska_file_is_whole_unless_it_is_cut(tmp_path, cut):
    """As `ffmpeg -f segment` makes them: times go on from the piece before, and the duration is counted from 0."""
    write_video(tmp_path / "whole.mkv", 360)
    content = (tmp_path / "whole.mkv").read_bytes()
    clusters = [match.start() for match in re.finditer(b"\x1f\x43\xb6\x75", content)]
    first = next(at for at in clusters[1:])
    content = content[: clusters[0]] + content[first:]
    path = tmp_path / "piece.mkv"
    path.write_bytes(content[: len(content) // 2] if cut else content)
    source = open_source("video", str(path), silent)
    assert isinstance(source, VideoFile)
    if cut:
        frames, said = until_it_ends(source)
        assert "cut short" in said
    else:
        frames = frames_of(source)
        assert source.length == len(frames) < 360
    assert (frames[0].index, frames[0].time) == (0, 0)


def test_a_cut_mp4_has_lost_its_index(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, 60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="cut short"):
        open_source("video", str(path), silent)


class DamagedFile:
    """A file of 30 frames per second that declares `length` frames, of which those in `broken` cannot be read.

    As FFmpeg does, it fails once for each, and at the end always.
    """

    def __init__(self, length: float, frames: int, broken: set[int], times: list[float] | None = None) -> None:
        self.length = length
        self.times = times or [number / 30 for number in range(frames)]
        self.broken = broken
        self.next = -1
        self.failures = 0

    def grab(self) -> bool:
        self.next += 1
        good = self.next < len(self.times) and self.next not in self.broken
        self.failures += not good
        return good

    def retrieve(self):
        return True, np.full((4, 4, 3), self.next % 256, np.uint8)

    def get(self, property_id: int) -> float:
        if property_id == cv2.CAP_PROP_POS_MSEC:
            return 1000 * self.times[self.next]
        return {cv2.CAP_PROP_FPS: 30.0, cv2.CAP_PROP_FRAME_COUNT: self.length}.get(property_id, 0.0)

    def release(self) -> None:
        pass


@pytest.mark.parametrize(
    ("length", "broken"),
    [
        *((900, broken) for broken in ({0}, {7, 8, 9, 20}, set(range(10, 700)), {898, 899})),
        *((length, {7, 8, 9, 20}) for length in (0, -1, -9.2e15, 9.2e18, float("nan"))),
    ],
)
def test_damaged_packets_are_left_out_and_counted(length, broken):
    """Whatever the file says of its length; without one, ten failures in a row are its end."""
    told: list[str] = []
    capture = DamagedFile(length, 900, broken)
    source = VideoFile(capture, "a.mp4", told.append)
    frames = frames_of(source)
    kept = [number for number in range(900) if number not in broken]
    assert [frame.index for frame in frames] == kept
    assert [frame.image[0, 0, 0] for frame in frames] == [number % 256 for number in kept]
    np.testing.assert_allclose(times_of(frames), np.array(kept) / 30, atol=1e-6)
    inner = sum(number < kept[-1] for number in broken)
    assert source.skipped == inner
    assert [f"{inner} of its {900 if length == 900 else kept[-1] + 1} frames" in text for text in told] == [True] * (
        inner > 0
    )
    assert source.length == (900 if length == 900 else None)


def test_a_file_that_fails_for_ever_ends():
    capture = DamagedFile(900, 300, set())
    frames, message = until_it_ends(VideoFile(capture, "a.mp4", silent))
    assert len(frames) == 300
    assert "should have 900 frames and ends after 300" in message
    assert capture.failures == 1000


def test_uneven_frames_are_not_taken_for_missing_ones():
    times = [0, 0.03, 0.1, 0.14, 0.4, 0.45, 0.47]
    told: list[str] = []
    for name in ("a.mkv", "a.mp4", "a.gif"):
        source = VideoFile(DamagedFile(7, 7, set(), times), name, told.append)
        assert [frame.index for frame in frames_of(source)] == list(range(7))
    recorded_so = VideoFile(DamagedFile(5, 5, set(), [0, 1 / 30, 5 / 30, 6 / 30, 7 / 30]), "a.mp4", told.append)
    assert [frame.index for frame in frames_of(recorded_so)] == list(range(5))  # all of the frames that it counts
    assert told == []


def test_holes_in_a_matroska_file(tmp_path):
    """FFmpeg leaves them out by itself, without a failure."""
    path = tmp_path / "a.mkv"
    noise = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 30, (320, 240))
    for number in range(60):
        image = cv2.resize(noise.integers(0, 255, (15, 20, 3), np.uint8), (320, 240))
        image[:, :160] = 4 * number
        writer.write(image)
    writer.release()
    content = bytearray(path.read_bytes())
    for start in (len(content) // 3, len(content) // 2):
        content[start : start + 6000] = bytes(6000)
    path.write_bytes(content)
    told: list[str] = []
    source = open_source("video", str(path), told.append)
    assert isinstance(source, VideoFile)
    frames = frames_of(source)
    assert 30 < len(frames) < 58
    assert source.skipped == 60 - len(frames)
    assert frames[-1].index == 59
    np.testing.assert_allclose(times_of(frames), [frame.index / 30 for frame in frames], atol=2e-3)
    assert abs(frames[-1].image[:, 20:140].mean() - 4 * 59) < 8
    assert len(told) == 1


@pytest.mark.skipif(not MEDIA.is_dir(), reason=f"there are no clips at {MEDIA}")
def test_a_h264_file_with_two_percent_of_its_bytes_lost(tmp_path):
    content = bytearray((MEDIA / "made_grid_2x2.mp4").read_bytes())
    for start in np.random.default_rng(0).integers(8000, int(0.95 * len(content)), len(content) // 10_000):
        content[start : start + 200] = bytes(200)
    (tmp_path / "a.mp4").write_bytes(content)
    source = open_source("video", str(tmp_path / "a.mp4"), silent)
    assert isinstance(source, VideoFile)
    frames = frames_of(source)
    assert 150 < len(frames) < 200
    assert source.skipped == 200 - len(frames)
    assert frames[-1].index == 199
    np.testing.assert_allclose(times_of(frames), [frame.index / 30 for frame in frames], atol=2e-3)


def test_a_name_with_a_colon_is_no_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "12:30.mp4", 3)
    assert len(frames_of(open_source("video", "12:30.mp4", silent))) == 3


# --- cameras and streams ----------------------------------------------------------------------------------------------


class FakeCamera:
    """A camera of 30 frames per second whose driver, like V4L2's, queues four pictures and drops the newest if full.

    A picture's first pixels hold the moment when it was taken.
    """

    PERIOD, QUEUE = 1 / 30, 4

    def __init__(self, pictures: int | None = None) -> None:
        self._start = time.monotonic()
        self._taken = 0  # pictures that the sensor has delivered
        self._queue: list[float] = []
        self._left = pictures
        self._grabbed = 0.0
        self.released = False

    def _run_sensor(self) -> None:
        while self._start + self._taken * self.PERIOD <= time.monotonic():
            if len(self._queue) < self.QUEUE:
                self._queue.append(self._start + self._taken * self.PERIOD)
            self._taken += 1

    def grab(self) -> bool:
        if self._left == 0:
            return False
        self._run_sensor()
        while not self._queue:
            time.sleep(max(0.0, self._start + self._taken * self.PERIOD - time.monotonic()))
            self._run_sensor()
        self._grabbed = self._queue.pop(0)
        if self._left is not None:
            self._left -= 1
        return True

    def retrieve(self):
        image = np.zeros((4, 4, 3), np.uint8)
        image.reshape(-1)[:8] = np.frombuffer(np.float64(self._grabbed).tobytes(), np.uint8)
        return True, image

    def get(self, property_id: int) -> float:
        return 30.0 if property_id == cv2.CAP_PROP_FPS else 0.0

    def release(self) -> None:
        self.released = True


def age(image: np.ndarray) -> float:
    return time.monotonic() - float(np.frombuffer(image.reshape(-1)[:8].tobytes(), np.float64)[0])


def test_slow_work_does_not_make_live_frames_old():
    camera, naive = FakeCamera(), []
    for _ in range(14):
        camera.grab()
        naive.append(age(camera.retrieve()[1]))
        time.sleep(0.08)
    ours = []
    with LiveStream(FakeCamera(), "camera 0", None, silent) as source:
        for frame in source:
            if frame is None:
                continue
            ours.append(age(frame.image))
            assert ours[-1] >= time.monotonic() - frame.captured_at - 0.01  # captured_at is not earlier than the truth
            time.sleep(0.08)
            if len(ours) == 14:
                break
    assert statistics.median(naive[6:]) > 0.2  # what everybody's loop does
    assert statistics.median(ours) < 0.04


def test_dropped_frames_leave_gaps_in_index_and_none_in_time():
    with LiveStream(FakeCamera(), "camera 0", None, silent) as source:
        seen = []
        for frame in source:
            if frame is None:
                continue
            seen.append(frame)
            time.sleep(0.1)
            if len(seen) == 4:
                break
    steps = np.diff([frame.index for frame in seen])
    assert (steps >= 2).all()
    np.testing.assert_allclose(np.diff([frame.time for frame in seen]), steps / 30, atol=0.04)
    assert (seen[0].index, seen[0].time) == (0, 0.0)


def test_a_camera_that_is_unplugged_ends_after_its_last_frame():
    camera = FakeCamera(pictures=3)
    frames, message = until_it_ends(LiveStream(camera, "camera 0", None, silent))
    assert "camera 0 gives no more pictures" in message
    assert frames
    assert camera.released


def test_a_silent_camera_hands_back_control():
    class Silent(FakeCamera):
        def grab(self) -> bool:
            time.sleep(0.3)
            return super().grab()

    with LiveStream(Silent(), "camera 0", None, silent) as source:
        assert next(iter(source)) is None


def test_a_broken_stream_is_opened_again_with_growing_pauses(monkeypatch):
    monkeypatch.setattr(sources, "_FIRST_DELAY", 0.02)
    told: list[str] = []
    answers = [None, None, FakeCamera(pictures=2), None, None, None, None, None, None, None]
    source = LiveStream(FakeCamera(pictures=2), "the stream", lambda: answers.pop(0), told.append, patience=0.3)
    frames, message = until_it_ends(source)
    assert "did not come back" in message
    assert frames[-1].index >= 2  # counted on over the break
    assert [text.rsplit(" ", 2)[1] for text in told[:3]] == ["0.02", "0.04", "0.08"]
    assert "is back" in told[3]
    assert "0.02" in told[4]


def test_an_error_in_the_reader_thread_reaches_the_caller():
    class Faulty(FakeCamera):
        def grab(self) -> bool:
            raise cv2.error("of the driver")

    with LiveStream(Faulty(), "camera 0", None, silent) as source, pytest.raises(cv2.error, match="of the driver"):
        list(source)


@pytest.fixture
def mjpeg_server() -> Iterator[tuple[str, list[int]]]:
    """A camera on the network that breaks off after 15 pictures, every time; and its list of connections."""
    connections: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            connections.append(1)
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=next")
            self.end_headers()
            picture = cv2.imencode(".jpg", np.full((48, 64, 3), 50 * len(connections), np.uint8))[1].tobytes()
            head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n".encode()
            try:
                for _ in range(15):
                    self.wfile.write(head + picture + b"\r\n")
                    time.sleep(1 / 60)
            except ConnectionError:  # the client has gone
                pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://viewer:secret@127.0.0.1:{server.server_port}/video", connections
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_network_stream_that_breaks_off_comes_back(mjpeg_server, monkeypatch):
    monkeypatch.setattr(sources, "_FIRST_DELAY", 0.05)
    url, connections = mjpeg_server
    told: list[str] = []
    brightness: list[float] = []
    source = open_source("video", url, told.append)
    assert isinstance(source, LiveStream)
    with source:
        for frame in source:
            if frame is not None:
                brightness.append(frame.image.mean())
                if frame.image.mean() > 90:
                    break
    assert len(connections) >= 2
    assert min(brightness) < 60
    assert any("broke off" in text for text in told)
    assert any("is back" in text for text in told)
    assert not any("secret" in text for text in told)


def test_a_file_is_no_camera(tmp_path):
    """It would be opened again for ever."""
    write_video(tmp_path / "a.mp4", 5)
    told: list[str] = []
    source = open_source("webcam", f"file://{tmp_path}/a.mp4", told.append)
    assert len(frames_of(source)) == 5
    assert told == [f"file://{tmp_path}/a.mp4 is a file and no camera: it is played once, all of its frames"]


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "source", "message"),
    [
        ("image", "nothing.png", "does not exist"),
        ("image", "empty", "holds no pictures"),
        ("image", "empty/*.png", "holds no pictures"),
        ("image", "clip.mp4", "use mode=video"),
        ("image", "http://host/a.png", "download"),
        ("video", "nothing.mp4", "does not exist"),
        ("video", "empty", "is a folder"),
        ("video", "photo.png", "use mode=image"),
        ("video", "text.mp4", "cannot be read as a video"),
        ("video", "void.mp4", "cannot be read as a video"),
        ("image", "x" * 300, "does not exist"),
        ("video", "x" * 300, "does not exist"),
        ("video", "x" * 300 + ".mp4", "does not exist"),
        ("webcam", "/dev/" + "x" * 300, "there is no camera"),
        ("webcam", "clip.mp4", "use mode=video"),
        ("webcam", "photo.png", "use mode=image"),
        ("webcam", "rtsp://me:secret@127.0.0.1:9/a", r"rtsp://me:\*\*\*@127.0.0.1:9/a cannot be opened"),
    ],
)
def test_mistakes_are_named_with_the_way_out(tmp_path, monkeypatch, mode, source, message, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("this is no video")
    (tmp_path / "void.mp4").touch()
    write_video(tmp_path / "clip.mp4", 2)
    solid(RED).save(tmp_path / "photo.png")
    with pytest.raises(UserError, match=message) as error:
        open_source(mode, source, silent)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""  # OpenCV and FFmpeg keep quiet


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="looks at Linux device files")
def test_no_camera_and_a_camera_that_does_not_open(capfd):
    with pytest.raises(UserError, match=r"no camera 99 .*(there are|no camera at all)"):
        open_source("webcam", "99", silent)
    with pytest.raises(UserError, match="no other program using it"):
        open_source("webcam", "/dev/null", silent)
    assert capfd.readouterr().err == ""


def test_a_glob_that_pathlib_refuses(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match=r"cannot be searched|holds no pictures"):
        open_source("image", f"{tmp_path}/photos/**.jpg", silent)


def test_picture_files_needs_no_camera_but_says_its_length(tmp_path):
    solid(RED).save(tmp_path / "a.png")
    source = PictureFiles([tmp_path / "a.png"], tmp_path, silent)
    assert source.length == 1
    assert not source.live
    assert source.name.endswith("a.png")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://user:secret@camera/1", "rtsp://user:***@camera/1"),
        ("rtsp://user:se/cret@camera/1", "rtsp://user:***@camera/1"),
        ("rtsp://user:p@ss@camera/1", "rtsp://user:***@camera/1"),
        ("http://host:8080/a@b.mp4", "http://host:8080/a@b.mp4"),
        ("http://host/a.mp4?token=secret&x=1", "http://host/a.mp4?token=***&x=1"),
        ("http://host/a?x=1&api_key=secret", "http://host/a?x=1&api_key=***"),
        ("rtsp://user:secret@host:554/a?password=secret", "rtsp://user:***@host:554/a?password=***"),
        ("a:b@c.jpg", "a:b@c.jpg"),
        ("rtsp://me@mail.example:secret@camera/1", "rtsp://me@mail.example:***@camera/1"),
        ("rtsp://me@host:554/a", "rtsp://me@host:554/a"),
        (
            "rtsp://h:554/user=admin_password=s/e,c&r_et_channel=1_stream=0.sdp?real_stream",
            "rtsp://h:554/user=admin_password=***_channel=1_stream=0.sdp?real_stream",
        ),
        ("http://cam/v.cgi?loginuse=a&loginpas=secret", "http://cam/v.cgi?loginuse=a&loginpas=***"),
        ("http://cam/a?usr=admin&pw=secret", "http://cam/a?usr=admin&pw=***"),
        ("http://h/x#token=secret", "http://h/x#token=***"),
        ("http://h/x?token=ab_cd=&y=1", "http://h/x?token=***&y=1"),
    ],
)
def test_passwords_and_tokens_are_never_shown(url: str, shown: str) -> None:
    assert hide_password(url) == shown
