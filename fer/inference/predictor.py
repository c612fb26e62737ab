"""`Predictor`: a checkpoint, or what was exported of one, that answers.

Knows nothing of video. Torch is imported when a checkpoint is loaded, and never for an exported network.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from fer.errors import UserError
from fer.inference.crop import SIZE, crop_faces
from fer.inference.detectors import BGRImage, as_detector
from fer.inference.prediction import Detection, Prediction
from fer.inference.runtimes import ExportedNetwork, choose_runtime, load_exported
from fer.inference.threads import choose_threads, sleep_while_waiting

if TYPE_CHECKING:
    from fer.models.network import EmotionNetwork

_BATCH = 256  # faces that the network sees at once, which bounds its memory


class Predictor:
    """Says which emotion a face shows.

        predictor = Predictor.load("best.ckpt")
        for face in predictor(cv2.imread("photo.jpg")):
            print(face.label, face.confidence, face.box)

    Many threads may call one predictor at once. It can be pickled when it was loaded from a file: as its path and
    settings, so that the other process loads it again. A forked child must do the same, unless threads=1.

    Args:
        network: of a checkpoint, in eval mode, or exported.
        detector: as of `load`.

    Attributes:
        classes: the network's class names, in its order.
        temperature: by which its logits are divided before the softmax, so that confidences are calibrated.
    """

    def __init__(
        self,
        network: "EmotionNetwork | ExportedNetwork",
        detector: str | Callable[[BGRImage], Sequence[Detection]] = "auto",
    ) -> None:
        self._detector = as_detector(detector)
        self._loaded_with: dict[str, Any] | None = None
        self._process: int | None = None  # the only one that may call; None: any
        if isinstance(network, ExportedNetwork):
            self.classes: tuple[str, ...] = network.classes
            self.temperature: float = network.temperature
            self._run = network.run
        else:
            self.classes = network.spec.classes
            self.temperature = network.spec.temperature
            self._run = _in_torch(network)

    @staticmethod
    def load(
        path: str | Path,
        threads: int | None = None,
        runtime: str = "auto",
        detector: str | Callable[[BGRImage], Sequence[Detection]] = "auto",
    ) -> "Predictor":
        """The predictor of a file, on the CPU.

        Args:
            path: a .ckpt file of this project, or an .onnx or .xml file that `python -m fer.export` has made of one;
                nothing else is needed.
            threads: for the network and OpenCV, in the whole process; None chooses by the cores that are free.
            runtime: one of `fer.inference.config.RUNTIMES`.
            detector: finds the faces of pictures: a name of `fer.inference.detectors.NAMES`, a detector of that module,
                or a function of yours that takes a picture, uint8 (H, W, 3) in BGR, and returns a list of
                `fer.inference.prediction.Detection` with square boxes. Yours is called by one thread at a time.

        Raises:
            UserError: the file is missing, damaged, or not of this project; the runtime is not installed or cannot
                run it; there are no threads; or there is no such detector.
        """
        if threads is not None and threads < 1:
            raise UserError(f"threads={threads} must be at least 1, or None to choose by the cores that are free")
        runtime = choose_runtime(path, runtime)
        sleep_while_waiting()
        count = threads or choose_threads()
        cv2.setNumThreads(count)
        if runtime != "torch":
            predictor = Predictor(load_exported(path, runtime, count), detector)
        else:
            import torch

            from fer.checkpoint import load_network

            torch.set_num_threads(count)
            predictor = Predictor(load_network(path), detector)
        if count > 1:
            predictor._process = os.getpid()
        settings = {"threads": threads, "runtime": runtime, "detector": predictor._detector}
        predictor._loaded_with = {"path": Path(path).absolute(), **settings}
        return predictor

    def __reduce__(self) -> tuple[Any, ...]:
        if self._loaded_with is None:
            raise UserError("only a predictor of Predictor.load can be pickled: as its path and settings")
        return _load, (self._loaded_with,)

    def __call__(self, image: npt.NDArray[np.uint8]) -> list[Prediction]:
        """What the faces show.

        Args:
            image: uint8, either a picture (H, W, 3) in BGR, in which faces are looked for (YuNet when it is on this
                computer, else Haar), or gray faces (N, 48, 48), or one, (48, 48).

        Returns:
            One prediction per face: those of a picture have a box, the surest find first.

        Raises:
            UserError: any other type or shape.
        """
        detections: list[Detection] | None = None
        if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size:
            detections = self._detector(image)
            faces = crop_faces(image, [detection.box for detection in detections])
        else:
            faces = image[None] if image.ndim == 2 else image
        predictions = []
        for index, row in enumerate(self.probabilities(faces)):
            best = int(row.argmax())
            named = by_name(self.classes, row)
            box, score = (detections[index].box, detections[index].score) if detections is not None else (None, None)
            predictions.append(
                Prediction(self.classes[best], float(row[best]), named, box=box, score=score, smoothed=named)
            )
        return predictions

    def probabilities(self, faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Calibrated class probabilities, float32 (N, C), of gray faces, uint8 (N, 48, 48).

        Raises:
            UserError: any other type or shape.
        """
        if faces.dtype != np.uint8 or faces.ndim != 3 or faces.shape[1:] != (SIZE, SIZE):
            raise UserError(
                f"faces must be uint8 of shape (N, {SIZE}, {SIZE}) or ({SIZE}, {SIZE}), and a picture uint8 of shape "
                f"(H, W, 3) in BGR; these are {faces.dtype} of shape {faces.shape}"
            )
        if self._process not in (None, os.getpid()):
            raise UserError(
                "this predictor was loaded before the process forked, and its threads are not in the child: load it in "
                "the child, or with threads=1, or start processes with the method 'spawn'"
            )
        result = np.empty((len(faces), len(self.classes)), np.float32)
        for start in range(0, len(faces), _BATCH):
            batch = np.ascontiguousarray(faces[start : start + _BATCH])
            result[start : start + _BATCH] = self._run(batch[:, None])
        return result


def _load(settings: dict[str, Any]) -> Predictor:
    return Predictor.load(**settings)


def _in_torch(network: "EmotionNetwork") -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    """The same as `ExportedNetwork.run` of a network in torch."""
    import torch

    # A quarter faster than torch's default layout, up to rounding with the same result (docs/detection.md).
    network = network.to(memory_format=torch.channels_last)

    def run(faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        result: npt.NDArray[np.float32] = network.probabilities(torch.from_numpy(faces)).numpy()
        return result

    return run


def by_name(classes: Sequence[str], row: npt.NDArray[np.float32]) -> dict[str, float]:
    """Probabilities (C,) by class name."""
    return dict(zip(classes, row.tolist(), strict=True))
