"""What a report says about labels and excluded rows: the full split first, the cleaned one second."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny import write_with_votes

from fer import rundir
from fer.commands.train import whole
from fer.data.exclude import Finding, write_list
from fer.data.reader import read
from fer.evaluation import html
from fer.evaluation.run import evaluate
from fer.settings.train import TrainSettings
from fer.training.run import train

pytestmark = pytest.mark.usefixtures("unrendered")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """faces.csv with 168 drawn faces; votes.csv, where every tenth row is not a face; cleaning.csv on rows 0 to 150."""
    directory = tmp_path_factory.mktemp("data")
    write_with_votes(directory, 98, 35, 35)
    findings = [Finding(row, "blank", 1.0) for row in range(0, 151, 5)]
    write_list(directory / "cleaning.csv", findings, read(directory / "faces.csv", use_cache=False))
    return directory


def test_the_cleaned_split_comes_second_and_labels_are_named(
    files: Path,
    settings: Callable[..., TrainSettings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("fer.evaluation.pictures._figures", lambda *_, **__: {})
    cfg = settings(
        f"data.path={files / 'faces.csv'}",
        f"data.ferplus_path={files / 'votes.csv'}",
        f"data.exclude={files / 'cleaning.csv'}",
        *("data.labels=ferplus", "data.ferplus_target=soft", "data.eval_labels=fer2013", "trainer.max_epochs=1"),
    )
    whole(cfg, tmp_path, [])
    checkpoint = rundir.checkpoint(tmp_path, rundir.BEST)
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["labels"] == {"train": "FER+ vote distribution", "evaluation": "the given labels"}
    assert report["exclude"]["action"] == "drop"
    full, cleaned = report["test"], report["test"]["cleaned"]
    assert (full["images"], cleaned["removed"], cleaned["images"]) == (35, 4, 31)  # rows 135, 140, 145 and 150
    lines = (tmp_path / "predictions.csv").read_text().splitlines()[1:]
    kept = [line.split(",") for line in lines if line.startswith("test") and int(line.split(",")[1]) % 5]
    kept += [
        line.split(",") for line in lines if line.startswith("test") and line.split(",")[1] in ("155", "160", "165")
    ]
    assert cleaned["accuracy"] == pytest.approx(np.mean([line[2] == line[3] for line in kept]))
    page = (tmp_path / "report.html").read_text()
    assert page.index("<th>test</th>") < page.index("<th>test cleaned</th>") < page.index("<th>val</th>")
    shown = " ".join(capsys.readouterr().out.split())
    assert "test, cleaned" in shown
    for text in (page, shown):
        assert "trained on FER+ vote distribution, judged by the given labels" in text
    assert json.loads((tmp_path / "metrics.json").read_text())["test"]["cleaned"] == cleaned

    # The same checkpoint, judged by FER+: the rows that are not a face are gone from the test split.
    cfg.data.labels, cfg.data.eval_labels, cfg.data.ferplus_target = "ferplus", None, "majority"
    cfg.data.exclude = None
    again = evaluate(cfg, [checkpoint], tmp_path / "again")
    assert again["labels"] == {"train": "FER+ vote distribution", "evaluation": "FER+ majority"}
    assert again["test"]["images"] == 35 - 3
    assert "cleaned" not in again["test"]


def test_a_network_with_a_second_task_is_judged_without_the_votes(
    files: Path, settings: Callable[..., TrainSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer.evaluation.pictures._figures", lambda *_, **__: {})
    cfg = settings(
        f"data.path={files / 'faces.csv'}",
        f"data.ferplus_path={files / 'votes.csv'}",
        *("data.ferplus_auxiliary=1", "trainer.max_epochs=1"),
    )
    rundir.claim(tmp_path, cfg, [])
    checkpoint = train(cfg, tmp_path).checkpoint
    cfg.data.ferplus_path, cfg.data.download = str(tmp_path / "missing.csv"), False
    report = evaluate(cfg, [checkpoint], tmp_path / "again")
    assert report["test"]["images"] == 35
    assert "second task of weight 1" in report["labels"]["train"]


def test_a_checkpoint_outside_a_run_does_not_say_what_it_was_trained_on() -> None:
    report = {"labels": {"train": None, "evaluation": "the given labels"}, "exclude": None, "reported_split": "test"}
    assert html.about_labels(report) == "Labels: judged by the given labels."
