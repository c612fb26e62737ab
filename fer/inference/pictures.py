"""Whatever a person calls a picture, as upright 8-bit BGR: files, encoded bytes, Pillow's pictures, arrays.

Knows nothing of faces, folders or videos.
"""

import io
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from fer.errors import UserError

BGRImage = npt.NDArray[np.uint8]  # (H, W, 3)
Picture = str | Path | bytes | Image.Image | npt.NDArray[Any]  # what `to_picture` takes

_KINDS = (
    "a picture is a path, the bytes of a picture file, a picture of Pillow, or an array (H, W) in gray, (H, W, 3) in "
    "BGR or (H, W, 4) in BGRA, of uint8, of uint16, or of floats in [0, 1]"
)


def to_picture(image: Picture) -> BGRImage:
    """The picture that `image` stands for.

    Files and Pillow's pictures are turned upright by their EXIF tag. 16 bits are divided by 257, floats are multiplied
    by 255, and transparent parts become white.

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
        return _decoded(io.BytesIO(image), f"a picture of {len(image)} bytes")
    if isinstance(image, Image.Image):
        return _decoded(image, "a picture of Pillow")
    if isinstance(image, np.ndarray):
        return _from_array(image)
    raise UserError(f"{_KINDS}; this is {type(image).__module__}.{type(image).__qualname__}")


def read_picture(path: str | Path) -> BGRImage:
    """The picture in a file as upright 8-bit BGR.

    EXIF rotation is applied, CMYK and palettes are converted, 16 bits are scaled to 8, transparent parts become white,
    and of an animation the first picture is taken.

    Raises:
        UserError: the file cannot be read, or holds no whole picture.
    """
    return _decoded(path, str(path))


def _decoded(source: str | Path | io.BytesIO | Image.Image, name: str) -> BGRImage:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large pictures, which are welcome, and of odd metadata
            if isinstance(source, Image.Image):
                return _to_bgr(ImageOps.exif_transpose(source))
            with Image.open(source) as file:
                ImageOps.exif_transpose(file, in_place=True)
                return _to_bgr(file)
    except FileNotFoundError as error:
        raise UserError(f"{name} does not exist") from error
    except PermissionError as error:
        raise UserError(f"{name} may not be read: permission denied") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{name} is too large a picture; scale it down to at most 13,000 x 13,000 pixels") from error
    except Exception as error:  # Pillow's decoders raise many types for damaged files
        raise UserError(f"{name} cannot be read as a picture; it is damaged, cut short, or something else") from error


def _to_bgr(picture: Image.Image) -> BGRImage:
    if picture.mode.startswith("I"):  # 16-bit gray; Pillow would clip it to 8 bits instead of scaling
        gray = (np.asarray(picture).clip(0, 65535) / 257).astype(np.uint8)
        return np.asarray(cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR), np.uint8)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    rgb = np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), np.uint8)


def _from_array(image: npt.NDArray[Any]) -> BGRImage:
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)) or not image.size:
        raise UserError(f"{_KINDS}; this is {image.dtype} of shape {image.shape}")
    if image.dtype == np.uint16:
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
