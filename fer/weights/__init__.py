"""The trained networks and the face detector that come with the package."""

from pathlib import Path

from fer.files import at_home, is_file

FOLDER = Path(__file__).parent
DEFAULT = "senet_7"  # all seven emotions
YUNET = FOLDER / "face_detection_yunet_2023mar.onnx"


def names() -> list[str]:
    """What the networks are called: "senet_7" and others."""
    return sorted(path.stem for path in FOLDER.glob("*.ckpt"))


def packaged(name: str) -> Path | None:
    """The checkpoint of the network called `name`; None where there is none."""
    return FOLDER / f"{name}.ckpt" if name in names() else None


def resolve(name: str) -> Path:
    """The file that `name` stands for: itself, or where there is no such file, the packaged network of that name."""
    path = at_home(name)
    return path if is_file(path) else packaged(name) or path
