"""What several test files share: settings composed as train.py composes them, and real commands as subprocesses."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import ROOT, TINY, settings_of

from fer.settings.train import TrainSettings


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
def command(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs `python train.py ARGUMENTS` as a person would; its runs go to tmp_path/outputs."""

    def run(*arguments: str, script: str = "train.py", timeout: float = 120) -> "subprocess.CompletedProcess[str]":
        (tmp_path / "outputs").mkdir(exist_ok=True)
        path = os.pathsep.join([str(ROOT), os.environ.get("FER_MORE_PATH", "")])
        return subprocess.run(
            [sys.executable, str(ROOT / script), *arguments],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run
