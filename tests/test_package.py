"""What is installed: every package, every configuration, every command, and the names that programs import."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fer
from fer.settings.compose import CONFIGS, compose_line, take_apart
from fer.weights import FOLDER, resolve

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_and_every_configuration_is_packed() -> None:
    packages = set(PROJECT["tool"]["setuptools"]["packages"])
    found = {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "fer").rglob("*.py")}
    configs = {".".join(("fer", *file.parent.relative_to(ROOT).parts)) for file in (ROOT / "configs").rglob("*.yaml")}
    assert packages == found | configs


def test_every_command_has_an_entry_and_a_module() -> None:
    scripts = PROJECT["project"]["scripts"]
    modules = {file.stem for file in (ROOT / "fer" / "commands").glob("*.py")} - {"__init__", "frame"}
    assert set(scripts) == {f"fer-{name}" for name in modules}
    assert set(scripts.values()) == {f"fer.commands.{name}:command" for name in modules}


def test_the_public_names_are_imported_when_they_are_asked_for() -> None:
    code = "import sys, fer; print('torch' in sys.modules); from fer import Predictor; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "False\nFalse\n", done.stderr
    for name in fer.__all__:
        assert getattr(fer, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        fer.nothing  # noqa: B018


def test_packaged_networks_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve("senet_7") == FOLDER / "senet_7.ckpt"
    assert resolve("senet_8") == Path("senet_8")
    assert resolve("../senet_7") == Path("../senet_7")
    Path("senet_7").touch()
    assert resolve("senet_7") == Path("senet_7")
    for file in (CONFIGS / "experiment").glob("*.yaml"):
        weights = compose_line(take_apart([f"experiment={file.stem}"])).values["model"]["weights"]
        assert weights is None or resolve(weights).is_file()
