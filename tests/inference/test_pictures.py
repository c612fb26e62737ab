"""Whatever is called a picture comes out as the same upright BGR, or is refused in words."""

import importlib.util
import io
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from fer.errors import UserError
from fer.inference import pictures
from fer.inference.pictures import read_picture, to_picture

PICTURE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
GRAY = PICTURE[..., 0]


@pytest.fixture
def saved(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), PICTURE)
    return tmp_path / "a.png"


def test_files_and_pictures_of_pillow(saved):
    with Image.open(saved) as file:
        things: list[Any] = [str(saved), saved, saved.read_bytes(), bytearray(saved.read_bytes()), file]
        things.append(memoryview(bytes(byte for pair in zip(things[2], things[2], strict=True) for byte in pair))[::2])
        for thing in things:
            np.testing.assert_array_equal(to_picture(thing), PICTURE)
    np.testing.assert_array_equal(to_picture(Image.fromarray(PICTURE[..., ::-1])), PICTURE)


def test_an_exif_tag_turns_a_picture_of_pillow_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PICTURE[..., ::-1]).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(to_picture(picture), np.rot90(PICTURE, -1))
        assert picture.size == (40, 30)  # the caller's own is left alone


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (PICTURE, PICTURE),
        (GRAY, np.stack([GRAY] * 3, axis=2)),
        (GRAY[..., None], np.stack([GRAY] * 3, axis=2)),
        (np.dstack([PICTURE, np.full_like(GRAY, 255)]), PICTURE),
        (np.dstack([PICTURE, np.zeros_like(GRAY)]), np.full_like(PICTURE, 255)),
        (PICTURE.astype(np.uint16) * 257, PICTURE),
        (PICTURE / 255, PICTURE),
        ((GRAY / 255).astype(np.float32), np.stack([GRAY] * 3, axis=2)),
        (PICTURE[:, ::-1], PICTURE[:, ::-1]),
        (PICTURE.astype(">u2") * 257, PICTURE),
        ((PICTURE / 255).astype(">f4"), PICTURE),
    ],
    ids=[
        "BGR",
        "gray",
        "1 channel",
        "opaque",
        "clear",
        "uint16",
        "float64",
        "float32",
        "mirrored",
        ">uint16",
        ">float32",
    ],
)
def test_arrays(image, expected):
    found = to_picture(image)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("tag", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_every_exif_orientation(suffix, tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    file = io.BytesIO()
    blocks = np.kron(np.arange(6).reshape(2, 3) * 50, np.ones((16, 16))).astype(np.uint8)
    Image.fromarray(blocks).convert("RGB").save(file, Image.registered_extensions()[suffix], exif=exif, quality=95)
    turned = {2: blocks[:, ::-1], 3: np.rot90(blocks, 2), 4: blocks[::-1], 5: blocks.T}
    turned |= {6: np.rot90(blocks, -1), 7: np.rot90(blocks, 2).T, 8: np.rot90(blocks)}
    assert np.abs(to_picture(file.getvalue())[..., 0].astype(int) - turned[tag]).max() < 25


@pytest.mark.parametrize(
    ("kind", "value"),
    [(10, b"\xff\xff\xff\xff\x02\0\0\0"), (8, b"\xff\xff\0\0"), (2, b"72\0\0"), (99, b"\0\0\0\0")],
    ids=["SRATIONAL", "SSHORT", "ASCII", "unknown"],
)
def test_odd_types_of_other_exif_tags_matter_not(kind, value):
    """As cameras and programs write XResolution; Pillow cannot write these tags back."""

    def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
        return b"".join(number.to_bytes(size, "little") for number, size in ((tag, 2), (kind, 2), (count, 4))) + value

    far = len(value) > 4
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + entry(0x0112, 3, 1, b"\x06\0\0\0")
    exif += entry(0x011A, kind, 3 if kind == 2 else 1, b"\x26\0\0\0" if far else value) + b"\0\0\0\0"
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, "JPEG", exif=exif + (value if far else b""))
    assert to_picture(file.getvalue()).shape == (40, 30, 3)


def test_eps_is_not_given_to_ghostscript(tmp_path, monkeypatch):
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    for name in ("Popen", "check_call", "run"):
        monkeypatch.setattr(subprocess, name, lambda *_, **__: pytest.fail("a program was started"))
    (tmp_path / "a.jpg").write_bytes(program)
    for source in (program, tmp_path / "a.jpg"):
        with pytest.raises(UserError, match="cannot be read as a picture"):
            to_picture(source)
    assert pictures.is_animated(tmp_path / "a.jpg") is None


def test_endless_scans_are_refused(tmp_path):
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, "JPEG", progressive=True)
    picture = file.getvalue()
    assert to_picture(picture).shape == PICTURE.shape
    last = picture.rindex(b"\xff\xda")
    endless = picture[:last] + 200 * picture[last:-2] + picture[-2:]
    (tmp_path / "a.jpg").write_bytes(endless)
    for source in (endless, tmp_path / "a.jpg"):
        with pytest.raises(UserError, match="cannot be read as a picture"):
            to_picture(source)


@pytest.mark.parametrize("kind", ["ICO", "TGA", "PCX", "DDS", "JPEG2000", "AVIF", "PPM", "SGI"])
def test_other_formats_of_pillow_are_read(kind):
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 100, 50)).save(file, kind)
    assert np.abs(to_picture(file.getvalue())[8, 8].astype(int) - (50, 100, 200)).max() < 9


@pytest.mark.parametrize("kind", [IndexError, RuntimeError, NotImplementedError])
def test_whatever_a_decoder_raises_is_a_picture_that_cannot_be_read(saved, monkeypatch, kind):
    def fail(*_: object, **__: object) -> None:
        raise kind

    monkeypatch.setattr(Image, "open", fail)
    assert pictures.is_animated(saved) is None
    with pytest.raises(UserError, match="cannot be read as a picture"):
        read_picture(saved)


def test_the_filters_of_warnings_are_the_callers(saved):
    with warnings.catch_warnings():
        before = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(read_picture, [saved] * 200))
        assert list(warnings.filters) == before


@pytest.mark.parametrize("action", ["ignore", "always", "error"])
def test_a_large_picture_is_read_whatever_the_caller_makes_of_warnings(saved, monkeypatch, action):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter(action)
        before = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(to_picture, [saved, saved.read_bytes()] * 50))
        assert list(warnings.filters) == before
    assert all((picture == PICTURE).all() for picture in found)
    assert bool(told) == (action == "always")


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + ".heic", "a\0b"], ids=["long", "long HEIC", "zero byte"])
def test_names_that_no_file_can_have(name):
    with pytest.raises(UserError, match="cannot be read"):
        to_picture(name)


def test_integers_of_pillow_are_8_bits_where_none_is_greater():
    gray = Image.fromarray(GRAY)
    np.testing.assert_array_equal(to_picture(gray.convert("I"))[..., 0], GRAY)
    np.testing.assert_array_equal(to_picture(Image.fromarray(GRAY.astype(np.int32) * 257))[..., 0], GRAY)
    dark = np.full((4, 4), 200, ">u2").tobytes()
    assert to_picture(b"P5 4 4 65535 " + dark).max() == 0  # says that it has 16 bits


def test_half_transparent_is_half_white():
    pixel = np.array([[[0, 100, 255, 128]]], np.uint8)
    np.testing.assert_allclose(to_picture(pixel)[0, 0], (127, 177, 255), atol=1)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, r"did cv2\.imread fail"),
        ("missing.png", "missing.png does not exist"),
        (b"not a picture", "a picture of 13 bytes cannot be read"),
        (7, "this is builtins.int"),
        ({}, "this is builtins.dict"),
        (PICTURE.astype(np.int64), "this is int64 of shape"),
        (PICTURE > 9, "this is bool of shape"),
        (PICTURE.astype(np.float32), r"must be in \[0, 1\], and these are from 0 to 255; divide them by 255"),
        (np.full((9, 9), np.nan), r"must be in \[0, 1\]"),
        (np.zeros((5, 9, 9, 3), np.uint8), r"of shape \(5, 9, 9, 3\)"),
        (np.zeros((9, 9, 2), np.uint8), r"of shape \(9, 9, 2\)"),
        (np.zeros((0, 9, 3), np.uint8), r"of shape \(0, 9, 3\)"),
        (np.zeros(48, np.uint8), r"of shape \(48,\)"),
    ],
    ids=str,
)
def test_anything_else_is_refused_in_words(image, message):
    with pytest.raises(UserError, match=message):
        to_picture(image)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0.5, 1], [0, 128, 255]),
        ([0.2, 0.4, 0.6], [51, 102, 153]),
        ([0, 2, 200], [0, 2, 200]),
        ([0, 257, 25700], [0, 1, 100]),
        ([-1, 0, 1], [0, 128, 255]),
        ([0, 50_000, 100_000], [0, 128, 255]),
        ([float("nan"), 0, 1], [0, 0, 255]),
        ([float("nan")] * 3, [0, 0, 0]),
        ([-7, -7, -7], [0, 0, 0]),
    ],
)
def test_a_tiff_of_floats_is_scaled_by_a_rule(tmp_path, values, expected):
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "a.tiff")
    assert read_picture(tmp_path / "a.tiff")[0, :, 0].tolist() == expected


def test_heic_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_reads_heif", lambda: False)
    (tmp_path / "a.HEIC").write_bytes(b"ftypheic")
    with pytest.raises(UserError, match=r"a\.HEIC is a HEIC picture: pip install pillow-heif reads it"):
        read_picture(tmp_path / "a.HEIC")


@pytest.mark.skipif(importlib.util.find_spec("pillow_heif") is None, reason="pillow-heif is not installed")
def test_heic_with_its_package(tmp_path):
    """In a process of its own: Pillow goes on reading HEIC once it has learnt to."""
    code = """
import numpy as np, pillow_heif
from fer.inference.pictures import read_picture, to_picture
picture = np.full((64, 64, 3), (200, 100, 50), np.uint8)
pillow_heif.from_bytes("RGB", (64, 64), picture.tobytes()).save("a.heic", quality=95)
assert abs(read_picture("a.heic").astype(int) - (50, 100, 200)).max() < 8
assert abs(to_picture(open("a.heic", "rb").read()).astype(int) - (50, 100, 200)).max() < 8
"""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
