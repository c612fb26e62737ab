"""Small trees as people have them on their disks; each test names a public loader or readme that shows the layout."""

import csv
import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fer.data import layouts
from fer.data.datamodule import FER2013DataModule
from fer.data.faces import TEST, TRAIN, UNSPLIT, VAL, Faces
from fer.data.layouts import CODES
from fer.data.reader import read
from fer.errors import UserError
from fer.labels import ALL_EMOTIONS, EMOTIONS
from fer.settings.train import DataSettings

RAFDB = ("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral")
AFFECTNET = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt")
KDEF = ("fear", "angry", "disgust", "happy", "neutral", "sad", "surprise")
Write = Callable[..., Path]


def seen(faces: Faces) -> dict[str, tuple[str, int]]:
    """Each row's emotion and split."""
    labels = [ALL_EMOTIONS[label] for label in faces.labels]
    return dict(zip(faces.ids.tolist(), zip(labels, faces.splits.tolist(), strict=True), strict=True))


def message(path: Path, **how: object) -> str:
    with pytest.raises(UserError) as error:
        read(path, **how)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


# FER2013
# Kaggle, msambare/fer2013 (train, test) and jonathanoheix/face-expression-recognition-dataset (images/train,
# images/validation), as README.md of Nadi-989/fer-enhanced-gradcam uses the first.


@pytest.mark.parametrize("top", ["", "data/", "archive (3)/"])
def test_fer2013_in_folders(tmp_path: Path, write_tree: Write, top: str, caplog: pytest.LogCaptureFixture) -> None:
    path = write_tree(
        tmp_path / "x", [f"{top}{part}/happy/im{i}.png" for part in ("train", "val", "test") for i in "12"]
    )
    with caplog.at_level(logging.INFO):
        faces = read(path)
    assert set(seen(faces).values()) == {("happy", TRAIN), ("happy", VAL), ("happy", TEST)}
    assert f"{path}: class folders: train 2 (happy 2), val 2 (happy 2), test 2 (happy 2)" in caplog.text


@pytest.mark.parametrize("part", ["train", ""])
@pytest.mark.parametrize(
    ("layout", "first", "emotions"),
    [
        ("fer2013", 0, ["angry", "disgust", "fear"]),
        ("raf-db", 1, ["surprise", "fear", "disgust"]),
        ("affectnet", 0, ["neutral", "happy", "sad"]),
    ],
)
def test_number_folders_by_the_sizes_of_the_classes(
    tmp_path: Path,
    write_tree: Write,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    layout: str,
    first: int,
    emotions: list[str],
) -> None:
    monkeypatch.setattr(layouts, "FINGERPRINTS", {(2, 1, 3): layout})
    sizes = {str(first): 2, str(first + 1): 1, str(first + 2): 3}
    path = write_tree(tmp_path, [f"{part or '.'}/{code}/{i}.png" for code, size in sizes.items() for i in range(size)])
    if part:  # the test rows have sizes of their own
        write_tree(path, [f"test/{code}/{i}.png" for code in sizes for i in range(2)])
    assert {emotion for emotion, _ in seen(read(path)).values()} == set(emotions)
    write_tree(path, [f"{part or '.'}/{first + 1}/a.png"])
    assert "nothing says which emotion is which" in message(path)


def test_fer2013_divided_anew(tmp_path: Path, write_tree: Write) -> None:
    """`images/train` and `images/validation`: the official test faces are in both, as nobody knows but the pictures."""
    names = ["images/train/angry/1.jpg", "images/train/sad/2.jpg", "images/validation/angry/3.jpg"]
    assert seen(read(write_tree(tmp_path, names))) == {
        "train/angry/1.jpg": ("angry", TRAIN),
        "train/sad/2.jpg": ("sad", TRAIN),
        "validation/angry/3.jpg": ("angry", VAL),
    }


def test_the_sizes_are_those_that_are_published() -> None:
    assert {sum(sizes): name for sizes, name in layouts.FINGERPRINTS.items()} == {
        28709: "fer2013",
        35887: "fer2013",
        12271: "raf-db",
        287651: "affectnet",
    }
    assert all(len(sizes) <= len(CODES[name]) for sizes, name in layouts.FINGERPRINTS.items())


# FER+
# microsoft/FERPlus, src/ferplus.py: FER2013Train/label.csv with a picture and its votes in each row (later versions put
# the face's box between them). joh-fischer/emotion-recognition-CNN, data/ferplus2013/README.md: the folders below
# images/, beside fer2013new.csv.


def votes(emotion: str) -> list[str]:
    order = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt", "unknown", "NF")
    return ["7" if name == emotion else "1" if name == "neutral" else "0" for name in order]


@pytest.mark.parametrize("box", [[], ["(0, 0, 48, 48)"]])
def test_ferplus_with_label_csv(tmp_path: Path, write_tree: Write, box: list[str]) -> None:
    pictures = {"FER2013Train": "fer0000000", "FER2013Valid": "fer0028638", "FER2013Test": "fer0032220"}
    path = write_tree(tmp_path / "data", [f"{folder}/{name}.png" for folder, name in pictures.items()])
    write_tree(path, ["FER2013Train/fer0000001.png"])
    for folder, name in pictures.items():
        with (path / folder / "label.csv").open("w", newline="") as file:
            csv.writer(file).writerow([f"{name}.png", *box, *votes("contempt")])
            if folder == "FER2013Train":
                csv.writer(file).writerow(["fer0000001.png", *box, *votes("NF")])
    faces = read(path)
    assert set(seen(faces).values()) == {("contempt", TRAIN), ("contempt", VAL), ("contempt", TEST)}
    assert len(faces) == 3
    assert faces.form == "FER+ (label with most votes)"


def test_ferplus_beside_its_votes(tmp_path: Path, write_tree: Write) -> None:
    path = write_tree(tmp_path / "data", ["images/FER2013Train/fer0000000.png", "images/FER2013Test/fer0032220.png"])
    assert "without their labels; put fer2013new.csv beside them" in message(path)
    header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    rows = [["Training", "fer0000000.png", *votes("angry")], ["Training", "", *votes("NF")]]
    rows.append(["PrivateTest", "fer0032220.png", *votes("fear")])
    (path / "fer2013new.csv").write_text("\n".join([header, *map(",".join, rows)]) + "\n")
    found = {name.rpartition("/")[2]: what for name, what in seen(read(path)).items()}
    assert found == {"fer0000000.png": ("angry", TRAIN), "fer0032220.png": ("fear", TEST)}


def test_ferplus_as_class_folders_with_contempt(tmp_path: Path, write_tree: Write) -> None:
    path = write_tree(tmp_path, [f"train/{name}/fer{i}.png" for name in AFFECTNET for i in range(9)])
    data = FER2013DataModule(DataSettings(path=str(path), classes=8, split="source"))
    data.setup()
    assert set(data.class_counts()["train"]) == set(ALL_EMOTIONS)
    seven = FER2013DataModule(DataSettings(path=str(path)))
    seven.setup()
    assert "contempt" not in seven.class_counts()["train"]


def test_a_folder_that_is_called_nearly_as_ferplus_calls_its_own(tmp_path: Path, write_tree: Write) -> None:
    path = write_tree(tmp_path, ["FER2013/train/happy/1.png", "FER2013/test/sad/2.png", "FER2013/overview.png"])
    assert seen(read(path)) == {"train/happy/1.png": ("happy", TRAIN), "test/sad/2.png": ("sad", TEST)}


# RAF-DB
# README.md of zczcwh/FER_POSTER: raf-basic/EmoLabel/list_patition_label.txt, Image/aligned/train_00001_aligned.jpg.
# Kaggle, shuvoalok/raf-db-dataset: DATASET/{train,test}/{1..7}/, train_labels.csv beside it.


def write_rafdb(top: Path, write_tree: Write, root: str) -> Path:
    names = [f"{part}_{i:05}" for part in ("train", "test") for i in range(1, 8)]
    write_tree(top, [f"{root}/Image/aligned/{name}_aligned.jpg" for name in names])
    labels = top / root / "EmoLabel" / "list_patition_label.txt"
    labels.parent.mkdir(parents=True)
    labels.write_text("".join(f"{name}.jpg {int(name[-1])}\n" for name in names))
    return labels


@pytest.mark.parametrize("root", ["basic", "raf-basic", "RAF-DB/basic"])
def test_rafdb_by_its_list(tmp_path: Path, write_tree: Write, root: str) -> None:
    write_rafdb(tmp_path, write_tree, root)
    faces = read(tmp_path)
    expected = {}
    for code, emotion in enumerate(RAFDB, start=1):
        expected[f"Image/aligned/train_{code:05}_aligned.jpg"] = (emotion, TRAIN)
        expected[f"Image/aligned/test_{code:05}_aligned.jpg"] = (emotion, TEST)
    assert seen(faces) == expected
    assert faces.form == "RAF-DB (its label list)"


def test_a_picture_that_is_not_in_the_list(tmp_path: Path, write_tree: Write, caplog: pytest.LogCaptureFixture) -> None:
    write_rafdb(tmp_path, write_tree, "basic")
    write_tree(tmp_path, ["basic/Image/aligned/train_00099_aligned.jpg"])
    for _ in ("parsed", "from the cache"):
        caplog.clear()
        assert len(read(tmp_path)) == 14
        assert "left out 1 pictures without a label in basic/EmoLabel/list_patition_label.txt" in caplog.text


@pytest.mark.parametrize("line", ["train_00001.jpg 8", "train_00001.jpg", "train_00001.jpg happy"])
def test_a_list_with_an_unknown_number(tmp_path: Path, write_tree: Write, line: str) -> None:
    labels = write_rafdb(tmp_path, write_tree, "basic")
    labels.write_text(labels.read_text() + line + "\n")
    assert f"list_patition_label.txt, line 15, {line!r} is no picture and number from 1 to 7" in message(tmp_path)


def test_a_list_that_excel_has_saved(tmp_path: Path, write_tree: Write) -> None:
    labels = write_rafdb(tmp_path, write_tree, "basic")
    labels.write_bytes(b"\xef\xbb\xbf" + labels.read_bytes())
    assert len(read(tmp_path)) == 14


def test_two_sources_of_one_name(tmp_path: Path, write_tree: Write) -> None:
    for root in ("one/basic", "two/basic"):
        write_rafdb(tmp_path, write_tree, root)
    assert "list_patition_label.txt more than once (one/basic/EmoLabel/" in message(tmp_path)


def kaggle_rafdb(top: Path, write_tree: Write, tables: bool) -> Path:
    write_tree(top, [f"DATASET/train/{i}/train_0000{i}_aligned.jpg" for i in range(1, 8)])
    write_tree(top, [f"DATASET/test/{i}/test_000{i}_aligned.jpg" for i in range(1, 8)])
    for part, name in (("train", "train_0000{}"), ("test", "test_000{}")) if tables else ():
        rows = [f"{name.format(i)}_aligned.jpg,{i}" for i in range(1, 8)]
        (top / f"{part}_labels.csv").write_text("\n".join(["image,label", *rows]) + "\n")
    return top


@pytest.mark.parametrize("tables", [True, False])
def test_rafdb_as_kaggle_has_it(tmp_path: Path, write_tree: Write, tables: bool) -> None:
    found = seen(read(kaggle_rafdb(tmp_path, write_tree, tables)))
    assert len(found) == 14
    for code, emotion in enumerate(RAFDB, start=1):
        assert {what for name, what in found.items() if f"/{code}/" in name} == {(emotion, TRAIN), (emotion, TEST)}


def test_a_label_file_beats_folder_names(tmp_path: Path, write_tree: Write) -> None:
    kaggle_rafdb(tmp_path, write_tree, tables=True)
    table = tmp_path / "train_labels.csv"
    table.write_text(table.read_text().replace("train_00001_aligned.jpg,1", "train_00001_aligned.jpg,7"))
    assert seen(read(tmp_path))["DATASET/train/1/train_00001_aligned.jpg"] == ("neutral", TRAIN)


def test_number_folders_without_a_sign_of_what_they_are(tmp_path: Path, write_tree: Write) -> None:
    path = write_tree(tmp_path, [f"{part}/{i}/{part}{i}.png" for part in ("train", "test") for i in range(1, 8)])
    found = message(path)
    assert "the class folders are called 1, 2, 3, 4, 5, 6, 7, and nothing says which emotion is which" in found
    assert "data.layout=raf-db (1 surprise, 2 fear, 3 disgust, 4 happy, 5 sad, 6 angry, 7 neutral)" in found
    assert "data.layout=affectnet" in found
    assert "data.layout=fer2013" not in found  # it has no 7
    assert {emotion for emotion, _ in seen(read(path, layout="raf-db")).values()} == set(RAFDB)
    own = read(path, names=["neutral", "Joy", "afraid", "sad", "anger", "disgusted", "surprised"])
    assert seen(own)["train/1/train1.png"] == ("neutral", TRAIN)
    assert seen(own)["test/2/test2.png"] == ("happy", TEST)
    assert "data.names: 'happpy' is no emotion" in message(path, names=["happpy"] * 7)
    assert "data.names has 2 names; give one for each number from 1 to 7" in message(path, names=["sad", "happy"])
    assert "hold the number 7, which is none of FER2013's" in message(path, layout="fer2013")
    assert "no pictures as KDEF has them" in message(path, layout="kdef")


@pytest.mark.parametrize(
    ("numbers", "names", "found"),
    [
        ("23", ["happy", "sad"], {"2": "happy", "3": "sad"}),
        ("02", ["happy", "sad", "fear"], {"0": "happy", "2": "fear"}),
        ("01", ["happy", "sad", "fear"], {"0": "happy", "1": "sad"}),
        ("12", ["happy", "sad", "fear"], "data.names has 3 names; give one for each number from 1 to 2"),  # 0 or 3?
        ("24", ["happy", "sad"], "data.names has 2 names; give one for each number from 2 to 4"),
    ],
)
def test_there_is_a_name_for_each_number(
    tmp_path: Path, write_tree: Write, numbers: str, names: list[str], found: dict[str, str] | str
) -> None:
    path = write_tree(tmp_path, [f"{number}/a.png" for number in numbers])
    if isinstance(found, str):
        assert found in message(path, names=names)
    else:
        assert {row[0]: emotion for row, (emotion, _) in seen(read(path, names=names)).items()} == found


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("file", ["train_{:05}_aligned.jpg", "{}.png"])
@pytest.mark.parametrize("table", [True, False])
def test_rafdbs_sizes_count_from_0_or_1(
    tmp_path: Path, write_tree: Write, monkeypatch: pytest.MonkeyPatch, first: int, file: str, table: bool
) -> None:
    numbers = [first, first, first + 1, *[first + 2] * 3, *range(first + 3, first + 7)]
    folders = ["images" if table else str(number) for number in numbers]
    path = write_tree(tmp_path, [f"train/{folder}/{file.format(i)}" for i, folder in enumerate(folders)])
    if table:
        rows = [f"{file.format(i)},{number}" for i, number in enumerate(numbers)]
        (path / "train_labels.csv").write_text("\n".join(["image,label", *rows]) + "\n")
    if first == 0:
        assert "hold the number 0" in (found := message(path, layout="raf-db"))
        assert "say with data.names=[" in found
    monkeypatch.setattr(layouts, "FINGERPRINTS", {(2, 1, 3, 1, 1, 1, 1): "raf-db"})
    labels = {row.rpartition("/")[2]: emotion for row, (emotion, _) in seen(read(path)).items()}
    assert labels == {file.format(i): RAFDB[number - first] for i, number in enumerate(numbers)}


@pytest.mark.parametrize("none", ["", "nan", "NULL", " ", "-1", "-1.0"])
@pytest.mark.parametrize("how", [{"layout": "fer2013"}, {"names": EMOTIONS}, {}])
def test_a_missing_label_is_none(
    tmp_path: Path, write_tree: Write, caplog: pytest.LogCaptureFixture, none: str, how: dict[str, object]
) -> None:
    path = write_tree(tmp_path, [f"train/{i}.png" for i in range(8)])
    labels = [none, *(map(str, range(7)) if how else EMOTIONS)]
    rows = [f"train/{i}.png,{label}" for i, label in enumerate(labels)]
    (path / "labels.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    faces = read(path, **how)  # type: ignore[arg-type]
    assert seen(faces) == {f"train/{i}.png": (emotion, TRAIN) for i, emotion in enumerate(EMOTIONS, start=1)}
    assert "left out 1 pictures that labels.csv gives no emotion" in caplog.text


def test_no_label_at_all(tmp_path: Path, write_tree: Write) -> None:
    path = write_tree(tmp_path, ["0.png", "1.png"])
    (path / "labels.csv").write_text("path,label\n0.png,-1\n1.png,\n")
    assert "labels.csv gives no picture an emotion" in message(path, layout="fer2013")


def test_rafdb_in_named_folders_divided_anew(tmp_path: Path, write_tree: Write) -> None:
    names = [
        f"RAF-DB/{part}/{emotion}/{part}_{i:05}_aligned.jpg"
        for part in ("train", "val")
        for i, emotion in enumerate(("anger", "Happiness"))
    ]
    assert sorted(seen(read(write_tree(tmp_path, names))).values()) == [
        ("angry", TRAIN),
        ("angry", VAL),
        ("happy", TRAIN),
        ("happy", VAL),
    ]


@pytest.mark.parametrize("path", ["{}/{}/a.png", "{}/images/{}/a.png", "top/{}/x/y/{}/a.png", "{1}/{0}/a.png"])
def test_the_split_is_the_innermost_folder_that_is_called_so(tmp_path: Path, write_tree: Write, path: str) -> None:
    write_tree(tmp_path, [path.format(part, code) for part in ("train", "test") for code in range(1, 8)])
    expected = {(emotion, split) for emotion in RAFDB for split in (TRAIN, TEST)}
    assert set(seen(read(tmp_path, layout="raf-db")).values()) == expected


def test_class_folders_inside_and_outside_the_splits(tmp_path: Path, write_tree: Write) -> None:
    write_tree(tmp_path, [f"{part}{code}/a.png" for part in ("train/", "") for code in range(1, 8)])
    assert "class folders inside its train folder and others outside, such as " in message(tmp_path, layout="raf-db")


# Tables


@pytest.fixture
def two_tables(tmp_path: Path, write_tree: Write) -> Path:
    write_tree(tmp_path, [f"images/{i}.png" for i in range(4)])
    (tmp_path / "labels.csv").write_text("path,label\n" + "".join(f"images/{i}.png,happy\n" for i in range(4)))
    (tmp_path / "train_labels.csv").write_text("path,label\nimages/0.png,happy\nimages/1.png,joy\n")
    (tmp_path / "test_labels.csv").write_text("path,label\nimages/2.png,happy\n")
    return tmp_path


def test_the_table_of_a_split_beats_the_table_of_all(two_tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = sorted(path.relative_to(two_tables).as_posix() for path in two_tables.rglob("*.*"))
    for listing in (names, names[::-1]):
        monkeypatch.setattr("fer.data.container._names_below", lambda _, listing=listing: listing)
        splits = [split for _, split in seen(read(two_tables, use_cache=False)).values()]
        assert splits == [TRAIN, TRAIN, TEST, UNSPLIT]


@pytest.mark.parametrize(("label", "what"), [("happy", "splits"), ("sad", "labels")])
def test_two_tables_that_differ(two_tables: Path, label: str, what: str) -> None:
    (two_tables / "test_labels.csv").write_text(f"path,label\nimages/1.png,{label}\n")
    assert f"names images/1.png twice, with different {what}; delete one" in message(two_tables)


def test_the_sizes_count_a_picture_once(two_tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "FINGERPRINTS", {(1, 1): "affectnet"})
    (two_tables / "labels.csv").write_text("path,label\n" + "".join(f"images/{i}.png,{i % 2}\n" for i in range(3)))
    (two_tables / "train_labels.csv").write_text("path,label\nimages/0.png,0\nimages/1.png,1\n")
    (two_tables / "test_labels.csv").write_text("path,label\nimages/2.png,0\n")
    assert [emotion for emotion, _ in seen(read(two_tables)).values()] == ["neutral", "happy", "neutral"]


def test_a_table_means_the_pictures_below_its_own_folder(tmp_path: Path, write_tree: Write) -> None:
    for part, label in (("train", "happy"), ("test", "sad")):
        write_tree(tmp_path, [f"{part}/images/0.png"])
        (tmp_path / part / "labels.csv").write_text(f"path,label\nimages/0.png,{label}\n")
    assert seen(read(tmp_path)) == {"train/images/0.png": ("happy", TRAIN), "test/images/0.png": ("sad", TEST)}


@pytest.mark.parametrize("blank", ["\n", " \n", ",\n"])
def test_blank_lines(tmp_path: Path, write_tree: Write, blank: str) -> None:
    path = with_table(tmp_path / "a", write_tree)
    table = path / "labels.csv"
    table.write_text(table.read_text().replace("train/2", f"{blank}train/2") + blank)
    assert len(read(path, layout="fer2013")) == 4
    table.write_text(table.read_text() + "train/3.png\n")
    assert "labels.csv, line 8, has too few columns" in message(path, layout="fer2013")
    path = with_votes(tmp_path / "b", write_tree)
    table = path / "FER2013Train" / "label.csv"
    table.write_text(table.read_text() + blank)
    assert len(read(path)) == 4


@pytest.mark.parametrize("make", ["table", "votes"])
def test_a_quote_that_is_never_closed(tmp_path: Path, write_tree: Write, make: str) -> None:
    path = {"table": with_table, "votes": with_votes}[make](tmp_path, write_tree)
    table = next(path.rglob("label*.csv"))
    table.write_text(table.read_text() + '"' + "train/3.png,3\n" * 10_000)
    assert re.search(r"labels?\.csv, line [\d,]+, cannot be read \(field larger than", message(path))


@pytest.mark.parametrize("digits", [23, 5000])
def test_a_vote_of_many_digits(tmp_path: Path, write_tree: Write, digits: int) -> None:
    path = with_votes(tmp_path, write_tree)
    table = path / "FER2013Train" / "label.csv"
    table.write_text(table.read_text().replace(",7,", f",{'7' * digits},", 1))
    assert "line 1, has no ten vote counts" in message(path)


def test_names_as_macos_writes_them(tmp_path: Path, write_tree: Write) -> None:
    path = write_tree(tmp_path, ["bjo\u0308rn.png"])
    (path / "labels.csv").write_text("path,label\nbj\u00f6rn.png,happy\n", encoding="utf-8")
    assert list(seen(read(path)).values()) == [("happy", UNSPLIT)]


# AffectNet
# Mollahosseini et al., arXiv 1708.03985: the authors' archive, train_set/images/0.jpg, train_set/annotations/0_exp.npy.
# data/affectNet/README.md of UTS-SSTC/Facial-Emotion-Recognition-HCI: train, val, test with 0..7. Kaggle,
# noamsegal/affectnet-training-data: labels.csv (pth, label, relFCs) beside folders with names that it corrects.


def write_affectnet(top: Path, write_tree: Write) -> Path:
    write_tree(top, [f"{part}/images/{i}.jpg" for part in ("train_set", "val_set") for i in range(9)])
    for part in ("train_set", "val_set"):
        (top / part / "annotations").mkdir()
        for i in range(9):
            np.save(top / part / "annotations" / f"{i}_exp.npy", np.array(str(i)) if i % 2 else np.array(i))
            np.save(top / part / "annotations" / f"{i}_aro.npy", np.array("0.1"))
    return top


def test_affectnet_with_npy_labels(tmp_path: Path, write_tree: Write, caplog: pytest.LogCaptureFixture) -> None:
    faces = read(write_affectnet(tmp_path, write_tree))
    expected = {f"train_set/images/{i}.jpg": (emotion, TRAIN) for i, emotion in enumerate(AFFECTNET)}
    expected |= {f"val_set/images/{i}.jpg": (emotion, VAL) for i, emotion in enumerate(AFFECTNET)}
    assert seen(faces) == expected
    assert "left out 2 pictures that annotations gives no emotion" in caplog.text  # 8 is "none"


def test_an_npy_that_holds_objects_is_not_opened(tmp_path: Path, write_tree: Write) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "sprung",)

    write_affectnet(tmp_path / "x", write_tree)
    np.save(tmp_path / "x/train_set/annotations/3_exp.npy", np.array([Trap()], object), allow_pickle=True)
    assert "train_set/annotations/3_exp.npy is no .npy of one number" in message(tmp_path / "x")
    assert not (tmp_path / "sprung").exists()
    np.save(tmp_path / "x/train_set/annotations/3_exp.npy", np.array(11))
    assert "holds the number 11, which is none of AffectNet's 0 to 10" in message(tmp_path / "x")


@pytest.mark.parametrize("value", [np.inf, np.nan, 2.5, [1, 2]])
def test_an_npy_that_is_no_number(tmp_path: Path, write_tree: Write, value: object) -> None:
    write_affectnet(tmp_path, write_tree)
    np.save(tmp_path / "train_set/annotations/3_exp.npy", np.array(value))
    assert "train_set/annotations/3_exp.npy is no .npy of one number" in message(tmp_path)


def test_affectnet_in_named_folders(tmp_path: Path, write_tree: Write) -> None:
    path = write_tree(
        tmp_path, [f"{part}/{name}/1.png" for part in ("Train", "Test") for name in ("Contempt", "Anger")]
    )
    assert sorted(seen(read(path)).values()) == [
        ("angry", TRAIN),
        ("angry", TEST),
        ("contempt", TRAIN),
        ("contempt", TEST),
    ]


def test_affectnet_in_number_folders(tmp_path: Path, write_tree: Write) -> None:
    path = write_tree(tmp_path, [f"{part}/{i}/a{i}.jpg" for part in ("train", "val", "test") for i in range(8)])
    assert "data.layout=affectnet (0 neutral, 1 happy" in message(path)
    faces = read(path, layout="affectnet")
    for i, emotion in enumerate(AFFECTNET):
        assert {what for row, what in seen(faces).items() if f"/{i}/" in row} == {
            (emotion, TRAIN),
            (emotion, VAL),
            (emotion, TEST),
        }


def test_affectnet_with_a_table(tmp_path: Path, write_tree: Write) -> None:
    path = write_tree(tmp_path, ["Train/anger/image1.png", "Train/surprise/image1.png", "Test/anger/image2.png"])
    rows = ["0,anger/image1.png,surprise,0.9", "1,surprise/image1.png,surprise,0.8", "2,anger/image2.png,contempt,0.9"]
    (path / "labels.csv").write_text("\n".join([",pth,label,relFCs", *rows]) + "\n")
    assert seen(read(path)) == {
        "Train/anger/image1.png": ("surprise", TRAIN),
        "Train/surprise/image1.png": ("surprise", TRAIN),
        "Test/anger/image2.png": ("contempt", TEST),
    }
    write_tree(path, ["Test/anger/image1.png"])
    assert "several pictures called anger/image1.png (" in message(path)


# CK+
# Kaggle, shawon10/ckplus: CK+48/<class>/S010_004_00000017.png; ckextended.csv as README.md of Nadi-989/
# fer-enhanced-gradcam uses it, with FER2013's codes and 7 for contempt.


def test_ckplus_names_its_persons(tmp_path: Path, write_tree: Write) -> None:
    emotions, persons = ("anger", "contempt"), ("S010", "S011")
    names = [f"CK+48/{name}/{one}_004_000000{i}.png" for name in emotions for one in persons for i in ("01", "17")]
    faces = read(write_tree(tmp_path, names))
    assert faces.form == "CK+ (class folders)"
    assert faces.persons is not None
    assert set(faces.persons) == {"S010", "S011"}
    assert all(person in row for person, row in zip(faces.persons, faces.ids, strict=True))
    again = read(tmp_path)
    assert again.persons is not None
    assert (again.persons == faces.persons).all()


def test_persons_where_most_pictures_name_them(
    tmp_path: Path, write_tree: Write, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"happy/S01{i}_001_00000017.png" for i in range(3)]
    faces = read(write_tree(tmp_path, [*names, "happy/S010_001_00000017 (2).png"]))
    assert faces.persons is not None
    assert faces.persons.tolist() == ["S010", "S011", "S012"]
    assert "left out 1 pictures that are not called as CK+'s: happy/S010_001_00000017 (2).png" in caplog.text
    write_tree(tmp_path, [f"happy/{i}.png" for i in range(2)])  # half of them
    assert read(tmp_path).persons is None


@pytest.mark.parametrize("how", [{}, {"split": "random"}, {"folds": 3}])
@pytest.mark.parametrize(
    "pattern", ["CK+48/{emotion}/S{person:03}_004_0000001{i}.png", "KDEF/A{sex}{number:02}{code}{angle}.JPG"]
)
def test_persons_stay_on_one_side(tmp_path: Path, write_tree: Write, how: dict[str, object], pattern: str) -> None:
    names = []
    for person in range(12):
        for emotion, code in (("happy", "HA"), ("sadness", "SA")):
            for i, angle in enumerate(("S", "HL", "FR")):
                of_kdef = {"sex": "FM"[person % 2], "number": person // 2 + 1, "code": code, "angle": angle}
                names.append(pattern.format(emotion=emotion, person=person, i=i, **of_kdef))
    path = write_tree(tmp_path, names)
    data = FER2013DataModule(DataSettings(path=str(path), classes=["happy", "sad"], **how))  # type: ignore[arg-type]
    data.setup()
    faces = data.faces
    assert faces.persons is not None
    assert len(set(faces.persons)) == 12
    sides = [set(faces.persons[faces.splits == split]) for split in (TRAIN, VAL, TEST)]
    assert sum(map(len, sides)) == 12
    assert len(sides[1]) > 0


def test_ckextended(tmp_path: Path, csv_text: Callable[..., str], some_faces: Callable[..., Faces]) -> None:
    faces = some_faces(9)
    faces.labels[:] = np.arange(9) % 8
    (tmp_path / "ckextended.csv").write_text(csv_text(faces))
    assert read(tmp_path).labels.tolist() == faces.labels.tolist()


# KDEF
# kdef.se, "About KDEF": letter 1 session, 2 sex, 3 and 4 number, 5 and 6 expression, the rest angle.


@pytest.mark.parametrize("folder", ["KDEF/{}/", "", "train/"])
def test_kdef(tmp_path: Path, write_tree: Write, folder: str) -> None:
    codes = {
        "AF": "fear",
        "AN": "angry",
        "DI": "disgust",
        "HA": "happy",
        "NE": "neutral",
        "SA": "sad",
        "SU": "surprise",
    }
    people = ("AF01", "AM01", "BF01")
    names = [f"{folder.format(one)}{one}{code}{angle}.jpg" for one in people for code in codes for angle in ("S", "HL")]
    faces = read(write_tree(tmp_path, names))
    assert faces.persons is not None
    for row, label, person in zip(faces.ids, faces.labels, faces.persons, strict=True):
        file = row.rpartition("/")[2]
        assert ALL_EMOTIONS[label] == codes[file[4:6]]
        assert person == file[1:4]  # both sessions show one person
    assert set(faces.splits) == {TRAIN if folder == "train/" else UNSPLIT}
    given = read(tmp_path, layout="kdef", names=["a", "b"])  # which KDEF's own names go before
    assert np.array_equal(given.labels, faces.labels)


# Label files and pictures that do not belong together


def with_table(top: Path, write_tree: Write) -> Path:
    write_tree(top, [f"train/{i}.png" for i in range(4)])
    (top / "labels.csv").write_text("path,label\n" + "".join(f"train/{i}.png,{i % 2}\n" for i in range(4)))
    return top


def with_votes(top: Path, write_tree: Write) -> Path:
    write_tree(top, [f"FER2013Train/fer{i:07}.png" for i in range(4)])
    with (top / "FER2013Train" / "label.csv").open("w", newline="") as file:
        csv.writer(file).writerows([f"fer{i:07}.png", *votes("sad")] for i in range(4))
    return top


def with_list(top: Path, write_tree: Write) -> Path:
    write_rafdb(top, write_tree, "basic")
    return top


MAKERS = {
    "label table": (with_table, "train/{}.png", "labels.csv", "train/2.png,0", "train/2.png,9"),
    "FER+": (with_votes, "FER2013Train/fer000000{}.png", "FER2013Train/label.csv", ",7,", ",many,"),
    "RAF-DB": (
        with_list,
        "basic/Image/aligned/train_0000{}_aligned.jpg",
        "basic/EmoLabel/list_patition_label.txt",
        "train_00002.jpg 2",
        "train_00002.jpg 9",
    ),
    "AffectNet": (write_affectnet, "train_set/images/{}.jpg", "train_set/annotations/2_exp.npy", "", ""),
}


@pytest.mark.parametrize("form", MAKERS)
@pytest.mark.parametrize("fault", ["a missing picture", "a picture without a label", "an unknown number"])
def test_labels_and_pictures_that_do_not_belong_together(
    tmp_path: Path, write_tree: Write, caplog: pytest.LogCaptureFixture, form: str, fault: str
) -> None:
    make, picture, table, old, new = MAKERS[form]
    path = make(tmp_path / "x", write_tree)
    how = {"layout": "fer2013"} if form == "label table" else {}
    count = len(read(path, **how))  # type: ignore[arg-type]
    if fault == "a missing picture":
        (path / picture.format(2)).unlink()
        assert f"names 1 pictures that are not there ({picture.format(2)})" in message(path, **how)
    elif fault == "a picture without a label":
        write_tree(path, [picture.format(99)])
        caplog.clear()
        assert len(read(path, **how)) == count  # type: ignore[arg-type]
        assert "left out 1 pictures without a label in " in caplog.text
        assert picture.format(99) in caplog.text
    else:
        file = path / table
        if form == "AffectNet":
            np.save(file, np.array(99))
        else:
            text = file.read_text()
            assert old in text
            file.write_text(text.replace(old, new))
        assert re.search(r"the number 99?,? |no picture and number|no ten vote counts", message(path, **how))


# Other


@pytest.mark.parametrize("classes", ["\u00fcberrascht", "u\u0308berrascht"])
def test_other_emotions_as_macos_writes_them(tmp_path: Path, write_tree: Write, classes: str) -> None:
    path = write_tree(
        tmp_path,
        [
            f"{part}/{name}/{i}.png"
            for part in ("train", "val")
            for i in range(3)
            for name in ("u\u0308berrascht", "Gelangweilt")
        ],
    )
    settings = {"path": str(path), "classes": [classes, "gelangweilt"], "other_emotions": True, "split": "source"}
    data = FER2013DataModule(DataSettings.checked(settings))
    data.setup()
    assert data.class_counts()["train"] == {"\u00fcberrascht": 3, "gelangweilt": 3}


@pytest.mark.parametrize("name", ["faces.pt", "faces.pkl", "train.pth"])
def test_pickles_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    for path in (tmp_path / name, tmp_path):
        assert re.search(f"{name} is a pickle, which may run code .* give the CSV, pictures", message(path))


def test_the_layout_is_part_of_the_cache_key(tmp_path: Path, write_tree: Write) -> None:
    path = write_tree(tmp_path, [f"train/{i}/a{i}.jpg" for i in range(7)])
    assert seen(read(path, layout="fer2013"))["train/0/a0.jpg"] == ("angry", TRAIN)
    assert seen(read(path, layout="affectnet"))["train/0/a0.jpg"] == ("neutral", TRAIN)
    assert {label for label, _ in seen(read(path, layout="fer2013")).values()} == set(EMOTIONS)
