"""`Predictor`: a checkpoint, or what was exported of one, that answers for pictures, lists of them, and videos.

Torch is imported when a checkpoint is loaded, and never for an exported network.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import cv2
import numpy as np
import numpy.typing as npt

from fer import weights
from fer.errors import UserError
from fer.files import is_file, is_there
from fer.inference.analyzer import FaceAnalyzer, watch
from fer.inference.crop import crop_detections
from fer.inference.detectors import as_detector, find_in_still
from fer.inference.pictures import BGRImage, Picture, to_picture
from fer.inference.prediction import Detection, Prediction, predicted
from fer.inference.runtimes import ExportedNetwork, choose_runtime, load_exported
from fer.inference.sources import Frame, PictureFiles, open_source
from fer.machine import choose_threads, sleep_while_waiting
from fer.settings.foreign import ForeignSettings
from fer.settings.infer import DEVICES

if TYPE_CHECKING:
    from fer.checkpoint import ForeignSpec
    from fer.models.network import EmotionNetwork

log = logging.getLogger(__name__)

_BATCH = 256  # faces that the network sees at once, which bounds its memory


class _Forks:
    """Lets a forked child load a predictor, whatever threads there were before the fork: they are not copied.

    OpenCV waits for its own for ever when their number changes, so they end before each fork and come back after it.
    Torch's OpenMP cannot end them; where there were more than one, a child goes on with one.
    """

    def __init__(self) -> None:
        self.used_many = False  # threads of torch, by this process
        self.one_thread = False  # torch has to do with one
        self._count = 1  # of OpenCV's threads
        self._one_at_a_time = threading.Lock()

    def before(self) -> None:
        self._one_at_a_time.acquire()
        torch = sys.modules.get("torch")
        self.used_many = self.used_many or (torch is not None and torch.get_num_threads() > 1)
        self._count = cv2.getNumThreads()
        cv2.setNumThreads(1)

    def after(self) -> None:
        cv2.setNumThreads(self._count)
        self._one_at_a_time.release()

    def in_child(self) -> None:
        self.one_thread = self.used_many
        self.after()


_forks = _Forks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_forks.before, after_in_parent=_forks.after, after_in_child=_forks.in_child)


class Predictor:
    """Says which emotion a face shows.

        predictor = Predictor.load()
        for face in predictor("photo.jpg"):
            print(face.label, face.confidence, face.box)

    Many threads may call one predictor at once. It can be pickled when it was loaded from a file: as its path and
    settings, so that the other process loads it again. A forked child must do the same, unless this one has threads=1
    and device="cpu"; after a device, only a process that was not forked can.

    Args:
        network: of a checkpoint, in eval mode, or exported.
        detector: as of `load`.
        device: where torch computes, as of `load`.

    Attributes:
        classes: the network's class names, in its order.
        size: pixels per side of the gray faces that it takes, S: 48, unless it was trained on others.
        temperature: by which its logits are divided before the softmax, so that confidences are calibrated.
        thresholds: confidences from which as large a share of the answers was right as the key says; of a checkpoint.
    """

    def __init__(
        self,
        network: "EmotionNetwork | ExportedNetwork",
        detector: str | Callable[[BGRImage], Sequence[Detection]] = "auto",
        device: str = "cpu",
    ) -> None:
        self._detector = as_detector(detector)
        self._loaded_with: dict[str, Any] | None = None
        self._process: int | None = None  # the only one that may call; None: any
        if isinstance(network, ExportedNetwork):
            self.classes: tuple[str, ...] = network.classes
            self.size: int = network.size
            self.temperature: float = network.temperature
            self.thresholds: dict[str, float] = {}
            self._run = network.run
        else:
            self.classes = network.spec.classes
            self.size = network.spec.size
            self.temperature = network.spec.temperature
            self.thresholds = network.spec.thresholds
            self._run = _in_torch(network, choose_device(device))

    @staticmethod
    def load(
        path: str | Path | None = None,
        threads: int | None = None,
        runtime: str = "auto",
        detector: str | Callable[[BGRImage], Sequence[Detection]] = "auto",
        device: str = "auto",
        foreign: "ForeignSpec | None" = None,
    ) -> "Predictor":
        """The predictor of a file.

        Args:
            path: a .ckpt file of this project, an .onnx file that `fer-export` has made of one, or, where
                no such file is, the name of a network of the package, such as "senet_4"; None is "senet_7".
            threads: for the network and OpenCV, in the whole process; None chooses by the cores that are free. In a
                forked child torch has one, if it may have had more before the fork.
            runtime: one of `fer.settings.infer.RUNTIMES`.
            detector: finds the faces of pictures: a name of `fer.inference.detectors.NAMES`, a detector of that module,
                or a function of yours that takes a picture, uint8 (H, W, 3) in BGR, and returns a list of
                `fer.inference.prediction.Detection` with square boxes. Yours is called by one thread at a time.
            device: where torch computes: "cpu", "cuda", "mps", or "auto", the first of cuda, mps and cpu that is there.
            foreign: what a checkpoint of another project holds, as of `fer.checkpoint.load_network`.

        Raises:
            UserError: the file is missing, damaged, or not of this project; the runtime is not installed or cannot
                run it; there are no threads; there is no such detector or device.
        """
        if threads is not None and threads < 1:
            raise UserError(f"threads={threads} must be at least 1, or None to choose by the cores that are free")
        path = _network_file(path)
        runtime = choose_runtime(path, runtime, device)
        sleep_while_waiting()
        count = threads or choose_threads()
        cv2.setNumThreads(count)
        if runtime != "torch":
            if foreign is not None:
                raise UserError(f"{path} is exported, and says itself what it is; leave model= and classes= out")
            predictor = Predictor(load_exported(path, count), detector)
        else:
            import torch

            from fer.checkpoint import load_network

            count = 1 if _forks.one_thread else count
            _forks.used_many = _forks.used_many or count > 1
            torch.set_num_threads(count)
            device = choose_device(device)
            predictor = Predictor(load_network(path, foreign=foreign), detector, device)
        if count > 1 or device in ("cuda", "mps"):
            predictor._process = os.getpid()
        settings = {"threads": threads, "runtime": runtime, "detector": predictor._detector}
        predictor._loaded_with = {"path": path.absolute(), **settings, "device": device, "foreign": foreign}
        return predictor

    def __reduce__(self) -> tuple[Any, ...]:
        if self._loaded_with is None:
            raise UserError("only a predictor of Predictor.load can be pickled: as its path and settings")
        return partial(Predictor.load, **self._loaded_with), ()

    @overload
    def __call__(self, image: Picture) -> list[Prediction]: ...

    @overload
    def __call__(self, image: list[Picture] | tuple[Picture, ...]) -> list[list[Prediction]]: ...

    def __call__(
        self, image: Picture | list[Picture] | tuple[Picture, ...]
    ) -> list[Prediction] | list[list[Prediction]]:
        """What the faces show.

        Args:
            image: a picture in which faces are looked for, as of `fer.inference.pictures.to_picture`: a path, bytes, a
                picture of Pillow or an array; or gray faces, uint8 (N, S, S), or one, (S, S), as they are; or a
                list of any of these, whose faces go through the network in one batch.

        Returns:
            One prediction per face, for a list a list of them for each of its items. Those of a picture have a box in
            its pixels (turned upright, where it has an EXIF tag), the surest find first.

        Raises:
            UserError: anything else; of a list the message says which item.
        """
        if isinstance(image, list | tuple):
            found = []
            for number, item in enumerate(image):
                try:
                    found.append(self._look(item))
                except UserError as error:
                    raise UserError(f"item {number} of the list: {error}") from error
            return self._answer(found)
        return self._answer([self._look(image)])[0]

    def video(
        self, source: str | Path | int, detect_every: int = 2, smoothing: float = 0.4, min_confidence: float = 0.0
    ) -> Generator[tuple[Frame, list[Prediction]], None, None]:
        """The frames of a video with their faces, which are followed and smoothed over time.

            for frame, faces in predictor.video("clip.mp4"):
                print(frame.time, [(face.track, face.label) for face in faces])

        Args:
            source: a file, every frame of which comes; a camera's number or a stream's address, of which the newest
                comes whenever the loop is ready for it.
            detect_every: as of `fer.inference.analyzer.FaceAnalyzer`; smoothing and min_confidence, too.

        Raises:
            UserError: at the first frame, when the source cannot be opened; after the last, when it ended too early.
        """
        camera = str(source).isdecimal() or (str(source).startswith("/dev/") and not is_file(Path(str(source))))
        mode = "webcam" if camera else "video"
        analyzer = FaceAnalyzer(self, self._detector, detect_every, smoothing, min_confidence)
        with open_source(mode, str(source), log.warning) as opened:
            assert not isinstance(opened, PictureFiles)
            with closing(watch(opened, analyzer)) as frames:
                for frame, predictions in frames:
                    if frame is not None:  # None while a camera gives nothing
                        yield frame, predictions

    def probabilities(self, faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Calibrated class probabilities, float32 (N, C), of gray faces, uint8 (N, S, S).

        Raises:
            UserError: any other type or shape.
        """
        self._check(faces)
        self._refuse_after_fork()
        result = np.empty((len(faces), len(self.classes)), np.float32)
        for start in range(0, len(faces), _BATCH):
            batch = np.ascontiguousarray(faces[start : start + _BATCH])
            result[start : start + _BATCH] = self._run(batch[:, None])
        return result

    def _check(self, faces: npt.NDArray[Any]) -> None:
        if faces.dtype != np.uint8 or faces.ndim != 3 or faces.shape[1:] != (self.size, self.size):
            raise UserError(
                f"gray faces must be uint8 of shape (N, {self.size}, {self.size}), and the last axis of a picture is "
                f"1, 3 or 4; this is {faces.dtype} of shape {faces.shape}"
            )

    def _refuse_after_fork(self) -> None:
        if self._process not in (None, os.getpid()):
            raise UserError(
                "this predictor was loaded before the process forked, and its threads are not in the child: load it in "
                "the child, or with threads=1 on the processor, or start processes with the method 'spawn'"
            )

    def _look(self, image: Picture) -> tuple[npt.NDArray[np.uint8], list[Detection | None]]:
        """The faces of an item, uint8 (N, S, S), and where they were found."""
        if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape == (self.size, self.size):
            return image[None], [None]
        if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] not in (1, 3, 4):
            self._check(image)
            return image, [None] * len(image)
        self._refuse_after_fork()
        picture = to_picture(image)
        detections = find_in_still(self._detector, picture)
        return crop_detections(picture, detections, self.size), [*detections]

    def _answer(
        self, found: Sequence[tuple[npt.NDArray[np.uint8], Sequence[Detection | None]]]
    ) -> list[list[Prediction]]:
        """What the network says about the faces of several items, in one go."""
        none = np.empty((0, self.size, self.size), np.uint8)
        rows = iter(self.probabilities(np.concatenate([none, *(faces for faces, _ in found)])))
        return [[predicted(self.classes, next(rows), detection) for detection in detections] for _, detections in found]


def foreign_spec(model: ForeignSettings, classes: Sequence[str] | None) -> "ForeignSpec | None":
    """What the checkpoint holds, where a person had to say it: `Predictor.load`'s `foreign`."""
    if model.name is None:
        return None
    from fer.checkpoint import ForeignSpec

    mean, std = (tuple(value) if isinstance(value, list) else (value,) for value in (model.mean, model.std))
    return ForeignSpec(model.name, tuple(classes or ()), model.image_size, model.channels, mean, std)


def _network_file(path: str | Path | None) -> Path:
    if path is None:
        path = weights.DEFAULT
    named = None if is_file(path) else weights.packaged(str(path))
    if named is None and not Path(path).suffix and not is_there(path):
        raise UserError(f"{path} is no file, and no network of the package: there is {', '.join(weights.names())}")
    return named or Path(path)


def choose_device(wanted: str) -> str:
    """The device of torch that is called `wanted`, one of `fer.settings.infer.DEVICES`.

    Raises:
        UserError: an unknown name, or a device that torch does not see.
    """
    import torch

    if wanted not in DEVICES:
        raise UserError(f"device={wanted}: there is {', '.join(DEVICES)}")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, found in there.items() if found)
    if not there[wanted]:
        raise UserError(f"device={wanted}: torch sees none here; device=cpu goes without")
    return wanted


def _in_torch(network: "EmotionNetwork", device: str) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    """The same as `ExportedNetwork.run` of a network in torch."""
    import torch

    # A quarter faster than torch's default layout, up to rounding with the same result (docs/detection.md).
    network = network.to(device).to(memory_format=torch.channels_last)

    def run(faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        result: npt.NDArray[np.float32] = network.probabilities(torch.from_numpy(faces).to(device)).cpu().numpy()
        return result

    return run
