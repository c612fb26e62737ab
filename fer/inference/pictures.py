"""Whatever a person calls a picture, as upright 8-bit BGR: files, encoded bytes, Pillow's pictures, arrays.

Knows nothing of faces, folders or videos.
"""

import importlib.util
import io
import threading
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from fer.errors import UserError
from fer.files import is_there, picture_formats

BGRImage = npt.NDArray[np.uint8]  # (H, W, 3)
Picture = str | Path | bytes | bytearray | memoryview | Image.Image | npt.NDArray[Any]  # what `to_picture` takes

# fmt: off
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif",
                    ".jpe", ".jfif", ".avif", ".jp2", ".pgm", ".ppm", ".pnm", ".heic", ".heif")
# fmt: on
HEIF_SUFFIXES = (".heic", ".heif")  # of these, read where the package pillow-heif is installed
_one_filter_at_a_time = threading.Lock()  # filters of warnings are the process's: two threads would mix theirs up
_WHITES = (1, 255, 65535)  # what white may be in a picture of floats
_SCAN = b"\xff\xda"  # of a JPEG file; its data have these two bytes nowhere else
_MOST_SCANS = 100  # of a progressive one; usual ones have about ten
_ORIENTATION = 0x0112  # of EXIF
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_KINDS = (
    "a picture is a path, the bytes of a picture file, a picture of Pillow, or an array (H, W) in gray, (H, W, 3) in "
    "BGR or (H, W, 4) in BGRA, of uint8, of uint16, or of floats in [0, 1]"
)


def to_picture(image: Picture) -> BGRImage:
    """The picture that `image` stands for.

    Files and Pillow's pictures are turned upright by their EXIF tag. 16 bits are divided by 257, floats are multiplied
    by 255, and transparent parts become white. Integers of Pillow ("I") are 8 bits where none exceeds 255, else 16.

    Args:
        image: a path, the bytes of a picture file, a picture of Pillow, or an array (H, W), (H, W, 1), (H, W, 3) in BGR
            or (H, W, 4) in BGRA, of uint8, uint16, or floats in [0, 1].

    Returns:
        uint8 (H, W, 3), BGR; an array that is one already is returned as it is.

    Raises:
        UserError: anything else; a file that cannot be read.
    """
    if image is None:
        raise UserError("the picture is None: did cv2.imread fail? It returns None for a file that it cannot read")
    if isinstance(image, str | Path):
        return read_picture(image)
    if isinstance(image, bytes | bytearray | memoryview):
        data = bytes(image)  # of a memoryview with steps, too
        return _decoded(io.BytesIO(data), f"a picture of {len(data)} bytes")
    if isinstance(image, Image.Image):
        return _decoded(image, "a picture of Pillow")
    if isinstance(image, np.ndarray):
        return _from_array(image)
    raise UserError(f"{_KINDS}; this is {type(image).__module__}.{type(image).__qualname__}")


def readable_suffixes() -> tuple[str, ...]:
    """Those of `PICTURE_SUFFIXES` that can be read here."""
    return PICTURE_SUFFIXES if _reads_heif() else tuple(set(PICTURE_SUFFIXES) - set(HEIF_SUFFIXES))


def is_animated(path: str | Path) -> bool | None:
    """Whether the picture in a file moves; None where it is no picture."""
    try:
        with _open(path) as file:
            return bool(getattr(file, "is_animated", False))
    except Exception:  # Pillow's decoders raise many types for damaged files
        return None


def read_picture(path: str | Path) -> BGRImage:
    """The picture in a file as upright 8-bit BGR.

    EXIF rotation is applied, CMYK and palettes are converted, 16 bits are scaled to 8, transparent parts become white,
    and of an animation the first picture is taken. Of floats (TIFF) the first of 1, 255 and 65535 that none of them
    exceeds is white, and 0 black; with values below 0 or above 65535 they are stretched from their least to their
    greatest.

    Raises:
        UserError: the file cannot be read, or holds no whole picture; of HEIC, when pillow-heif is not installed.
    """
    if Path(path).suffix.lower() in HEIF_SUFFIXES and not _reads_heif() and is_there(path):
        raise UserError(f"{path} is a HEIC picture: pip install pillow-heif reads it")
    return _decoded(path, str(path))


def _decoded(source: str | Path | io.BytesIO | Image.Image, name: str) -> BGRImage:
    try:
        try:
            return _read(source)
        except Warning:  # of a large picture, or odd metadata; this program takes them for errors
            if isinstance(source, io.BytesIO):
                source.seek(0)
            with _one_filter_at_a_time, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _read(source)
    except FileNotFoundError as error:
        raise UserError(f"{name} does not exist") from error
    except PermissionError as error:
        raise UserError(f"{name} may not be read: permission denied") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{name} is too large a picture; scale it down to at most 13,000 x 13,000 pixels") from error
    except Exception as error:  # Pillow's decoders raise many types for damaged files
        raise UserError(f"{name} cannot be read as a picture; it is damaged, cut short, or something else") from error


def _read(source: str | Path | io.BytesIO | Image.Image) -> BGRImage:
    if isinstance(source, Image.Image):
        return _to_bgr(source)
    with _open(source) as file:
        _refuse_endless(file)
        return _to_bgr(file)


def _refuse_endless(file: Image.Image) -> None:
    """Raises ValueError for a progressive JPEG of endless scans: a few bytes each, and each a pass over all pixels."""
    stream = getattr(file, "fp", None)
    if file.info.get("progressive") and stream is not None:
        place = stream.tell()
        stream.seek(0)
        scans = stream.read().count(_SCAN)
        stream.seek(place)
        if scans > _MOST_SCANS:
            raise ValueError(f"{scans} scans")


def _open(source: str | Path | io.BytesIO) -> Image.Image:
    return Image.open(source, formats=_formats())


@cache
def _formats() -> list[str]:
    _reads_heif()
    return picture_formats()


def _upright(picture: Image.Image) -> Image.Image:
    """Turned by the EXIF tag, which is read and no more.

    `ImageOps.exif_transpose` writes all tags anew, and fails where one has a type that it should not have.
    """
    picture.load()
    try:
        method = _UPRIGHT.get(picture.getexif().get(_ORIENTATION, 1))
    except Warning:
        raise
    except Exception:  # what is damaged beside the pixels
        method = None
    return picture if method is None else picture.transpose(method)


def _to_bgr(picture: Image.Image) -> BGRImage:
    deep = picture.format == "PPM"  # of which Pillow scales what is not 8 bits to 16
    picture = _upright(picture)
    if picture.mode.startswith("I"):  # gray, mostly of 16 bits; Pillow would clip it to 8 bits instead of scaling
        values = np.asarray(picture).clip(0, 65535)
        small = picture.mode == "I" and not deep and values.max() <= 255
        return _from_array(values.astype(np.uint8 if small else np.uint16))
    if picture.mode == "F":
        return _from_array(_scaled(np.asarray(picture)))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    rgb = np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), np.uint8)


def _scaled(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Floats as 8 bits, by the rule of `read_picture`; what is no number is black."""
    finite = values[np.isfinite(values)]
    black, white = (0.0, 1.0) if not finite.size else (float(finite.min()), float(finite.max()))
    if black >= 0 and white <= _WHITES[-1]:
        black, white = 0.0, next(level for level in _WHITES if white <= level)
    scaled = np.nan_to_num((values.astype(np.float64) - black) * (255 / max(white - black, 1e-30)), nan=0.0)
    return (scaled.clip(0, 255) + 0.5).astype(np.uint8)


@cache
def _reads_heif() -> bool:
    """Whether Pillow reads HEIC, which it learns here from pillow-heif where that is installed."""
    if importlib.util.find_spec("pillow_heif") is None:
        return False
    import pillow_heif

    pillow_heif.register_heif_opener()
    return True


def _from_array(image: npt.NDArray[Any]) -> BGRImage:
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)) or not image.size:
        raise UserError(f"{_KINDS}; this is {image.dtype} of shape {image.shape}")
    if image.dtype.newbyteorder("=") == np.uint16:
        image = (image // 257).astype(np.uint8)
    elif np.issubdtype(image.dtype, np.floating):
        lowest, highest = float(image.min()), float(image.max())
        if not (lowest >= 0 and highest <= 1):  # of NaN, too
            raise UserError(
                f"floats must be in [0, 1], and these are from {lowest:g} to {highest:g}; divide them by 255"
            )
        image = (255 * image.astype(np.float32) + 0.5).astype(np.uint8)
    elif image.dtype != np.uint8:
        raise UserError(f"{_KINDS}; this is {image.dtype} of shape {image.shape}")
    image = np.ascontiguousarray(image)
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels == 1:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
    if channels == 4:
        opacity = image[..., 3:].astype(np.float32) / 255
        return (255 + (image[..., :3] - np.float32(255)) * opacity + np.float32(0.5)).astype(np.uint8)
    return image
