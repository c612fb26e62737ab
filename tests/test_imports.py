"""Imports point one way: ground -> data, models -> training, evaluation, inference -> export -> commands."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fer"

# For each part of the package the parts that it may import.
GROUND = {"errors", "files", "labels", "machine", "settings", "weights"}
ALLOWED = {
    "errors": set(),
    "files": set(),
    "labels": {"errors"},
    "machine": {"errors"},
    "settings": {"errors", "files", "labels", "models", "weights"},  # models: only for a suggestion, on a mistake
    "rundir": GROUND,
    "sweep": {*GROUND, "rundir"},
    "resume": {*GROUND, "rundir"},
    "data": GROUND,
    "cleaning": {*GROUND, "data"},
    "models": {"errors", "labels"},
    "checkpoint": {"errors", "files", "models"},
    "classifier": {"checkpoint", "errors", "labels", "models"},
    "predict": {"machine", "models"},
    "abstention": set(),
    "tensorboard": set(),
    "sheets": set(),
    "calibration": {"abstention", "checkpoint", "models", "predict"},
    "training": {
        *GROUND,
        "rundir",
        "data",
        "models",
        "checkpoint",
        "classifier",
        "sheets",
        "tensorboard",
    },
    "evaluation": {
        *GROUND,
        "rundir",
        "data",
        "models",
        "checkpoint",
        "predict",
        "sheets",
        "tensorboard",
        "abstention",
        "calibration",
    },
    "inference": {*GROUND, "models", "checkpoint"},
    "export": {*GROUND, "data", "models", "checkpoint", "calibration", "inference"},
    "commands": {
        *GROUND,
        "rundir",
        "sweep",
        "resume",
        "data",
        "models",
        "calibration",
        "training",
        "evaluation",
        "inference",
        "export",
        "cleaning",
    },
    "weights": {"files"},
    "__init__": {"checkpoint", "classifier", "inference"},
}
FORBIDDEN = {
    "labels": {"numpy", "torch"},
    "settings": {"torch", "lightning"},
    "rundir": {"torch", "lightning", "hydra", "omegaconf"},
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
    heavy = {"torch", "lightning", "timm", "torchvision", "torchmetrics", "cv2", "matplotlib", "numpy"}
    for file in [PACKAGE.parent / "train.py", PACKAGE.parent / "infer.py", *(PACKAGE / "commands").glob("*.py")]:
        assert not heavy & {name.split(".")[0] for name in imports(file, nested=False)}, file.name


def test_only_commands_that_compose_load_hydra() -> None:
    for file in (PACKAGE / "settings").glob("*.py"):
        if file.name != "compose.py":
            assert not {"hydra", "omegaconf"} & {name.split(".")[0] for name in imports(file)}, file.name
