"""A run's directory: what a stranger may have put into it."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from tiny import TINY

from fer.errors import UserError
from fer.rundir import saved_settings, targets

Command = Callable[..., "CompletedProcess[str]"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not plain YAML"),
        ("- 1\n", "holds no settings"),
        ("a: &x [1, 2]\nb: [*x, *x]\n", "aliases"),
        ("a: !!python/object/apply:os.system [true]\n", "not plain YAML"),
        ("a: " + "x" * 2_000_000, "too large"),
        ("[" * 5000, "not plain YAML"),
    ],
)
def test_saved_settings_are_plain_data(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        saved_settings(tmp_path)
    assert str(tmp_path / "config.yaml") in str(raised.value)


def test_targets_are_found_at_every_depth() -> None:
    settings = {"a": {"_target_": "x.Y", "b": [{"c": {"_target_": "z"}}]}, "_target_": 3}
    assert dict(targets(settings)) == {"a._target_": "x.Y", "a.b.c._target_": "z", "_target_": 3}


@pytest.mark.parametrize("key", ["callbacks"])
def test_code_that_a_saved_config_names_is_not_run(command: Command, tmp_path: Path, key: str) -> None:
    run = tmp_path / "outputs" / "first"
    assert command(*TINY, "trainer.max_epochs=1", f"hydra.run.dir={run}").returncode == 0
    saved = yaml.safe_load((run / "config.yaml").read_text())
    saved.setdefault(key, {})["x"] = {"_target_": "os.mkdir", "path": str(tmp_path / "ran")}
    (run / "config.yaml").write_text(yaml.safe_dump(saved))
    for mode in ([], ["mode=test"]):
        finished = command(f"ckpt={run / 'checkpoints' / 'last.ckpt'}", *mode)
        assert finished.returncode == 2
        assert "os.mkdir" in finished.stderr
        assert "Traceback" not in finished.stderr
    assert not (tmp_path / "ran").exists()


def test_a_saved_config_cannot_read_the_environment(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FER_SECRET", "hunter2")
    run = tmp_path / "outputs" / "first"
    assert command(*TINY, "trainer.max_epochs=1", f"hydra.run.dir={run}").returncode == 0
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("name: net_7", "name: ${oc.env:FER_SECRET}"))
    finished = command("mode=test", f"ckpt={run / 'checkpoints' / 'best.ckpt'}")
    shown = finished.stdout + finished.stderr + "".join(map(str, (tmp_path / "outputs").rglob("*")))
    shown += "".join(file.read_text() for file in (tmp_path / "outputs").rglob("*.html"))
    assert "hunter2" not in shown
