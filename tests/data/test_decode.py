import io
import subprocess

import cv2
import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from fer.data import decode
from fer.data.decode import face_of
from fer.data.folder import to_face


def encoded(face: np.ndarray, how: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(face).save(file, how, **options)
    return file.getvalue()


def by_pillow(content: bytes) -> np.ndarray | None:
    """None for what Pillow refuses."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return to_face(image)
    except Exception:
        return None


def by_us(content: bytes) -> np.ndarray | None:
    try:
        return face_of(content, 48)
    except Exception:
        return None


def assert_same(content: bytes) -> None:
    ours, theirs = by_us(content), by_pillow(content)
    assert (ours is None) == (theirs is None)
    if ours is not None:
        np.testing.assert_array_equal(ours, theirs)


def smooth(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6), np.uint8)
    return cv2.resize(noise, (48, 48), interpolation=cv2.INTER_CUBIC)


FORMS = [
    ("png", {}),
    ("png", {"optimize": True}),
    ("png", {"compress_level": 0}),
    ("jpeg", {"quality": 75}),
    ("jpeg", {"quality": 100, "progressive": True}),
    ("jpeg", {"quality": 30, "optimize": True}),
]


@pytest.mark.parametrize(("how", "options"), FORMS)
def test_plain_gray_files_are_read_fast_and_to_the_pixel(
    how: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [encoded(smooth(seed), how, **options) for seed in range(20)]
    for content in contents:
        assert_same(content)
    monkeypatch.setattr(Image, "open", None)  # Pillow is not asked
    assert all(by_us(content) is not None for content in contents)


@pytest.mark.parametrize(("how", "options"), FORMS)
def test_damage_is_found_as_pillow_finds_it(how: str, options: dict[str, object]) -> None:
    whole = encoded(smooth(), how, **options)
    rng = np.random.default_rng(1)
    for cut in [*range(1, 40), *rng.integers(40, len(whole), 40)]:
        assert_same(whole[: len(whole) - int(cut)])
    if how == "png":  # of a JPEG, both decoders guess at what is damaged
        for place in rng.integers(0, len(whole), 200):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << int(rng.integers(8))
            assert_same(bytes(damaged))


def test_others_go_to_pillow() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for content in (
        encoded(smooth(), "jpeg", exif=exif),
        encoded(smooth(), "png", transparency=0),
        encoded(smooth(), "png", exif=exif),
        encoded(np.stack([smooth()] * 3, axis=2), "jpeg"),
        encoded(np.stack([smooth()] * 3, axis=2), "png"),
        encoded(smooth().astype(np.uint16) << 8, "png"),
        encoded(smooth() > 128, "png"),
        encoded(smooth()[:40], "png"),
        encoded(smooth(), "webp", lossless=True),
        encoded(smooth(), "bmp"),
        b"",
        b"\x89PNG\r\n\x1a\n",
    ):
        assert not decode._is_plain(content, 48)
        assert_same(content)


def test_a_program_is_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ghostscript would run what is in an EPS file."""
    for name in ("Popen", "check_call", "run"):
        monkeypatch.setattr(subprocess, name, lambda *_, **__: pytest.fail("a program was started"))
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 48\n%%EndComments\nshowpage\n"
    with pytest.raises(UnidentifiedImageError):
        face_of(program, 48)
