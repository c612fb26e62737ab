"""The table of many runs, from run directories that are written by hand."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from fer.commands.summary import main
from fer.errors import UserError
from fer.evaluation.summary import make_rows, read_runs, summarise

CLASSES = ("happy", "sad")


def write_run(directory: Path, accuracy: float | None, rows: list[str] | None = None, **settings: Any) -> Path:
    """A run of `accuracy` on val and the same less 0.1 on test; None writes one that was not finished."""
    directory.mkdir(parents=True)
    base = {
        "mode": "train",
        "ckpt": None,
        "seed": 0,
        "name": directory.name,
        "data": {"folds": None, "fold": 0, "classes": ["happy", "sad"]},
        "model": {"name": "net", "kwargs": {"widths": [4, 8]}},
        "optim": {"lr": 0.1},
    }
    cfg = OmegaConf.create(base)
    for key, value in settings.items():
        OmegaConf.update(cfg, key.replace("__", "."), value)
    OmegaConf.save(cfg, directory / "config.yaml")
    if accuracy is None:
        return directory
    report: dict[str, Any] = {"reported_split": "test"}
    lines = ["split,row,target,prediction,happy,sad"]
    rows = [f"{i:04d}" for i in range(200)] if rows is None else rows
    for split, value in (("val", accuracy), ("test", accuracy - 0.1)):
        interval = {"accuracy": [value - 0.05, value + 0.05]}
        report[split] = {"accuracy": value, "f1": value, "loss": 1 - value, "interval95": interval}
        for position, row in enumerate(rows):
            right = position < round(value * len(rows))
            target = CLASSES[position % 2]
            prediction = target if right else CLASSES[1 - position % 2]
            lines.append(
                f"{split},{row},{target},{prediction},{float(prediction == 'happy')},{float(prediction == 'sad')}"
            )
    (directory / "metrics.json").write_text(json.dumps(report))
    (directory / "predictions.csv").write_text("\n".join(lines) + "\n")
    return directory


def table(directory: Path) -> list[dict[str, str]]:
    with (directory / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_seeds_are_one_row_and_the_best_is_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, (low, high) in enumerate([(0.5, 0.8), (0.6, 0.7), (0.55, 0.9)]):
        write_run(tmp_path / f"{seed}_a", low, seed=seed, optim__lr=0.1)
        write_run(tmp_path / f"{seed}_b", high, seed=seed, optim__lr=0.2)
    summarise([tmp_path])
    first, second = table(tmp_path)
    assert (first["lr"], first["n"], second["lr"], second["n"]) == ("0.2", "3", "0.1", "3")
    assert float(first["val_accuracy_mean"]) == pytest.approx(0.8)
    assert float(first["val_accuracy_std"]) == pytest.approx(np.std([0.8, 0.7, 0.9], ddof=1))
    assert float(second["test_accuracy_mean"]) == pytest.approx(0.45)
    text = (tmp_path / "summary.md").read_text()
    assert "| 0.2 | 3 | 0.8000 ± 0.1000 |" in text
    assert "'lr 0.2' 0.8000 against 'lr 0.1' 0.5500" in text
    assert (tmp_path / "summary.png").stat().st_size > 5000
    shown = capsys.readouterr().out
    assert shown.index("0.8000 ± 0.1000") < shown.index("0.5500 ± 0.0500")


def test_a_close_call_is_called_noise(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0.70, optim__lr=0.1)
    write_run(tmp_path / "b", 0.71, optim__lr=0.2)
    summarise([tmp_path])
    text = (tmp_path / "summary.md").read_text()
    assert text.count("The difference cannot be told from noise.") == 2
    assert "McNemar p = 0.5 (2 images only the first has right, 0 only the second)" in text


def test_the_order_follows_val_not_test(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0.70, optim__lr=0.1)
    better_on_test = write_run(tmp_path / "b", 0.69, optim__lr=0.2)
    report = json.loads((better_on_test / "metrics.json").read_text())
    report["test"]["accuracy"] = 0.99
    (better_on_test / "metrics.json").write_text(json.dumps(report))
    summarise([tmp_path])
    assert [row["lr"] for row in table(tmp_path)] == ["0.1", "0.2"]


def test_what_was_not_finished_is_a_row_that_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "0_a", 0.6, optim__lr=0.1)
    failed = write_run(tmp_path / "1_b", None, optim__lr=0.2)
    (failed / "failed.txt").write_text("model.name=nett: there is no such network\nand more\n")
    stopped = write_run(tmp_path / "2_c", None, optim__lr=0.3)
    (stopped / "history.csv").write_text("epoch,step\n0,1\n1,2\n2,3\n")
    summarise([tmp_path])
    rows = table(tmp_path)
    assert [(row["lr"], row["n"], row["status"]) for row in rows] == [
        ("0.1", "1", "finished"),
        ("0.2", "0", "failed: model.name=nett: there is no such network"),
        ("0.3", "0", "interrupted after 3 epochs"),
    ]


def test_a_row_is_named_by_what_is_needed_to_tell_it_apart(tmp_path: Path) -> None:
    """The arguments of a network follow from its name, a resumed run names its checkpoint."""
    write_run(tmp_path / "a", 0.6, model__name="net")
    write_run(tmp_path / "b", 0.7, model__name="senet", model__kwargs__widths=[1, 2, 3], ckpt="b/last.ckpt")
    write_run(tmp_path / "c", 0.8, model__name="senet", model__kwargs__widths=[1, 2, 3], data__classes=["sad", "fear"])
    labels = [row.label for row in make_rows(read_runs([tmp_path]))]
    assert labels == [
        {"model": "senet", "classes": "sad+fear"},
        {"model": "senet", "classes": "happy+sad"},
        {"model": "net", "classes": "happy+sad"},
    ]


def test_experiments_that_are_long_to_describe_go_by_their_names(tmp_path: Path) -> None:
    reasons = ["exact_copy", "near_copy", "cross_split_copy", "conflicting_labels"]
    for seed in (0, 1):
        write_run(tmp_path / f"raw_{seed}", 0.5, name="raw", seed=seed, data__exclude_reasons=None)
        write_run(tmp_path / f"clean_{seed}", 0.7, name="clean", seed=seed, data__exclude_reasons=reasons)
    assert [row.name for row in make_rows(read_runs([tmp_path]))] == ["clean", "raw"]
    write_run(tmp_path / "other", 0.6, name="raw", data__exclude_reasons=["blank"])  # the name tells no longer
    rows = make_rows(read_runs([tmp_path]))
    assert [row.label for row in rows][1:] == [{"exclude_reasons": "blank"}, {"exclude_reasons": "None"}]


def test_a_narrow_window_breaks_labels_and_never_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    for accuracy, reasons in ((0.7, ["a" * 30, "b" * 30]), (0.6, ["c" * 70])):
        write_run(tmp_path / f"{accuracy}", accuracy, name="same", data__exclude_reasons=reasons)
    summarise([tmp_path])
    printed = capsys.readouterr().out
    assert all(number in printed for number in ("0.7000", "0.6000", "0.5000"))
    assert max(map(len, printed.split("summary ")[0].splitlines())) <= 60


def test_a_window_too_narrow_for_all_columns_loses_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    names = [f"setting_{number}" for number in range(12)]
    for run, changed in enumerate(names):
        values: dict[str, Any] = {f"data__{name}": name == changed for name in names}
        write_run(tmp_path / f"{run}", 0.5 + run / 100, name="same", **values)
    rows = make_rows(read_runs([tmp_path]))
    summarise([tmp_path])
    printed = capsys.readouterr().out
    columns = printed.splitlines()[2].count("┃") - 1
    assert columns == len(rows[0].label) + len(["n", "val accuracy", "test accuracy", "test f1"]) > 14
    assert all(f"{row.mean('val accuracy'):.4f}" in printed for row in rows)


def test_what_strangers_runs_say_is_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["net", "=HYPERLINK(1)", "\x1b]0;owned\x07", "[/bold]", r"$\foo$"]
    for number, name in enumerate(names):
        write_run(tmp_path / str(number), 0.5 + number / 100, model__name=name)
    summarise([tmp_path])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    shown = ["net", "'=HYPERLINK(1)", r"\x1b]0;owned\x07", "[/bold]", r"$\foo$"]
    assert all(name.removeprefix("'") in printed for name in shown)
    assert {row["model"] for row in table(tmp_path)} == set(shown)


def test_folds_are_one_row_with_a_pooled_report(tmp_path: Path) -> None:
    accuracies = (0.5, 0.6, 0.75)
    for fold, accuracy in enumerate(accuracies):
        rows = [f"{fold}_{i:03d}" for i in range(40)]
        write_run(tmp_path / f"{fold}", accuracy, rows, data__folds=3, data__fold=fold)
    summarise([tmp_path])
    (row,) = table(tmp_path)
    assert row["n"] == "3"
    assert float(row["val_accuracy_mean"]) == pytest.approx(np.mean(accuracies))
    (pooled,) = json.loads((tmp_path / "out_of_fold.json").read_text())
    assert pooled["images"] == 120
    assert pooled["accuracy"] == pytest.approx(np.mean(accuracies))
    assert pooled["folds_finished"] == 3
    assert "Out of fold" in (tmp_path / "summary.md").read_text()
    assert len(list(tmp_path.glob("out_of_fold_*.png"))) == 1


def test_a_seed_counts_once_however_often_it_was_run(tmp_path: Path) -> None:
    for number in range(3):
        write_run(tmp_path / f"{number}_a", 0.7, optim__lr=0.1)
        write_run(tmp_path / f"{number}_b", 0.69, optim__lr=0.2, seed=number)
    summarise([tmp_path])
    first, second = table(tmp_path)
    assert (first["lr"], first["n"], second["n"]) == ("0.1", "1", "3")
    assert first["val_accuracy_std"] == ""
    text = (tmp_path / "summary.md").read_text()
    assert "Left out of 'lr 0.1', as runs of a seed and fold that another one has: 1_a, 2_a." in text
    assert text.count("Left out") == 1


def test_a_fold_counts_once_and_each_seed_has_its_own_folds(tmp_path: Path) -> None:
    for name, seed, fold in (("a", 0, 0), ("b", 0, 1), ("c", 0, 0), ("d", 1, 0)):
        rows = [f"{fold}_{i:03d}" for i in range(40)]
        write_run(tmp_path / name, 0.5, rows, data__folds=2, data__fold=fold, seed=seed)
    summarise([tmp_path])
    (row,) = table(tmp_path)
    assert row["n"] == "3"
    pools = json.loads((tmp_path / "out_of_fold.json").read_text())
    assert [(pool["images"], pool["folds_finished"]) for pool in pools] == [(80, 2), (40, 1)]
    text = (tmp_path / "summary.md").read_text()
    assert text.count("only 1 of 2 folds are finished") == 1
    assert "that another one has: c." in text


def damaged(directory: Path, name: str, content: bytes) -> Path:
    run = write_run(directory, None)
    (run / name).write_bytes(content)
    return run


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "nowhere", "is no directory"),
        (lambda path: path, "there is no run in it"),
        (lambda path: write_run(path / "run", None), "interrupted after 0 epochs"),
        (lambda path: damaged(path / "run", "metrics.json", b"{"), r"metrics\.json is damaged; make it again"),
        (lambda path: damaged(path / "run", "metrics.json", b'{"val": {}}'), r"metrics\.json is damaged"),
        (lambda path: damaged(path / "run", "failed.txt", b""), "the first one: failed: "),
        (lambda path: damaged(path / "run", "failed.txt", b"M\xfcller"), "the first one: failed: M"),
        (lambda path: path / ("x" * 300), "is no directory"),
    ],
)
def test_nothing_to_sum_up_ends_with_one_sentence(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        main([str(make(tmp_path))])
    assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(UserError):
        summarise([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    "text",
    [
        "wandb_version: 1\nseed:\n  value: 1\n",
        "name:\n  value: a\ndata:\n  value: {}\nmodel:\n  value: {}\n",
        "a: &a 1\nb: *a\n",
        "- 1\n",
        "{",
    ],
)
def test_a_config_of_another_program_is_no_run(tmp_path: Path, text: str) -> None:
    foreign = write_run(tmp_path / "a", 0.6) / "wandb" / "x" / "files"
    foreign.mkdir(parents=True)
    (foreign / "config.yaml").write_text(text)
    assert [run.directory.name for run in read_runs([tmp_path])] == ["a"]
    (tmp_path / "a" / "config.yaml").write_text("{")
    with pytest.raises(UserError, match="is not plain YAML"):
        read_runs([tmp_path])


def test_what_the_command_lines_named_is_what_the_rows_are_called_by(tmp_path: Path) -> None:
    """Not what followed from it: here the recipe sets the learning rate, too."""
    for name, lr in (("a", 0.1), ("b", 0.2)):
        run = write_run(tmp_path / name, 0.5, optim={"lr": lr}, label_smoothing=lr / 2)
        text = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(f"{text}run:\n  overrides: [label_smoothing={lr / 2}]\n")
    assert {tuple(row.label) for row in make_rows(read_runs([tmp_path]))} == {("label_smoothing",)}
