"""Whatever is called a picture comes out as the same upright BGR, or is refused in words."""

import importlib.util
import os
import subprocess
import sys
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
    ],
    ids=["BGR", "gray", "one channel", "opaque", "transparent", "uint16", "float64", "gray float32", "mirrored"],
)
def test_arrays(image, expected):
    found = to_picture(image)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)


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
