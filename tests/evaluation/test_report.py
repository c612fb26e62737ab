"""Reports on one checkpoint and on ensembles: what is written, and that it is right."""

import base64
import csv
import dataclasses
import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fer import rundir
from fer.checkpoint import load_network, read_checkpoint, read_spec, write_checkpoint
from fer.commands.train import whole
from fer.data import datamodule
from fer.data.corruptions import CORRUPTIONS
from fer.data.datamodule import FER2013DataModule
from fer.data.faces import TEST, TRAIN, Faces
from fer.data.synthetic import make_faces
from fer.errors import UserError
from fer.evaluation import html
from fer.evaluation.known_faces import faces_of_training
from fer.evaluation.members import load_members
from fer.evaluation.pictures import training_pictures
from fer.evaluation.run import evaluate
from fer.predict import predict
from fer.settings.train import TrainSettings
from fer.training.run import train

Settings = Callable[..., TrainSettings]
TRAINED: dict[tuple[str, ...], Path] = {}


@pytest.fixture
def trained(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The directory of a run, with or without its report; each is trained once."""

    def run(*overrides: str, report: bool = True) -> Path:
        if overrides not in TRAINED:
            cfg, directory = settings(*overrides), tmp_path_factory.mktemp("run")
            if report:
                whole(cfg, directory, [])
            else:
                rundir.claim(directory, cfg, [])
                train(cfg, directory)
            TRAINED[overrides] = directory
        return TRAINED[overrides]

    return run


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of numbers: drawing takes most of the time of a report."""
    monkeypatch.setattr("fer.evaluation.pictures._figures", lambda *_, **__: {})


def best(run: Path) -> Path:
    return run / "checkpoints" / "best.ckpt"


def read_predictions(run: Path, split: str) -> list[dict[str, str]]:
    with (run / "predictions.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["split"] == split]


def test_a_report_is_whole(trained: Callable[..., Path]) -> None:
    run = trained()
    report = json.loads((run / "metrics.json").read_text())
    for name in ("accuracy", "f1", "precision", "recall", "auroc", "average_precision", "loss", "brier"):
        low, high = report["test"]["interval95"][name]
        assert low - 1e-6 <= report["test"][name] <= high + 1e-6, name  # torchmetrics counts in float32
    checkpoint = report["checkpoints"][0]
    assert checkpoint["sha256"] == hashlib.sha256(best(run).read_bytes()).hexdigest()
    assert checkpoint["weights"] == "averaged"
    assert checkpoint["temperature"] == read_spec(best(run)).temperature != 1
    machine = checkpoint["provenance"]["machine"]
    assert machine.startswith("CPU, ")
    assert machine in (run / "report.html").read_text()
    assert report["tta"] == "none"
    assert report["reported_split"] == "test"

    names = {
        *("confusion_matrix", "roc", "precision_recall", "reliability"),
        *("per_class", "mistakes", "predictions", "grad_cam", "abstention"),
    }
    expected = {f"{name}_test.png" for name in names} | {"confusion_matrix_val.png"}
    pictures = {file.name for file in (run / "plots").iterdir()}
    assert expected <= pictures
    for name in expected:
        with Image.open(run / "plots" / name) as image:
            assert min(image.size) > 200
            colors = image.convert("L").getcolors()
            assert colors is not None
            assert len(colors) > 10

    page = (run / "report.html").read_text()
    of_training = {file.stem for file in (run / "plots").iterdir()} & set(html.TRAINING)
    assert {"training_progress", "samples"} <= of_training
    assert page.count("data:image/webp;base64,") == len(expected) + len(of_training)
    assert page.index("Training curves</h3>") < page.index("Confusion matrix (test)</h3>")
    assert len(page) < 3_000_000  # and under 5 MB with everything that a report can have
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert set(re.findall('href="#([^"]*)"', page)) == set(re.findall(' id="([^"]*)"', page))
    assert checkpoint["sha256"] in page

    assert sum(report["training"]["counts"].values()) == 210
    assert report["training"]["beside"] == []
    points = report["test"]["operating_points"]
    assert points["chosen_on"] == report["val"]["operating_points"]["chosen_on"] == "val"
    rows = read_predictions(run, "test")
    for name in report["classes"]:
        best_f1 = points["classes"][name]["best_f1"]
        # predictions.csv has six digits: between the one and the other bound
        more, fewer = (
            [row["target"] for row in rows if float(row[name]) >= best_f1["threshold"] + shift]
            for shift in (-1e-6, 1e-6)
        )
        assert len(fewer) <= best_f1["called"] <= len(more)
        assert fewer.count(name) <= round(10 * best_f1["true_positive_rate"]) <= more.count(name)


def test_text_from_outside_is_escaped(trained: Callable[..., Path]) -> None:
    text = (trained() / "metrics.json").read_text()
    hostile = "<b title='x'>&happy"
    report = json.loads(text.replace('"happy"', json.dumps(hostile)).replace("best.ckpt", "<script>.ckpt"))
    page = html.render(report, {}, "name: </pre><script>", "<script>alert(1)</script>")
    assert "<script" not in page
    assert "<b title" not in page
    assert page.count("&lt;b title=&#39;x&#39;&gt;&amp;happy") >= 3
    assert "&lt;/pre&gt;&lt;script&gt;" in page


def test_every_picture_that_has_a_caption_is_on_the_page(trained: Callable[..., Path]) -> None:
    report = json.loads((trained() / "metrics.json").read_text())
    names = [name if name in html.TRAINING else f"{name}_test" for name in html.CAPTIONS]
    page = html.render(report, {name: name.encode() for name in names}, "", "all")
    for name in names:
        assert page.count(f'base64,{base64.b64encode(name.encode()).decode()}"') == 1, name
    assert page.count("<figcaption>") == len(names)


def test_pictures_of_the_training_that_cannot_be_read_are_left_out(
    tmp_path: Path, trained: Callable[..., Path]
) -> None:
    shutil.copytree(trained(), tmp_path, dirs_exist_ok=True)
    (tmp_path / "plots" / "samples.png").write_text("no picture")
    with (tmp_path / "plots" / "architecture.png").open("wb") as file:
        file.truncate(3_000_000)
    found = training_pictures(load_members([best(tmp_path)], "none"))
    assert set(found) == {"training_progress"}
    too_much = PngInfo()
    too_much.add_text("Comment", "x" * 2_000_000, zip=True)
    Image.new("L", (8, 8)).save(tmp_path / "plots" / "samples.png", pnginfo=too_much)
    assert set(training_pictures(load_members([best(tmp_path)], "none"))) == {"training_progress"}
    old, new = tmp_path / "plots" / "training_progress.png", io.BytesIO(found["training_progress"])
    with Image.open(old) as one, Image.open(new) as two:
        assert np.array_equal(np.asarray(one.convert("RGB")), np.asarray(two.convert("RGB")))


def test_classes_are_ordered_by_recall() -> None:
    per_class = {
        "happy": {"images": 5, "recall": 0.9},
        "contempt": {"images": 0, "recall": 0.0},
        "fear": {"images": 5, "recall": 0.2},
    }
    assert list(html.weakest_first(per_class)) == ["fear", "happy", "contempt"]


def test_predictions_give_the_metrics_again(trained: Callable[..., Path]) -> None:
    run = trained()
    report = json.loads((run / "metrics.json").read_text())
    for split in ("val", "test"):
        rows = read_predictions(run, split)
        assert len(rows) == report[split]["images"] == 70
        assert len({row["row"] for row in rows}) == 70
        right = np.mean([row["target"] == row["prediction"] for row in rows])
        assert right == pytest.approx(report[split]["accuracy"])
        probabilities = np.array([[float(row[name]) for name in report["classes"]] for row in rows])
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
        of_target = [float(row[row["target"]]) for row in rows]
        assert -np.log(of_target).mean() == pytest.approx(report[split]["loss"], abs=1e-4)


@pytest.mark.usefixtures("no_pictures")
def test_copies_are_left_out(
    trained: Callable[..., Path], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(**arguments: int) -> Faces:
        faces = make_faces(**arguments)
        test, train_rows = np.flatnonzero(faces.splits == TEST), np.flatnonzero(faces.splits == TRAIN)
        faces.images[test[:6]] = faces.images[train_rows[:6]]
        faces.images[test[6:10]] = faces.images[train_rows[6:10], :, ::-1]
        return faces

    monkeypatch.setattr(datamodule, "make_faces", planted)
    report = evaluate(settings(), [best(trained())], tmp_path)
    without = report["test"]["without_copies"]
    assert (without["removed"], without["images"]) == (10, 60)
    rows = read_predictions(tmp_path, "test")[10:]
    assert without["accuracy"] == pytest.approx(np.mean([row["target"] == row["prediction"] for row in rows]))
    assert report["val"]["without_copies"] == {"removed": 0, "exact": 0, "complete": True}


@pytest.mark.usefixtures("no_pictures")
def test_test_rows_do_not_influence_the_choice(
    trained: Callable[..., Path], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other test rows and labels the same checkpoint is chosen, with the same temperature."""

    def scrambled(**arguments: int) -> Faces:
        faces = make_faces(**arguments)
        test = faces.splits == TEST
        labels = faces.labels.copy()
        labels[test] = np.random.default_rng(0).permutation(labels[test])
        images = faces.images.copy()
        images[test] = 255 - images[test]
        return dataclasses.replace(faces, images=images, labels=labels)

    monkeypatch.setattr(datamodule, "make_faces", scrambled)
    cfg = settings()
    whole(cfg, tmp_path, [])
    other = json.loads((tmp_path / "metrics.json").read_text())
    report = json.loads((trained() / "metrics.json").read_text())
    assert other["test"]["loss"] != report["test"]["loss"]
    assert other["val"] == report["val"]
    assert read_spec(best(tmp_path)) == read_spec(best(trained()))
    one, two = (read_checkpoint(best(run)) for run in (tmp_path, trained()))
    assert one["epoch"] == two["epoch"]
    assert all(torch.equal(one["state_dict"][name], two["state_dict"][name]) for name in one["state_dict"])


@pytest.mark.parametrize(("tta", "views"), [("flip", 2), ("tencrop", 10), ("shift", 10)])
def test_test_time_augmentation_averages_views(
    trained: Callable[..., Path], settings: Settings, tta: str, views: int
) -> None:
    cfg = settings()
    network = load_network(best(trained()))
    data = FER2013DataModule(cfg.data)
    data.setup()
    faces, _ = data.tensors(TEST)
    found = predict(network, faces, cfg.trainer, tta)
    assert found.logits.shape == (views, 70, 7)
    mirrored = predict(network, faces.flip(-1), cfg.trainer, tta)
    torch.testing.assert_close(found.probabilities(2.0), mirrored.probabilities(2.0), atol=2e-3, rtol=0)
    plain = predict(network, faces, cfg.trainer)
    if tta == "flip":
        torch.testing.assert_close(found.logits[0], plain.logits[0])
    assert not torch.equal(found.probabilities(1.0), plain.probabilities(1.0))


def test_val_can_be_reported_without_a_look_at_test(
    trained: Callable[..., Path], settings: Settings, tmp_path: Path
) -> None:
    report = evaluate(settings("test_split=val", "tta=flip"), [best(trained())], tmp_path)
    assert "test" not in report
    assert report["reported_split"] == "val"
    assert report["tta"] == "flip"
    assert (len(read_predictions(tmp_path, "val")), len(read_predictions(tmp_path, "test"))) == (70, 0)
    assert (tmp_path / "plots" / "roc_val.png").exists()


def test_numbers_are_there_when_a_picture_fails(
    trained: Callable[..., Path], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such font")

    checkpoint = best(trained())
    monkeypatch.setattr("fer.evaluation.pictures._figures", fail)
    with pytest.raises(RuntimeError, match="no such font"):
        evaluate(settings(), [checkpoint], tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["test"]["images"] == 70
    assert len(read_predictions(tmp_path, "test")) == 70


@pytest.mark.usefixtures("no_pictures")
def test_tensorboard_is_written_only_where_it_is_asked_for(
    trained: Callable[..., Path], settings: Settings, tmp_path: Path
) -> None:
    for name, words in (("with", []), ("without", ["logger=[]"])):
        evaluate(settings(*words), [best(trained())], tmp_path / name, secret=name == "without")
    assert list((tmp_path / "with").glob("events.*"))
    assert not list((tmp_path / "without").rglob("events.*"))
    for name, shown in (("with", True), ("without", False)):  # settings that came from the environment are not told on
        assert ("label_smoothing: " in (tmp_path / name / "report.html").read_text()) == shown


def test_an_ensemble_averages_probabilities(
    trained: Callable[..., Path],
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = [trained(), trained("seed=1")]
    monkeypatch.setattr("fer.evaluation.run.short", lambda path: "2026-11-21_18-30-00_a_long_name")
    monkeypatch.setenv("COLUMNS", "80")
    capsys.readouterr()
    report = evaluate(settings(), [best(run) for run in runs], tmp_path)
    shown = capsys.readouterr().out  # in a narrow window names are broken, never numbers
    assert all(f"{member['accuracy']:.4f}" in shown for member in report["test"]["members"])
    assert "…" not in shown
    classes = report["classes"]
    parts = [
        np.array([[float(row[name]) for name in classes] for row in read_predictions(run, "test")])
        for run in [*runs, tmp_path]
    ]
    np.testing.assert_allclose((parts[0] + parts[1]) / 2, parts[2], atol=2e-6)
    for run, member in zip(runs, report["test"]["members"], strict=True):
        own = json.loads((run / "metrics.json").read_text())["test"]
        assert member["accuracy"] == own["accuracy"]
        assert member["loss"] == pytest.approx(own["loss"])
    differ = np.mean(parts[0].argmax(axis=1) != parts[1].argmax(axis=1))
    assert 0 < report["test"]["disagreement"]["any"] == pytest.approx(differ)
    assert report["test"]["disagreement"]["mean_of_pairs"] == pytest.approx(differ)
    assert (tmp_path / "plots" / "ensemble_test.png").exists()
    assert str(best(runs[1])) in (tmp_path / "report.html").read_text()


def test_groups_are_reported(
    trained: Callable[..., Path], settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row["row"] for row in read_predictions(trained(), "test")]
    groups = [("$<a", row) for row in rows[:40]] + [("b$", row) for row in rows[40:60]]
    (tmp_path / "groups.csv").write_text("id,group\n" + "".join(f"{row},{group}\n" for group, row in groups))
    cfg = settings(f"data.groups={tmp_path}/groups.csv", "data.classes=7")
    report = evaluate(cfg, [best(trained())], tmp_path / "run")
    found = report["test"]["groups"]["group"]
    assert {name: own["images"] for name, own in found["groups"].items()} == {"$<a": 40, "b$": 20}
    assert (found["without"], found["few"]) == (10, ["$<a", "b$"])
    answers = read_predictions(tmp_path / "run", "test")[:40]
    right = np.mean([row["target"] == row["prediction"] for row in answers])
    assert found["groups"]["$<a"]["accuracy"] == pytest.approx(right)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "$&lt;a" in page
    assert "$<a" not in page
    assert (tmp_path / "run" / "plots" / "groups_test.png").is_file()


def test_corrupted_faces_are_reported(
    trained: Callable[..., Path], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = {name: CORRUPTIONS[name] for name in ("jpeg", "lower_half_covered")}
    for module in ("robustness", "pictures"):
        monkeypatch.setattr(f"fer.evaluation.{module}.CORRUPTIONS", some)
    cfg = settings("robustness=true", "robustness_faces=20")
    evaluate(cfg, [best(trained()), best(trained("seed=1"))], tmp_path)
    report = json.loads((tmp_path / "metrics.json").read_text())
    robustness = report["robustness"]
    assert {found["n"] for found in robustness["corruptions"].values()} == {20}
    assert [member["path"] for member in robustness["members"]] == [own["path"] for own in report["checkpoints"]]
    page = (tmp_path / "report.html").read_text()
    assert robustness["digest"] in page
    assert page.count("lower half covered") == 1
    for name in ("robustness_test.png", "corruptions_test.png"):
        with Image.open(tmp_path / "plots" / name) as image:
            colors = image.convert("L").getcolors()
            assert colors is not None
            assert len(colors) > 100
    assert "robustness" not in json.loads((trained() / "metrics.json").read_text())


def test_members_of_other_classes_are_refused(trained: Callable[..., Path], settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="same classes") as error:
        evaluate(settings(), [best(trained()), best(trained("data.classes=4", report=False))], tmp_path)
    assert len(str(error.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_pictures")
def test_a_split_that_a_member_was_trained_on_is_left_out(
    trained: Callable[..., Path], settings: Settings, tmp_path: Path
) -> None:
    folds = [trained("data.folds=2", f"data.fold={fold}", report=False) for fold in (0, 1)]
    report = evaluate(settings("data.folds=2"), [best(run) for run in folds], tmp_path)
    assert "val" not in report
    assert report["test"]["images"] == 70
    with pytest.raises(UserError, match="trained on"):
        evaluate(settings("data.folds=2", "test_split=val"), [best(folds[1])], tmp_path)


def test_copies_are_looked_for_among_the_faces_that_the_checkpoints_were_trained_on(
    trained: Callable[..., Path], settings: Settings
) -> None:
    folds = [trained("data.folds=2", f"data.fold={fold}", report=False) for fold in (0, 1)]
    given = settings()
    datamodule = FER2013DataModule(given.data)
    datamodule.setup()
    members = load_members([best(run) for run in folds], "none")
    own = [len(faces_of_training(given, [member], datamodule)[0]) for member in members]
    assert own[0] + own[1] == 210 + 70  # each fold trains on what the other one validates on
    found, complete = faces_of_training(given, members, datamodule)
    assert len(found) == sum(own)
    assert complete


def test_classes_that_do_not_fit_are_refused(
    trained: Callable[..., Path], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"data\.classes asks for"):
        evaluate(settings("data.classes=4"), [best(trained())], tmp_path)

    def only_happy(**arguments: int) -> Faces:
        faces = make_faces(**arguments)
        return faces.select(faces.labels == 3)

    monkeypatch.setattr(datamodule, "make_faces", only_happy)
    with pytest.raises(UserError, match=r"no face of angry, disgust, fear, sad, .* at least two of these classes"):
        evaluate(settings(), [best(trained())], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_pictures")
def test_a_lone_checkpoint_brings_its_classes(trained: Callable[..., Path], settings: Settings, tmp_path: Path) -> None:
    write_checkpoint(read_checkpoint(best(trained("data.classes=4", report=False))), tmp_path / "shipped.ckpt")
    report = evaluate(settings(), [tmp_path / "shipped.ckpt"], tmp_path / "run")
    assert report["classes"] == ["angry", "happy", "sad", "neutral"]
