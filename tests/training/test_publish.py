"""Loggers that are not TensorBoard's get settings, the report's numbers and the pictures, as far as they can."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger
from tiny import settings_of
from torch import Tensor

from fer.tensorboard import RunLogger
from fer.training import trainer
from fer.training.publish import publish


class OfPictures(CSVLogger):
    """Takes pictures as Lightning's logger of Weights & Biases does."""

    def __init__(self, save_dir: Path) -> None:
        super().__init__(save_dir)
        self.images: dict[str, list[str]] = {}
        self.numbers: dict[str, Tensor | float] = {}

    def log_image(self, key: str, images: list[Any], step: int | None = None, **more: Any) -> None:
        self.images[key] = images

    def log_metrics(self, metrics: Mapping[str, Tensor | float], step: int | None = None) -> None:
        self.numbers |= metrics


class OfFiles(OfPictures):
    """Keeps files as MLflow's client does."""

    log_image = property()  # `hasattr` says no, as of MLflow's logger
    run_id = "r1"

    @property
    def experiment(self) -> Any:
        return SimpleNamespace(log_artifact=self.log_artifact, save=lambda: None)

    def log_artifact(self, run_id: str, local_path: str, artifact_path: str) -> None:
        self.images.setdefault(f"{run_id}/{artifact_path}", []).append(local_path)


def test_the_end_of_a_run_goes_to_loggers_that_can_take_it(tmp_path: Path) -> None:
    numbers = {"accuracy": 0.7, "f1": 0.6, "precision": 0.5, "recall": 0.4, "loss": 0.9, "images": 70}
    (tmp_path / "plots").mkdir()
    for name in ("roc_val", "samples"):
        (tmp_path / "plots" / f"{name}.png").write_bytes(b"")
    pictures = [str(tmp_path / "plots" / f"{name}.png") for name in ("roc_val", "samples")]
    of_pictures, of_files = OfPictures(tmp_path), OfFiles(tmp_path)
    loggers = [of_pictures, of_files, RunLogger(tmp_path), CSVLogger(tmp_path / "plain")]
    publish(loggers, {"val": numbers, "classes": []}, tmp_path, 9)
    assert of_pictures.images == {"roc_val": pictures[:1], "samples": pictures[1:]}
    assert of_files.images == {"r1/plots": pictures}
    assert of_pictures.numbers["report/val_accuracy"] == 0.7
    assert set(of_pictures.numbers) == {f"report/val_{name}" for name in numbers if name != "images"}


@pytest.mark.parametrize("address", [None, "http://localhost:5000"])
def test_mlflow_keeps_a_run_in_its_directory_unless_there_is_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(trainer, "build", lambda key, target, kind, **more: given.update(target))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if address is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    trainer.build_loggers(settings_of("data=synthetic", "logger=mlflow"), tmp_path, None)
    here = {"tracking_uri": f"sqlite:///{tmp_path / 'mlflow.db'}", "artifact_location": (tmp_path / "mlflow").as_uri()}
    assert given["experiment_name"] == "fer"
    assert {key: given.get(key) for key in here} == (here if address is None else dict.fromkeys(here))
