"""From a picture and squares to gray faces of the size that the network was trained on. Knows nothing of detectors.

FER2013's faces are whole squares, never stretched ones. What a square reaches past the picture's edge is filled with
the nearest pixels: constant black would be an edge that no training face has.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from fer.inference.prediction import Box, Detection

SIZE = 48  # pixels per side of a face of FER2013


def square(x: float, y: float, side: float) -> Box:
    """The square with centre (x, y), as a box."""
    return (x - side / 2, y - side / 2, side, side)


def crop_detections(
    picture: npt.NDArray[np.uint8], detections: Sequence[Detection], size: int = SIZE
) -> npt.NDArray[np.uint8]:
    """The faces of `detections` as `crop_faces` cuts them, turned upright by quarter turns."""
    faces = crop_faces(picture, [detection.box for detection in detections], size)
    for face, detection in zip(faces, detections, strict=True):
        if detection.turned:
            face[:] = np.rot90(face, detection.turned // 90).copy()
    return faces


def crop_faces(picture: npt.NDArray[np.uint8], squares: Sequence[Box], size: int = SIZE) -> npt.NDArray[np.uint8]:
    """The faces in `squares`, gray and of one size, cut at whole pixels.

    Args:
        picture: uint8 (H, W, 3), BGR, or (H, W), gray.
        squares: boxes of equal width and height in pixels of the picture; any of them may lie past its edges.
        size: pixels per side of a face, S.

    Returns:
        uint8 (len(squares), S, S).
    """
    faces = np.empty((len(squares), size, size), np.uint8)
    if len(squares) == 0:
        return faces
    gray = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) if picture.ndim == 3 else picture
    for face, (x, y, side, _) in zip(faces, squares, strict=True):
        pixels = max(1, round(side))
        rows, columns = round(y) + np.arange(pixels), round(x) + np.arange(pixels)
        patch = gray.take(rows, axis=0, mode="clip").take(columns, axis=1, mode="clip")
        shrinks = pixels > size  # area averaging keeps what nearest samples would alias; it is blocky when enlarging
        face[:] = cv2.resize(patch, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return faces
