"""What TensorBoard is given: one chart for two curves, and results by the names of settings."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer import event_file_writer
from tiny import scalars

from fer.evaluation.run import _log_outcome
from fer.settings.base import names_of
from fer.settings.train import TrainSettings
from fer.tensorboard import RunLogger


def test_what_a_resumed_run_repeats_is_shown_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # TensorBoard sorts files of one second by their numbers as text, .100 before .99.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(97))
    time.sleep(1 - time.time() % 1)
    for resumed_at, steps in ((0, range(5)), (3, range(3, 8))):
        logger = RunLogger(tmp_path, resumed_at)
        for step in steps:
            logger.log_metrics({"val/loss": float(step), "train/step/loss": 2.0, "mine": 1.0, "epoch": 9}, step)
        logger.finalize("success")
    assert scalars(tmp_path) == {
        "val: epoch/loss": [(step, float(step)) for step in range(8)],
        "train: step/loss": [(step, 2.0) for step in range(8)],
        ".: mine": [(step, 1.0) for step in range(8)],
    }


def test_hparams_point_at_the_results_by_the_names_of_settings(
    settings: Callable[..., TrainSettings], tmp_path: Path
) -> None:
    found = {"accuracy": 0.5, "f1": 0.4, "precision": 0.3, "recall": 0.2, "loss": 1.5}
    report = {"classes": ["happy", "sad"], "val": found, "test": {**found, "accuracy": 0.25}}
    _log_outcome(RunLogger(tmp_path), settings("optim.lr=0.01"), report, 41)
    assert scalars(tmp_path) == {
        "report_test: epoch/accuracy": [(41, 0.25)],
        **{f"report_val: epoch/{name}": [(41, pytest.approx(value))] for name, value in found.items()},
    }
    summary = EventAccumulator(str(tmp_path)).Reload().summary_metadata
    experiment, session = (
        HParamsPluginData.FromString(summary[f"_hparams_/{name}"].plugin_data.content)
        for name in ("experiment", "session_start_info")
    )
    shown = {each.display_name: f"{each.name.group}: {each.name.tag}" for each in experiment.experiment.metric_infos}
    assert sorted(shown.values()) == sorted(scalars(tmp_path))
    assert shown["test/accuracy"] == "report_test: epoch/accuracy"
    hparams = session.session_start_info.hparams
    assert hparams["optim.lr"].number_value == 0.01
    assert hparams["model.name"].string_value == "net"
    known = {*names_of(TrainSettings), "trainer.max_epochs"}
    assert {each.name for each in experiment.experiment.hparam_infos} == set(hparams) <= known
    first = {
        each.name for each in experiment.experiment.hparam_infos if each.differs
    }  # what TensorBoard shows at first
    assert first == {"model.name", "data.classes", "optim.optimizer", "optim.lr", "trainer.max_epochs"}
