"""Imports point one way (labels -> data, models -> classifier -> training -> evaluation, and -> inference)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fer"

# For each part of the package the parts that it may import.
ALLOWED = {
    "errors": set(),
    "command_line": set(),
    "files": set(),
    "labels": {"errors"},
    "cluster": {"errors"},
    "config": {"command_line", "cluster", "errors", "labels", "models"},
    "data": {"command_line", "errors", "files", "labels"},
    "models": {"errors", "labels"},
    "sweep": {"cluster", "errors"},
    "checkpoint": {"command_line", "errors", "files", "models"},
    "classifier": {"checkpoint", "errors", "labels", "models"},
    "training": {
        *("command_line", "cluster", "errors", "files", "labels", "config", "data", "models", "checkpoint"),
        "classifier",
    },
    "evaluation": {
        *("command_line", "errors", "files", "labels", "config", "data", "models", "checkpoint", "classifier"),
        *("training", "sweep"),
    },
    "inference": {"command_line", "errors", "files", "labels", "models", "checkpoint", "weights"},
    "export": {"command_line", "errors", "files", "labels", "data", "models", "checkpoint", "inference"},
    "weights": set(),
    "__init__": set(),
}
FORBIDDEN = {
    "labels": {"numpy", "torch"},
    "config": {"torch"},
    "inference": {"hydra", "omegaconf", "lightning"},
}
# Only these files of inference may know torch: the video code must not.
TORCH_IN_INFERENCE = {"predictor.py"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path, nested: bool = True) -> Iterator[str]:
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree) if nested else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module or ""
            if node.module == "fer":
                yield from (f"fer.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_one_way(file: Path) -> None:
    own = part(file)
    for name in imports(file):
        words = name.split(".")
        if words[0] == "fer" and len(words) > 1 and words[1] != own:
            assert words[1] in ALLOWED[own], f"{own} imports {name}"
        assert words[0] not in FORBIDDEN.get(own, set()), f"{own} imports {name}"


def test_the_video_code_knows_nothing_of_torch() -> None:
    for file in (PACKAGE / "inference").glob("*.py"):
        if file.name not in TORCH_IN_INFERENCE:
            assert not {"torch", "fer.checkpoint", "fer.models"} & set(imports(file)), file.name


def test_entries_import_nothing_heavy() -> None:
    heavy = {"torch", "lightning", "timm", "torchvision", "torchmetrics", "cv2", "matplotlib"}
    for file in (PACKAGE.parent / "train.py", PACKAGE.parent / "infer.py", PACKAGE / "config.py"):
        assert not heavy & {name.split(".")[0] for name in imports(file, nested=False)}, file.name
