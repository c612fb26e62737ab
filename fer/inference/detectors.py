"""Where the faces of a picture are: OpenCV's YuNet and Haar cascade, or a caller's own. Knows nothing of emotions.

Every detector here may be called by many threads at once, and pickled. YuNet and Haar look at a reduced copy, and both
answer in the same squares, those that frame a face as FER2013's pictures do. The factors between each detector's own
boxes and these squares are measured: docs/detection.md says how.
"""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

import cv2
import numpy as np
import numpy.typing as npt

from fer.errors import UserError
from fer.files import at_home
from fer.inference.crop import square
from fer.inference.pictures import BGRImage
from fer.inference.prediction import Detection
from fer.settings.infer import DetectorName
from fer.weights import YUNET

NAMES = get_args(DetectorName)

_SMALLEST_LONG_SIDE = 192  # px: of FER2013's own 48-px faces YuNet finds 98 % enlarged to this, 74 % as they are
_SMALLEST_SHORT_SIDE = 64  # px: under two of its coarsest cells (32 px) YuNet answers with noise of score 1.0

_YUNET_SIDE = 0.94  # of a YuNet box's height
_YUNET_RISE = 0.02  # of the same: how far the square's centre lies above the box's
_TURN_SURE = 0.92  # the score from which a face is upright
_TURN_SIDE = 128  # px in which a face is looked at again,
_TURN_MARGIN = 2.0  # with surroundings up to this many times its side
_TURN_NEAR = 0.12  # of that: how far from the middle the same face may be found
_TURN_LEAD = 0.05  # of score by which another quarter turn must be surer
_HAAR_SIDE = 1.035  # of a Haar box's side; the centres agree
_HAAR_SCALE_FACTOR = 1.2  # between the sizes at which the cascade looks
_HAAR_SMALLEST = 24  # px, the size of the cascade's window
_HAAR_HALF = 2.5  # neighbours at which its score is 0.5


# The faces of a picture, uint8 (H, W, 3) in BGR, of any size from 1x1, the surest first; for several threads at once.
Detector = Callable[[BGRImage], list[Detection]]


def create_detector(
    name: str = "auto", path: str | Path | None = None, score_threshold: float = 0.7, max_side: int = 640
) -> Detector:
    """The detector called `name`.

    Args:
        name: "yunet"; "haar"; "auto", which is the better one, YuNet; or "none", for pictures that are face crops.
        path: another .onnx file of YuNet than the one that comes with the package.
        score_threshold: finds below this score, in [0, 1], are no faces. 0.7 suits both detectors.
        max_side: a larger picture is searched in a copy of this many pixels on its long side.

    Raises:
        UserError: an unknown name, a model that is missing or damaged.
    """
    if name == "none":
        return whole_picture
    if name == "haar":
        return Haar(score_threshold, max_side)
    if name in ("auto", "yunet"):
        return YuNet(path or YUNET, score_threshold, max_side)
    raise UserError(f"detector={name} is unknown; choose {', '.join(NAMES)}")


def find_in_still(detector: Detector, picture: BGRImage) -> list[Detection]:
    """What `detector` finds in a picture that is no frame of a video; with YuNet, also how faces are turned."""
    return detector.find_turned(picture) if isinstance(detector, YuNet) else detector(picture)


def as_detector(detector: str | Callable[[BGRImage], Sequence[Detection]]) -> Detector:
    """The detector of that name (see `create_detector`), one of this module's as it is, or a caller's function as one.

    Raises:
        UserError: an unknown name, or something that cannot be called.
    """
    if isinstance(detector, str):
        return create_detector(detector)
    if isinstance(detector, YuNet | Haar | OwnDetector):
        return detector
    return whole_picture if detector is whole_picture else OwnDetector(detector)


class YuNet:
    """The convolutional detector of OpenCV Zoo (Wu, Peng, Yu: YuNet, Machine Intelligence Research 2023).

    Args:
        path: its .onnx file.
        score_threshold: see `create_detector`.
        max_side: see `create_detector`.

    Raises:
        UserError: the file is missing or not this model.
    """

    def __init__(self, path: str | Path, score_threshold: float = 0.7, max_side: int = 640) -> None:
        self._max_side = max_side
        try:
            # From memory: on Windows OpenCV opens no path with letters outside the system's code page.
            model = np.frombuffer(at_home(path).read_bytes(), np.uint8)
        except OSError as error:
            raise UserError(
                f"YuNet's file {path} cannot be read ({error.strerror}); give it with detector.path=, or detector=haar"
            ) from error
        try:
            self._nets = _OnePerCall(partial(_load_yunet, model, score_threshold))
        except cv2.error as error:
            raise UserError(
                f"{path} is not the face detector YuNet; give the .onnx file of OpenCV Zoo, or detector=haar"
            ) from error

    def __call__(self, picture: BGRImage) -> list[Detection]:
        """See `Detector`."""
        small, scale = _resized(picture, self._max_side)
        height, width = small.shape[:2]
        bottom, right = max(0, _SMALLEST_SHORT_SIDE - height), max(0, _SMALLEST_SHORT_SIDE - width)
        if bottom or right:
            small = np.asarray(cv2.copyMakeBorder(small, 0, bottom, 0, right, cv2.BORDER_REPLICATE), np.uint8)
        with self._nets.taken() as net:
            net.setInputSize((small.shape[1], small.shape[0]))
            _, found = net.detect(small)
        detections = []
        for x, y, box_width, box_height, *_, score in [] if found is None else found.tolist():
            centre = (x + box_width / 2, y + box_height * (0.5 - _YUNET_RISE))
            box = square(centre[0] / scale, centre[1] / scale, _YUNET_SIDE * box_height / scale)
            detections.append(Detection(box, score))
        return _surest_first(detections)

    def find_turned(self, picture: BGRImage) -> list[Detection]:
        """The same for a still picture, with how far each face is turned.

        A face that was not found for sure is looked at again in all four quarter turns: it is surest when it stands
        upright. YuNet's landmarks do not tell, they stand upright in every face (docs/detection.md).
        """
        found = self(picture)
        return [replace(one, turned=self._turned(picture, one)) if _doubtful(one) else one for one in found]

    def _turned(self, picture: BGRImage, detection: Detection) -> int:
        x, y, side, _ = detection.box
        scale = _TURN_SIDE / (_TURN_MARGIN * side)
        middle = _TURN_SIDE / 2
        shift = np.array([[scale, 0, middle - scale * (x + side / 2)], [0, scale, middle - scale * (y + side / 2)]])
        size = (_TURN_SIDE, _TURN_SIDE)
        face = cv2.warpAffine(picture, shift, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        scores = []
        with self._nets.taken() as net:
            net.setInputSize(size)
            for quarter in range(4):
                _, found = net.detect(np.ascontiguousarray(np.rot90(face, quarter)))
                near = [
                    score
                    for left, top, width, height, *_, score in ([] if found is None else found.tolist())
                    if max(abs(left + width / 2 - middle), abs(top + height / 2 - middle)) < _TURN_NEAR * _TURN_SIDE
                ]
                scores.append(max(near, default=0.0))
        best = int(np.argmax(scores))
        return 90 * best if scores[best] > scores[0] + _TURN_LEAD else 0


class Haar:
    """The cascade `haarcascade_frontalface_default` that comes with OpenCV (Viola & Jones, CVPR 2001).

    It gives no probability, but the number n of neighbouring windows that agree on a face. The score is n / (n + 2.5):
    at 6 neighbours, under which it took hands and cloth for faces, it is 0.7.

    Args:
        score_threshold: see `create_detector`.
        max_side: see `create_detector`.
    """

    def __init__(self, score_threshold: float = 0.7, max_side: int = 640) -> None:
        self._score_threshold = score_threshold
        self._max_side = max_side
        self._cascades = _OnePerCall(_load_cascade)

    def __call__(self, picture: BGRImage) -> list[Detection]:
        """See `Detector`."""
        small, scale = _resized(picture, self._max_side)
        # No equalizeHist: the cascade normalises each window, and found fewer faces after it.
        with self._cascades.taken() as cascade:
            boxes, neighbours = cascade.detectMultiScale2(
                cv2.cvtColor(small, cv2.COLOR_BGR2GRAY),
                scaleFactor=_HAAR_SCALE_FACTOR,
                minNeighbors=2,
                minSize=(_HAAR_SMALLEST, _HAAR_SMALLEST),
            )
        detections = []
        for (x, y, side, _), count in zip(np.asarray(boxes).tolist(), np.ravel(neighbours).tolist(), strict=True):
            score = count / (count + _HAAR_HALF)
            if score >= self._score_threshold:
                box = square((x + side / 2) / scale, (y + side / 2) / scale, _HAAR_SIDE * side / scale)
                detections.append(Detection(box, score))
        # OpenCV gives them in the order in which its threads were done: equally sure ones go by their place.
        return _surest_first(sorted(detections, key=lambda found: found.box))


def whole_picture(picture: BGRImage) -> list[Detection]:
    """For pictures that are face crops: the largest square in the middle, without looking at it."""
    height, width = picture.shape[:2]
    return [Detection(square(width / 2, height / 2, min(width, height)), None)]


class OwnDetector:
    """A caller's function, called by one thread at a time, because few detectors can bear more.

    Args:
        function: takes a picture, uint8 (H, W, 3) in BGR, and returns a list of `Detection`, whose boxes are squares.

    Raises:
        UserError: `function` cannot be called; when called, it answers with something else.
    """

    def __init__(self, function: Callable[[BGRImage], Sequence[Detection]]) -> None:
        if not callable(function):
            raise UserError(f"detector={function!r}: give one of {', '.join(NAMES)}, or a function of a picture")
        self._function = function
        self._lock = threading.Lock()

    def __call__(self, picture: BGRImage) -> list[Detection]:
        """See `Detector`."""
        with self._lock:
            found = self._function(picture)
        if not isinstance(found, list | tuple) or not all(isinstance(one, Detection) for one in found):
            raise UserError(
                f"the detector must return a list of fer.inference.prediction.Detection, not {found!r:.200}"
            )
        for detection in found:
            _, _, width, height = box = detection.box
            if (
                not all(map(math.isfinite, box))
                or width <= 0
                or not math.isclose(width, height, rel_tol=0.02, abs_tol=1)
            ):
                raise UserError(f"the detector's boxes must be squares (x, y, side, side) in pixels, not {box}")
            if detection.score is not None and not 0 <= detection.score <= 1:
                raise UserError(f"the detector's scores must be in [0, 1], or None, not {detection.score}")
        return _surest_first(list(found))

    def __reduce__(self) -> tuple[Any, ...]:
        return OwnDetector, (self._function,)


_T = TypeVar("_T")
_MAKING = threading.Lock()  # OpenCV does not promise that two networks may be read at once


class _OnePerCall(Generic[_T]):
    """Objects of which each serves one call at a time; there are as many as there were calls at once.

    OpenCV's detectors compute on buffers of their own: when threads share one, the process crashes, or one thread gets
    another's faces. One for each thread would be made anew wherever a server starts a thread for each request.
    """

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._idle = [make()]

    @contextmanager
    def taken(self) -> Iterator[_T]:
        """One that nobody else uses meanwhile."""
        try:
            one = self._idle.pop()
        except IndexError:
            with _MAKING:
                one = self._make()
        try:
            yield one
        finally:
            self._idle.append(one)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._make,)


def _load_yunet(model: npt.NDArray[np.uint8], score_threshold: float) -> cv2.FaceDetectorYN:
    net = cv2.FaceDetectorYN.create("onnx", model, np.empty(0, np.uint8), (320, 320), score_threshold, 0.3, 5000)
    net.detect(np.zeros((320, 320, 3), np.uint8))  # another network fails here, not at the first face
    return net


def _load_cascade() -> cv2.CascadeClassifier:
    folder = Path(cv2.data.haarcascades)  # type: ignore[attr-defined]  # missing in OpenCV's type stubs
    cascade = cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_default.xml"))
    if cascade.empty():
        raise UserError("this OpenCV comes without its Haar cascades; install opencv-python 4, or detector=yunet")
    return cascade


def _doubtful(detection: Detection) -> bool:
    return detection.score is not None and detection.score < _TURN_SURE


def _resized(picture: BGRImage, max_side: int) -> tuple[BGRImage, float]:
    """The copy in which faces are searched, and its scale: its pixels per pixel of `picture`."""
    height, width = picture.shape[:2]
    long_side = max(height, width)
    target = min(max(long_side, _SMALLEST_LONG_SIDE), max_side)
    if target == long_side:
        return picture, 1.0
    scale = target / long_side
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, size, interpolation=interpolation), np.uint8), scale


def _surest_first(detections: list[Detection]) -> list[Detection]:
    return sorted(detections, key=lambda found: -math.inf if found.score is None else -found.score)
