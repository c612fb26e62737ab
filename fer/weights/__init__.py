"""Trained networks that come with the package, by name."""

from pathlib import Path

HERE = Path(__file__).parent


def resolve(name: str) -> Path:
    """The file that `name` stands for: itself, or where there is no such file, the packaged network of that name."""
    path = Path(name).expanduser()
    packaged = HERE / f"{name}.ckpt"
    return packaged if not path.exists() and path.name == name and packaged.is_file() else path
