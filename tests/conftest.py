"""What several test files share: settings as train.py composes them, real commands as subprocesses, small data sets."""

import io
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import forked
import numpy as np
import pytest
from fences import marks
from PIL import Image
from tiny import ROOT, TINY, settings_of

from fer.data.faces import TEST, TRAIN, VAL, Faces
from fer.labels import EMOTIONS
from fer.settings.train import TrainSettings

USAGES = {TRAIN: "Training", VAL: "PublicTest", TEST: "PrivateTest"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the user's cache directory alone."""
    monkeypatch.setenv("FER_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def settings() -> Callable[..., TrainSettings]:
    """Settings of train.py for a run of seconds; more overrides as arguments."""

    def build(*overrides: str) -> TrainSettings:
        return settings_of(*TINY, *overrides, "name=test")

    return build


@pytest.fixture
def command(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs `python train.py ARGUMENTS` as a person would; its runs go to tmp_path/outputs."""

    def run(*arguments: str, script: str = "train.py", timeout: float = 120) -> "subprocess.CompletedProcess[str]":
        (tmp_path / "outputs").mkdir(exist_ok=True)
        path = os.pathsep.join([str(ROOT), os.environ.get("FER_MORE_PATH", "")])
        env = {**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        return forked.run(ROOT / script, arguments, tmp_path, env, tmp_path_factory.mktemp("printed"), timeout)

    return run


@pytest.fixture(scope="module")
def unrendered() -> Iterator[None]:
    """Figures have no pixels, which take half of the time of a short training: for tests of its numbers."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "png")
    with pytest.MonkeyPatch.context() as patch:
        for module in ("training.plots", "training.pictures", "evaluation.pictures"):
            patch.setattr(f"fer.{module}.as_png", lambda figure: buffer.getvalue())
        yield


@pytest.fixture
def some_faces() -> Callable[..., Faces]:
    """Noise with labels and splits in turn: `some_faces(10)`."""

    def make(count: int, seed: int = 0) -> Faces:
        rng = np.random.default_rng(seed)
        return Faces(
            rng.integers(0, 256, (count, 48, 48), np.uint8),
            np.arange(count) % len(EMOTIONS),
            (np.arange(count) % 3).astype(np.int8),
            np.arange(count).astype(np.str_),
        )

    return make


@pytest.fixture
def csv_text() -> Callable[..., str]:
    """Faces as Kaggle writes them: `csv_text(faces, columns)`."""

    def make(faces: Faces, columns: Sequence[str] = ("emotion", "pixels", "Usage")) -> str:
        lines = [",".join(columns)]
        for image, label, split in zip(faces.images, faces.labels, faces.splits, strict=True):
            values = {
                "emotion": str(label),
                "pixels": " ".join(map(str, image.ravel().tolist())),
                "Usage": USAGES.get(int(split), ""),
            }
            lines.append(",".join(values[column.strip()] for column in columns))
        return "\n".join(lines) + "\n"

    return make


@pytest.fixture
def write_tree() -> Callable[..., Path]:
    """Files at the given paths below `top`, each with its own 48x48 noise: `write_tree(top, ["train/happy/1.png"])`."""

    def write(top: Path, names: Sequence[str]) -> Path:
        for seed, name in enumerate(names):
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(seed).integers(0, 256, (48, 48), np.uint8)
            Image.fromarray(noise).save(path)
        return top

    return write


@pytest.fixture
def fer2013_zip(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The real development rows, which only some machines have; tests, in whichever process, read them once."""
    shared = Path(os.environ.get("FER_SHARED") or Path(__file__).resolve().parents[2] / "shared")
    path = shared / "fer2013" / "fer2013.zip"
    if not path.exists():
        pytest.skip(f"no real FER2013 at {path}; FER_SHARED names another directory")
    top = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        top = top.parent  # of all processes
    monkeypatch.setenv("FER_CACHE", str(top / "real_rows"))
    return path


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """After the tests of the pages: the blocks of README and docs that are not run, and why."""
    reports = [report for found in terminalreporter.stats.values() for report in found if hasattr(report, "nodeid")]
    if any(report.nodeid.startswith("tests/test_docs.py") for report in reports):
        terminalreporter.section("not run in README.md and docs/")
        for mark in marks():
            terminalreporter.write_line(mark)
