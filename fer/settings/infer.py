"""Every setting of `infer.py`, said once."""

from collections.abc import Iterator
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator

from fer.files import at_home, is_file
from fer.settings.base import PathText, Real, Settings, Whole, setting
from fer.settings.foreign import ForeignSettings

Runtime = Literal["auto", "torch", "onnxruntime"]
Device = Literal["auto", "cpu", "cuda", "mps"]
DetectorName = Literal["auto", "yunet", "haar", "none"]
RUNTIMES, DEVICES = get_args(Runtime), get_args(Device)


def _confidence(value: str | float) -> str | float:
    if not isinstance(value, str) and not 0 <= value <= 1:
        raise ValueError("it must be auto, or a number between 0 and 1")
    return value


def _shard(value: str) -> str:
    number, _, count = value.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ValueError("it is NUMBER/COUNT with numbers from 1, as 3/16 for the third of sixteen parts")
    return value


class DetectorSettings(Settings):
    """How faces are found (`fer.inference.detectors`)."""

    name: DetectorName = setting(
        "auto", "how: YuNet (auto), OpenCV's Haar cascade, or none: every picture is a face already"
    )
    path: PathText | None = setting(None, "another .onnx file of YuNet than the package's")
    score_threshold: Real = setting(0.7, "under this score a find is no face", gt=0, lt=1)
    max_side: Whole = setting(640, "pixels: faces are looked for in a copy of at most this side", ge=32, le=16384)


class InferSettings(Settings):
    """All settings of infer.py."""

    mode: Literal["webcam", "video", "image", "browser"] | None = setting(
        None, "what is watched; browser: the camera of whoever opens the page; null: guessed from source"
    )
    source: PathText | list[PathText] | None = setting(
        None,
        "webcam: a camera's number (0) or a stream's address; video: a file or an address; image: a file, a "
        "folder, a glob in quotes, or several of these; a word that is no setting is a source, too",
    )
    shard: Annotated[str, AfterValidator(_shard)] | None = setting(
        None, "image: only the third of sixteen parts, 3/16, of all pictures; the others are for other processes"
    )
    recursive: bool = setting(False, "image: look into sub-folders too")
    output: PathText | None = setting(
        None, "a folder, or the name of the annotated video (picture); null writes nothing"
    )
    format: Literal["jsonl", "csv"] = setting("jsonl", "of the predictions")
    window: Literal["auto"] | bool = setting("auto", "where there is a screen, but not for pictures that go to output")
    mirror: Literal["auto"] | bool = setting(
        "auto", "the window shows a video as a mirror would, files never do; auto: a camera of this computer"
    )
    ckpt: PathText | None = setting(
        None, "a checkpoint, a run's folder, a packaged network (senet_7), or an .onnx file; null: senet_7"
    )
    model: ForeignSettings = setting(ForeignSettings, "")
    classes: list[str] | None = setting(
        None, "of a checkpoint of another project: what it answers, in its order, [angry,happy,...]"
    )
    runtime: Runtime = setting("auto", "what runs the network")
    device: Device = setting("auto", "of the network; auto: cuda or mps if there")
    detector: DetectorSettings = setting(DetectorSettings, "")
    detect_every: Whole = setting(2, "look for faces in every Nth frame, and follow them between", ge=1, le=1000)
    smoothing: Real = setting(0.4, "seconds over which a face's probabilities are averaged; 0: none", ge=0, le=3600)
    min_confidence: Annotated[Literal["auto"] | Real, AfterValidator(_confidence)] = setting(
        0.0, "under this a face is shown as uncertain; auto: where the checkpoint was right nine times in ten"
    )
    threads: Whole | None = setting(None, "for the network and OpenCV; null: chosen for this computer", ge=1, le=1024)

    host: str = setting("127.0.0.1", "browser: the address that is listened on; 0.0.0.0: every one of this computer")
    port: Whole = setting(8000, "browser: of the page; 0: any free one", ge=0, le=65535)
    allow: str | list[str] | None = setting(
        None, "browser: more host names under which the page may be opened, [a.example,b.example]"
    )
    cert: PathText | None = setting(None, "browser: certificate for https, a .pem file; with key")
    key: PathText | None = setting(None, "browser: the certificate's private key, a .pem file")

    @property
    def part(self) -> tuple[int, int] | None:
        """What `shard` says: the number of the part, from 1, and how many there are."""
        if self.shard is None:
            return None
        number, _, count = self.shard.partition("/")
        return int(number), int(count)

    @property
    def sources(self) -> list[str]:
        """What `source` names: nothing, one, or several."""
        return [self.source] if isinstance(self.source, str) else self.source or []

    @property
    def names(self) -> list[str]:
        """What `allow` names."""
        return [self.allow] if isinstance(self.allow, str) else self.allow or []

    def contradictions(self) -> Iterator[str]:
        """Settings that make no sense together, a sentence each."""
        if self.mode in ("video", "image") and self.source is None:
            example = "clip.mp4" if self.mode == "video" else "photo.jpg"
            yield f"source is missing: mode={self.mode} needs one, for example source={example}"
        if self.detector.path is not None and not is_file(at_home(self.detector.path)):
            yield f"detector.path={self.detector.path} does not exist; it is the .onnx file of YuNet"
        if self.model.name is not None and self.ckpt is None:
            yield "model.name= says what a checkpoint of another project holds; name that, too: ckpt=FILE"
        if self.model.name is None and self.classes is not None:
            yield "classes= are those of a checkpoint of another project; say what it holds, too: model.name="
        if self.mode == "browser":
            for name in ("source", "output", "shard"):
                if getattr(self, name) is not None:
                    yield f"{name}= has no use with mode=browser, which watches the viewer's camera and stores nothing"
        if (self.cert is None) != (self.key is None):
            yield "https needs both: cert= and key="
        for name in ("cert", "key"):
            if (path := getattr(self, name)) is not None and not is_file(at_home(path)):
                yield f"{name}={path} does not exist; it is a .pem file"
