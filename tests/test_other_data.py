"""A network of the classes bored, happy and sad: trained, evaluated on its own and on other data, exported, asked."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import settings_of

from fer import Predictor
from fer.checkpoint import load_network, write_slim
from fer.commands.train import whole
from fer.data.datamodule import FER2013DataModule
from fer.data.duplicates import digests
from fer.data.faces import TRAIN
from fer.data.synthetic import make_faces
from fer.errors import UserError
from fer.evaluation.known_faces import faces_of_training
from fer.evaluation.members import keep_classes, load_members
from fer.evaluation.run import evaluate
from fer.evaluation.verdict import verdict
from fer.export.run import export
from fer.inference.overlay import annotate
from fer.predict import predict
from fer.resume import settings_of as settings_of_run
from fer.settings.compose import compose_line, take_apart
from fer.settings.export import ExportSettings
from fer.training.run import train

OTHER = ["data.other_emotions=true", "data.classes=[bored,happy,sad]"]
TINY = ["model=net", "++model.kwargs.widths=[4,8,8,8]", "trainer.accelerator=cpu", "trainer.max_epochs=1", "logger=[]"]


def write(top: Path, folders: dict[str, str], numbers: range) -> Path:
    """Folders of drawn faces: `folders` maps each name to the emotion that is drawn."""
    drawn = make_faces(70, 0, 0, seed=0)
    for name, emotion in folders.items():
        images = drawn.images[drawn.labels == {"neutral": 6, "happy": 3, "sad": 4, "angry": 0}[emotion]]
        (top / name).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            Image.fromarray(images[number]).save(top / name / f"{number}.png")
    return top


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folders = {"train/Bored": "neutral", "train/happiness": "happy", "train/sad": "sad"}
    top = write(tmp_path_factory.mktemp("data") / "moods", folders, range(8))
    return write(top, {name.replace("train", "test"): drawn for name, drawn in folders.items()}, range(8, 10))


@pytest.fixture(scope="module")
def run(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run")
    whole(settings_of(*TINY, f"data.path={source}", *OTHER, "data.val_fraction=0.25"), directory, [])
    return directory


@pytest.mark.parametrize(
    ("folders", "classes", "message"),
    [
        (
            {"sad": "sad", "traurig": "happy"},
            "[happy,sad]",
            "has training faces of sad alone; .* name them: data.other_emotions=true data.classes",
        ),
        (
            {"sad": "sad", "happy": "happy"},
            "[angry,happy,sad]",
            r"no training faces of angry; what it has is data.classes=\[happy,sad\]",
        ),
        (
            {"sad": "sad", "happy": "happy"},
            "[happy,sad]",
            "leaves no faces to validate or test on; give more faces, or a larger data.val_fraction",
        ),
    ],
)
def test_what_a_report_needs_is_asked_for_before_training(
    tmp_path: Path, folders: dict[str, str], classes: str, message: str
) -> None:
    few = write(tmp_path / "few", folders, range(4))
    with pytest.raises(UserError, match=message):
        train(settings_of(*TINY, f"data.path={few}", f"data.classes={classes}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("data", ["the same", "spelt otherwise", "copied"])
@pytest.mark.parametrize("moved", [False, True], ids=["in its run", "a small copy elsewhere"])
def test_rows_trained_on_are_known_again(source: Path, run: Path, tmp_path: Path, data: str, moved: bool) -> None:
    path = {"the same": source, "spelt otherwise": source / ".." / source.name, "copied": tmp_path / "copy"}[data]
    ckpt = run / "checkpoints" / "best.ckpt"
    if data == "copied":
        shutil.copytree(source, path)
    if moved:
        write_slim(ckpt, tmp_path / "small.ckpt")
        ckpt = tmp_path / "small.ckpt"
    halves = ["data.split=random", "data.val_fraction=0.5", "data.test_fraction=0"]
    other = settings_of(*TINY, f"data.path={path}", *OTHER, *halves)
    with pytest.raises(UserError, match="every split holds rows that a checkpoint was trained on"):
        evaluate(other, [ckpt], tmp_path / "report")
    same = settings_of(*TINY, f"data.path={path}", *OTHER)
    assert evaluate(same, [ckpt], tmp_path / "report")["trained_on"] == {"val": 0, "test": 0}


@pytest.mark.parametrize("key", ["model.weights", "teacher"])
def test_weights_and_teachers_of_another_division_are_told(
    source: Path, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    words = [*TINY, f"data.path={source}", *OTHER, "data.split=random", f"{key}={run / 'checkpoints' / 'best.ckpt'}"]
    trained = train(settings_of(*words), tmp_path)
    assert "best.ckpt was trained on " in caplog.text
    assert "what is reported on them is memory" in caplog.text
    report = evaluate(settings_of(*words), [trained.checkpoint], tmp_path, trained.datamodule)
    assert report["trained_on"]["test"] > report["test"]["images"] / 5
    (memory,) = [text for head, text in verdict(report).sentences if head == "Memory"]
    assert memory.startswith(f"It, or what it began from, was trained on {report['trained_on']['test']} of these")
    # What was trained has seen what its teacher had, whatever division is asked for next.
    again = evaluate(settings_of(*TINY, f"data.path={source}", *OTHER), [trained.checkpoint], tmp_path / "again")
    split = again["reported_split"]
    assert again[split]["without_copies"]["exact"] >= again["trained_on"][split] > 0


def test_a_report_on_classes_of_ones_own(run: Path) -> None:
    report = json.loads((run / "metrics.json").read_text())
    assert report["classes"] == ["bored", "happy", "sad"]
    assert report["test"]["images"] == 6
    assert report["test"]["per_class"]["bored"]["images"] == 2


def test_they_are_exported_and_shown(run: Path, tmp_path: Path) -> None:
    output = export(ExportSettings(ckpt=str(run), output=str(tmp_path / "moods.onnx"), force=True))
    face = make_faces(1, 0, 0, seed=5).images[0]
    for network in (run / "checkpoints" / "best.ckpt", output):
        predictor = Predictor.load(network, detector="none")
        found = predictor(np.repeat(face[..., None], 3, axis=2))
        assert found[0].label in predictor.classes == ("bored", "happy", "sad")
        assert annotate(np.repeat(face[..., None], 3, axis=2), found).shape[2] == 3


def test_other_data_are_judged_by_the_classes_that_both_have(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders = {"test/sad": "sad", "test/happy": "happy", "test/angry": "angry"}
    other = write(tmp_path / "other", folders, range(7, 10))
    write(other, {"train/sad": "sad", "train/happy": "happy"}, range(5, 7))
    best = run / "checkpoints" / "best.ckpt"
    with caplog.at_level(logging.INFO):
        settings = settings_of(*TINY, "mode=test", f"ckpt={best}", f"data.path={other}", *OTHER)
        report = evaluate(settings, [best], tmp_path / "report")
    assert report["classes"] == ["happy", "sad"]
    assert report["left_out"] == {"classes": ["bored"], "faces": {"angry": 3}}
    assert f"{other} holds no face of bored: left out of the answers of {best}" in caplog.text
    assert "faces that are of no class" in caplog.text
    assert report["test"]["images"] == 6
    page = (tmp_path / "report" / "report.html").read_text()
    assert "the class bored, 3 faces of angry" in page
    probabilities = np.loadtxt(tmp_path / "report" / "predictions.csv", delimiter=",", skiprows=1, usecols=(4, 5))
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_a_report_goes_where_it_is_told(run: Path, tmp_path: Path) -> None:
    best = run / "checkpoints" / "best.ckpt"
    line = take_apart(["mode=test", f"ckpt={best}", f"data.path={tmp_path}", f"hydra.run.dir={tmp_path / 'here'}"])
    composed = compose_line(line)
    settings, _ = settings_of_run(line, composed)
    assert composed.run_dir == tmp_path / "here"
    assert settings.data.path == str(tmp_path)
    assert settings.data.class_names == ("bored", "happy", "sad")


def test_a_test_face_that_was_trained_on_is_counted(run: Path, source: Path, tmp_path: Path) -> None:
    """Another folder with faces of the run's training part: by their pixels, not by their names."""
    other = tmp_path / "again"
    for name in ("happy", "sad"):
        folder = {"happy": "happiness"}.get(name, name)
        (other / "test" / name).mkdir(parents=True)
        for part, number in (("train", 0), ("test", 8), ("test", 9)):
            picture = source / part / folder / f"{number}.png"
            (other / "test" / name / f"renamed_{part}_{number}.png").write_bytes(picture.read_bytes())
    best = run / "checkpoints" / "best.ckpt"
    settings = settings_of(*TINY, "mode=test", f"ckpt={best}", f"data.path={other}", *OTHER, "data.val_fraction=0.25")
    found = evaluate(settings, [best], tmp_path / "report")["test"]
    saved = json.loads((run / "metrics.json").read_text())
    lines = (run / "predictions.csv").read_text().splitlines()
    validated = {line.split(",")[1] for line in lines if line.startswith("val,")}
    trained_on = len({f"train/{name}/{n}.png" for name in ("happiness", "sad") for n in (0,)} - validated)
    assert saved["test"]["without_copies"]["removed"] == 0
    assert found["without_copies"]["exact"] == trained_on > 0


def test_training_rows_are_known_after_the_data_were_moved(run: Path, source: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(source, tmp_path / "elsewhere" / source.name))
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace(str(source), str(tmp_path / "gone")))
    best = copied / "checkpoints" / "best.ckpt"
    words = [*TINY, "mode=test", f"ckpt={best}", *OTHER, "data.val_fraction=0.25"]
    settings = settings_of(*words, f"data.path={moved}")
    datamodule = FER2013DataModule(settings.data, settings.seed, judging=True)
    datamodule.setup()
    known, complete = faces_of_training(settings, load_members([best], "none"), datamodule)
    assert sorted(digests(known)) == sorted(digests(datamodule.rows(TRAIN).images))
    assert len(known) == 18
    assert complete


@pytest.mark.parametrize("in_a_run", [True, False])
def test_faces_that_are_not_at_hand_are_said_to_be_missing(
    run: Path, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, in_a_run: bool
) -> None:
    """A stranger's checkpoint on one's own data: no copy is found, and none is denied."""
    best = Path(shutil.copytree(run, tmp_path / "run")) / "checkpoints" / "best.ckpt"
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(source), str(tmp_path / "gone")))
    if not in_a_run:
        best = Path(shutil.copy(best, tmp_path / "alone.ckpt"))
    other = write(tmp_path / "other", {"test/sad": "sad", "test/happy": "happy"}, range(8, 10))
    shutil.copy(source / "train" / "sad" / "0.png", other / "test" / "sad" / "known.png")
    settings = settings_of(*TINY, "mode=test", f"ckpt={best}", f"data.path={other}", *OTHER)
    report = evaluate(settings, [best], tmp_path / "report")
    without = report["test"]["without_copies"]
    assert not without["complete"]
    assert without["exact"] == report["trained_on"]["test"] == 1
    assert f"{best} was trained on faces that are not at hand (" in caplog.text
    (copies,) = [text for head, text in verdict(report).sentences if head == "Copies"]
    assert copies.startswith("1 faces have an exact (1) or near copy among the training faces")
    assert copies.endswith("Not all training faces are at hand: there may be more.")


def test_kept_classes_share_the_probability_of_the_others(run: Path) -> None:
    best = run / "checkpoints" / "best.ckpt"
    pictures = torch.from_numpy(make_faces(5, 0, 0, seed=1).images).unsqueeze(1)
    whole_network, part = load_network(best), load_network(best)
    keep_classes(part, ("sad", "happy"))
    assert part.spec.classes == ("sad", "happy")
    every = predict(whole_network, pictures, {"accelerator": "cpu"}).probabilities(1.5)
    some = predict(part, pictures, {"accelerator": "cpu"}).probabilities(1.5)
    expected = every[:, [2, 1]] / every[:, [2, 1]].sum(dim=1, keepdim=True)
    torch.testing.assert_close(some, expected)


def test_a_class_that_no_folder_shows_is_said_before_training(source: Path, tmp_path: Path) -> None:
    settings = settings_of(*TINY, f"data.path={source}", "data.other_emotions=true", "data.classes=[borred,happy]")
    with pytest.raises(UserError, match="/Bored meant to be borred"):
        whole(settings, tmp_path / "run", [])
