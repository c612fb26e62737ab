"""The report on doubtful rows: what it finds, what it writes, and that it leaves the source alone."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer.cleaning.clean import (
    clean,
    find_all_copies,
    find_blank,
    find_by_votes,
    inspect,
    read_predictions,
)
from fer.cleaning.contact_sheet import COLUMNS, ROWS, Cell, draw_sheets
from fer.data.datamodule import FER2013DataModule
from fer.data.exclude import COLUMNS as LIST_COLUMNS
from fer.data.exclude import Finding, picture_digest
from fer.data.faces import TEST, TRAIN, UNSPLIT, VAL, Faces
from fer.data.reader import read
from fer.data.synthetic import make_faces
from fer.errors import UserError
from fer.labels import ALL_EMOTIONS, EMOTIONS
from fer.settings.tables import CleanDataSettings, CleanSettings
from fer.settings.train import DataSettings
from fer.settings.words import read as read_words

ANGRY, HAPPY, SAD = (EMOTIONS.index(name) for name in ("angry", "happy", "sad"))


def make(images: list[np.ndarray], labels: list[int], splits: list[int] | None = None) -> Faces:
    splits = splits or [TRAIN] * len(images)
    rows = np.array([str(row) for row in range(len(images))])
    return Faces(np.stack(images).astype(np.uint8), np.array(labels), np.array(splits, np.int8), rows)


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    """Eight different faces."""
    return make_faces(8, 0, 0, seed=3).images


def by_reason(findings: list[Finding]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for finding in findings:
        found.setdefault(finding.reason, []).append(finding.position)
    return {reason: sorted(rows) for reason, rows in found.items()}


def slightly(image: np.ndarray) -> np.ndarray:
    return np.clip(image.astype(float) * 0.9 + 12 + np.random.default_rng(0).normal(0, 2, image.shape), 0, 255)


def test_copies_of_every_kind(drawn: np.ndarray) -> None:
    one, two, three, four, *_ = drawn
    faces = make(
        [one, two, one, slightly(one), one[:, ::-1], two, three, three, four],
        [HAPPY, SAD, HAPPY, HAPPY, HAPPY, SAD, SAD, ANGRY, SAD],
        [TRAIN, TRAIN, TRAIN, TRAIN, TRAIN, VAL, TRAIN, TRAIN, TEST],
    )
    findings, groups, note = find_all_copies(faces, None)
    assert by_reason(findings) == {
        "exact_copy": [2, 7],
        "near_copy": [3, 4],
        "cross_split_copy": [1, 5],
        "conflicting_labels": [6, 7],
    }
    assert groups.tolist() == [1, 2, 1, 1, 1, 2, 3, 3, 0]
    assert all(finding.group == groups[finding.position] for finding in findings)
    score = {finding.position: finding.score for finding in findings if finding.reason == "near_copy"}
    assert 0.9 <= score[3] < 1
    assert score[4] == 1  # mirrored to the pixel
    assert "3 groups of 8 rows" in note
    assert "3 rows repeat an earlier one to the pixel; in 1 groups" in note


def test_conflicts_suggest_the_label_of_most_or_of_the_votes(drawn: np.ndarray) -> None:
    faces = make([drawn[0]] * 3 + [drawn[1]] * 2, [HAPPY, SAD, HAPPY, SAD, ANGRY])
    suggested = {
        finding.position: finding.suggested
        for finding in find_all_copies(faces, None)[0]
        if finding.reason == "conflicting_labels"
    }
    assert suggested == {0: HAPPY, 1: HAPPY, 2: HAPPY, 3: None, 4: None}
    votes = np.zeros((5, 10), np.int64)
    votes[:, ANGRY] = 10
    votes[4] = np.eye(10)[8] * 10  # unknown
    suggested = {
        finding.position: finding.suggested
        for finding in find_all_copies(faces, votes)[0]
        if finding.reason == "conflicting_labels"
    }
    assert suggested == {0: ANGRY, 1: ANGRY, 2: ANGRY, 3: ANGRY, 4: None}


def test_labels_of_other_splits_decide_nothing(drawn: np.ndarray) -> None:
    picture = drawn[0]
    labels, splits = [HAPPY, SAD, SAD, SAD, HAPPY], [TRAIN, TRAIN, TEST, TEST, TRAIN]
    seen = find_all_copies(make([picture] * 5, labels, splits), None)[0]
    found = [finding for finding in seen if finding.reason == "conflicting_labels"]
    assert {finding.position: finding.suggested for finding in found} == {0: HAPPY, 1: HAPPY, 4: HAPPY}
    for other in (ANGRY, HAPPY):  # whatever the test rows are called, the training rows are treated alike
        labels[2:4] = [other, SAD]
        again = find_all_copies(make([picture] * 5, labels, splits), None)[0]
        assert [each for each in again if splits[each.position] == TRAIN] == [
            each for each in seen if splits[each.position] == TRAIN
        ]


def test_blank_pictures_and_a_dark_face_that_is_none(drawn: np.ndarray) -> None:
    black, gray, sign = np.zeros((48, 48)), np.full((48, 48), 130), np.zeros((48, 48))
    gray[::7, ::5] += 3
    sign[30:, 20:28] = 255
    dark = drawn[0] * 0.15
    findings = find_blank(make([black, drawn[1], gray, sign, dark], [0] * 5))
    assert [finding.position for finding in findings] == [0, 2, 3]
    assert findings[0].score == 1


def test_votes_speak_against_rows() -> None:
    def votes(**counts: int) -> list[int]:
        return [counts.get(name, 0) for name in (*ALL_EMOTIONS, "unknown", "not_a_face")]

    rows = np.array(
        [
            votes(happy=10),
            votes(not_a_face=7, happy=3),
            votes(unknown=6, happy=4),
            votes(sad=8, happy=2),
            votes(sad=5, happy=3, angry=2),  # no more than half
            votes(contempt=9, happy=1),
        ]
    )
    faces = make([np.full((48, 48), row) for row in range(6)], [HAPPY] * 6)
    found = {(finding.position, finding.reason): finding for finding in find_by_votes(faces, rows)}
    assert set(found) == {(1, "not_a_face"), (2, "unknown"), (3, "ferplus_disagrees"), (5, "ferplus_disagrees")}
    assert found[1, "not_a_face"].score == pytest.approx(0.7)
    assert found[3, "ferplus_disagrees"].score == pytest.approx(0.6)
    assert found[3, "ferplus_disagrees"].suggested == SAD
    assert found[5, "ferplus_disagrees"].suggested == ALL_EMOTIONS.index("contempt")


def predictions(path: Path, lines: list[tuple[str, str, list[float]]], classes: tuple[str, ...] = EMOTIONS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["split", "row", "target", "prediction", *classes])
        writer.writerows(["val", row, target, "x", *values] for row, target, values in lines)
    return path


def test_predictions_of_folds_are_joined_and_of_repeats_averaged(
    some_faces: Callable[..., Faces], tmp_path: Path
) -> None:
    faces = some_faces(7)
    even = [0.1, 0.1, 0.1, 0.1, 0.2, 0.2, 0.2]
    sure = [0.9, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0]
    predictions(tmp_path / "sweep" / "0_fold-0" / "predictions.csv", [("0", "angry", sure), ("2", "fear", even)])
    predictions(tmp_path / "sweep" / "1_fold-1" / "predictions.csv", [("1", "disgust", even)])
    again = predictions(tmp_path / "again.csv", [("0", "angry", even)])
    rows, probabilities, classes = read_predictions([tmp_path / "sweep", again], faces)
    assert rows.tolist() == [0, 1, 2]
    assert classes == EMOTIONS
    assert probabilities[0] == pytest.approx(np.add(sure, even) / 2)
    assert probabilities[1:] == pytest.approx(np.array([even, even]))


def test_predictions_of_other_data_are_refused(some_faces: Callable[..., Faces], tmp_path: Path) -> None:
    faces = some_faces(7)
    even = [1 / 7] * 7
    with pytest.raises(UserError, match=r"there is no predictions\.csv"):
        read_predictions([tmp_path], faces)
    other = predictions(tmp_path / "other.csv", [("0", "sad", even)])
    with pytest.raises(UserError, match="calls row 0 sad, which the data do not"):
        read_predictions([other], faces)
    four = predictions(tmp_path / "four.csv", [("0", "angry", [0.25] * 4)], ("angry", "happy", "sad", "neutral"))
    seven = predictions(tmp_path / "seven.csv", [("0", "angry", even)])
    with pytest.raises(UserError, match="has other classes"):
        read_predictions([seven, four], faces)
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="cannot be used"):
        read_predictions([tmp_path / "bad.csv"], faces)


@pytest.mark.parametrize(
    ("classes", "lines", "fault"),
    [
        (EMOTIONS, [], "it has no rows"),
        (("happy", "sad"), [("0", "angry", [0.5, 0.5])], "it has the target angry, which is none of its columns"),
        ((), [("0", "angry", [])], "its columns are not those"),
    ],
)
def test_predictions_of_nothing_are_refused(
    some_faces: Callable[..., Faces],
    tmp_path: Path,
    classes: tuple[str, ...],
    lines: list[tuple[str, str, list[float]]],
    fault: str,
) -> None:
    path = predictions(tmp_path / "p.csv", lines, classes)
    with pytest.raises(UserError, match=rf"p\.csv cannot be used \({fault}"):
        inspect(some_faces(7), None, [path])


def test_predictions_that_excel_has_saved(some_faces: Callable[..., Faces], tmp_path: Path) -> None:
    path = predictions(tmp_path / "p.csv", [("0", "angry", [1 / 7] * 7)])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_predictions([path], some_faces(7))[0].tolist() == [0]


def test_label_errors_come_from_the_predictions(some_faces: Callable[..., Faces], tmp_path: Path) -> None:
    faces = some_faces(70)
    lines = []
    for row, label in enumerate(faces.labels.tolist()):
        predicted = HAPPY if row == 4 else label  # row 4 is labelled sad
        lines.append((str(row), EMOTIONS[label], [0.94 if index == predicted else 0.01 for index in range(7)]))
    report = inspect(faces, None, [predictions(tmp_path / "p.csv", lines)])
    (finding,) = report.findings
    assert (finding.position, finding.reason, finding.suggested) == (4, "label_error", HAPPY)
    assert "70 rows have predictions, right on 98.6%" in report.notes[-1]


def test_the_whole_report(
    drawn: np.ndarray, csv_text: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faces = make(
        [*drawn, drawn[2], drawn[3], np.zeros((48, 48))],
        [*[HAPPY] * 8, HAPPY, SAD, SAD],
        [*[TRAIN] * 8, TRAIN, VAL, TEST],
    )
    source = tmp_path / "faces.csv"
    source.write_text(csv_text(faces))
    before = source.read_bytes()
    path = clean(CleanSettings(data=CleanDataSettings(path=str(source)), output=str(tmp_path / "out")))
    assert source.read_bytes() == before
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == list(LIST_COLUMNS)
    assert [(line["reason"], line["row"], line["suggested_label"], line["group"]) for line in lines] == [
        ("blank", "10", "", ""),
        ("exact_copy", "8", "", "1"),
        ("cross_split_copy", "3", "", "2"),
        ("cross_split_copy", "9", "", "2"),
    ]
    assert lines[0]["picture"] == picture_digest(faces.images[10])
    sheets = sorted(sheet.name for sheet in (tmp_path / "out" / "sheets").iterdir())
    assert sheets == [f"{reason}_001.png" for reason in ("blank", "cross_split_copy", "exact_copy")]
    shown = " ".join(capsys.readouterr().out.split())  # a narrow window breaks lines
    for words in ("cross_split_copy", "11 rows", "The source is unchanged", str(path)):
        assert words in shown
    # Once more without the blank picture: no old sheet stays.
    source.write_text(csv_text(faces.select(np.arange(10))))
    clean(CleanSettings(data=CleanDataSettings(path=str(source)), output=str(tmp_path / "out")))
    assert not (tmp_path / "out" / "sheets" / "blank_001.png").exists()


def test_only_the_votes_by_their_own_name_are_fetched(tmp_path: Path, csv_text: Callable[..., str]) -> None:
    (tmp_path / "faces.csv").write_text(csv_text(make_faces(3, 0, 0, seed=0)))
    data = CleanDataSettings(path=str(tmp_path / "faces.csv"), ferplus_path=str(tmp_path / "votes.csv"))
    with pytest.raises(UserError, match=r"votes\.csv does not exist; correct it"):
        clean(CleanSettings(data=data, output=str(tmp_path / "out")))


def test_a_source_without_splits(drawn: np.ndarray) -> None:
    faces = make([drawn[0], drawn[0], drawn[1]], [HAPPY] * 3, [UNSPLIT] * 3)
    assert by_reason(inspect(faces).findings) == {"exact_copy": [1]}


def test_sheets_are_filled_in_order_and_keep_groups_on_a_row() -> None:
    def cell(gray: int, marked: bool = False) -> Cell:
        return Cell(np.full((48, 48), gray, np.uint8), ["happy", "row", "train"], marked)

    groups = [[cell(10)] * 3] * 9  # four groups fit a row of 14
    (sheet,) = draw_sheets(groups, "title")
    assert sheet.startswith(b"\x89PNG")
    many = draw_sheets([[cell(10)]] * (COLUMNS * ROWS + 1), "title")
    assert len(many) == 2
    large = draw_sheets([[cell(10)] * (2 * COLUMNS + 3), [cell(20)]], "title")
    assert len(large) == 1
    pixels = np.asarray(Image.open(io.BytesIO(large[0])).convert("L"))
    faces = (pixels == 10).sum() / (96 * 96)  # text has a few pixels of any gray
    assert 2 * COLUMNS + 3 <= faces < 2 * COLUMNS + 3.5
    assert (pixels == 20).sum() >= 96 * 96


@pytest.mark.parametrize("size", [64, 112])
def test_faces_of_another_size(size: int, tmp_path: Path) -> None:
    """RAF-DB's and AffectNet's pictures are larger: a list is of the size at which they are trained on."""
    source = tmp_path / "faces"
    for number, face in enumerate(make_faces(14, 0, 0, seed=3).images[[0, 1, 2, 3, 4, 5, 0]]):
        pixels = Image.fromarray(face).resize((size, size), Image.Resampling.BICUBIC)
        (source / "train" / str(number % 2 + 1)).mkdir(parents=True, exist_ok=True)
        pixels.save(source / "train" / str(number % 2 + 1) / f"{number}.png")
    words = [f"data.path={source}", f"data.size={size}", "data.names=[happy,sad]", f"output={tmp_path / 'found'}"]
    listing = clean(read_words(CleanSettings, words))
    with listing.open(newline="") as file:
        assert {(line["row"], line["reason"]) for line in csv.DictReader(file)} == {("train/1/6.png", "exact_copy")}
    with Image.open(tmp_path / "found" / "sheets" / "exact_copy_001.png") as sheet:
        assert len(np.unique(np.asarray(sheet.convert("L")))) > 50
    asked = {"path": str(source), "names": ["happy", "sad"], "classes": ["happy", "sad"], "exclude": str(listing)}
    data = FER2013DataModule(DataSettings.checked({**asked, "size": size}))
    data.setup()
    assert "train/1/6.png" not in data.faces.ids
    with pytest.raises(UserError, match=r"shows another picture .* or at another data\.size"):
        FER2013DataModule(DataSettings.checked(asked)).setup()


def test_the_command_line() -> None:
    found = read_words(CleanSettings, ["data.path=a.csv", "data.ferplus_path=b.csv", "predictions=[x,y]", "output=z"])
    assert found.plain() == {
        "data": {"path": "a.csv", "ferplus_path": "b.csv", "layout": None, "names": None, "size": 48},
        "predictions": ["x", "y"],
        "output": "z",
    }
    with pytest.raises(UserError) as error:
        read_words(CleanSettings, ["data.pth=a", "nonsense"])
    assert "did you mean data.path" in str(error.value)
    assert "'nonsense' cannot be read" in str(error.value)
    with pytest.raises(UserError, match=r"data is missing"):
        read_words(CleanSettings, [])


def test_the_real_rows(fer2013_zip: Path) -> None:
    """1,236 training rows repeat an earlier one, and 12 rows are black, as other programs count."""
    faces = read(fer2013_zip)
    assert sum(finding.score == 1 for finding in find_blank(faces)) == 12
    training = faces.select(faces.splits == TRAIN)
    digests = np.array([picture_digest(image) for image in training.images])
    _, which, times = np.unique(digests, return_inverse=True, return_counts=True)
    # Near copies among all rows would take a quarter of a minute: those that have an exact copy, and some others.
    chosen = training.select((times[which] > 1) | (np.arange(len(training)) % 20 == 0))
    assert len(by_reason(find_all_copies(chosen, None)[0])["exact_copy"]) == 1236
