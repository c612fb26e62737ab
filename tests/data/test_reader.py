import gzip
import logging
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fer.data import reader
from fer.data.faces import TEST, TRAIN, UNSPLIT, VAL
from fer.data.reader import read
from fer.errors import UserError

TREE = ["train/happy/Training_1.png", "test/sad/PublicTest_2.png", "test/sad/PrivateTest_3.png"]


def assert_same(found, expected):
    for field in ("images", "labels", "splits", "ids"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
    if expected.official is not None:
        for field in ("rows", "splits", "sure"):
            np.testing.assert_array_equal(getattr(found.official, field), getattr(expected.official, field))


def pack(path: Path, *files: Path, inside: str = "") -> Path:
    """An archive of files and folders, below `inside`."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for top in files:
                for file in [top, *sorted(top.rglob("*"))]:
                    archive.write(file, inside + str(file.relative_to(top.parent)))
    else:
        with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as archive:
            for top in files:
                archive.add(top, inside + top.name)
    return path


@pytest.fixture
def faces(some_faces):
    return some_faces(30)


@pytest.fixture
def csv(tmp_path, faces, csv_text):
    path = tmp_path / "fer2013.csv"
    path.write_text(csv_text(faces))
    return path


@pytest.fixture
def tree(tmp_path, write_tree):
    return write_tree(tmp_path / "tree", TREE)


# Forms


def test_a_csv(csv, faces):
    assert_same(read(csv), faces)
    assert_same(read(str(csv)), faces)


@pytest.mark.parametrize("name", ["fer2013.csv.gz", "fer2013.csv.xz", "misnamed.csv"])
def test_a_compressed_csv(tmp_path, csv, faces, name):
    path = tmp_path / "packed" / name
    path.parent.mkdir()
    path.write_bytes((lzma if name.endswith("xz") else gzip).compress(csv.read_bytes()))
    assert_same(read(path), faces)
    assert_same(read(path.parent), faces) if name.startswith("fer2013") else None


@pytest.mark.parametrize("name", ["fer2013.csv.zip", "x.zip", "x.tar", "x.tar.gz", "x.tgz"])
@pytest.mark.parametrize("inside", ["", "fer2013/", "a/b/"])
def test_an_archive_of_a_csv(tmp_path, csv, faces, name, inside):
    (tmp_path / "README.md").write_text("about")
    assert_same(read(pack(tmp_path / name, tmp_path / "README.md", csv, inside=inside)), faces)


def test_a_compressed_csv_in_an_archive(tmp_path, csv, faces):
    packed = tmp_path / "fer2013.csv.gz"
    packed.write_bytes(gzip.compress(csv.read_bytes()))
    assert_same(read(pack(tmp_path / "x.zip", packed)), faces)


def test_a_directory_with_a_csv(csv, faces):
    assert_same(read(csv.parent), faces)
    (csv.parent / "fer2013").mkdir()
    csv.rename(csv.parent / "fer2013" / "fer2013.csv")
    assert_same(read(csv.parent), faces)


def test_the_challenges_download(tmp_path, faces, csv_text):
    top = tmp_path / "challenge"
    top.mkdir()
    (top / "icml_face_data.csv").write_text(csv_text(faces, ("emotion", " Usage", " pixels")))
    (top / "train.csv").write_text(csv_text(faces, ("emotion", "pixels")))
    (top / "test.csv").write_text(csv_text(faces, ("pixels",)))
    (top / "example_submission.csv").write_text("emotion\n")
    assert_same(read(top), faces)
    assert_same(read(pack(tmp_path / "x.zip", top)), faces)
    assert read(top / "train.csv").splits.tolist() == [UNSPLIT] * len(faces)
    (top / "icml_face_data.csv").unlink()
    with pytest.raises(UserError, match=r"several CSV files \(example_submission.csv, test.csv, train.csv\); name one"):
        read(top)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("pictures", "how"),
    [
        (["DATASET/train/1/a.png", "DATASET/test/2/a.png"], {"layout": "raf-db"}),
        (["train_set/images/1.png"], {}),
        (["AF01ANS.png", "AF02HAS.png"], {}),
        (["train/happy/1.png"], {}),
    ],
)
def test_a_csv_of_something_else_beside_pictures(tmp_path, write_tree, pictures, how, packed):
    top = write_tree(tmp_path / "top", pictures)
    if "train_set" in pictures[0]:
        (top / "train_set/annotations").mkdir()
        np.save(top / "train_set/annotations/1_exp.npy", np.array(1))
    (top / "notes.csv").write_text("id,emotion\n1,x\n")
    (top / "sample_submission.csv").write_text("")
    (top / "caf\u00e9.csv").write_bytes(b"caf\xe9\n")
    assert len(read(pack(tmp_path / "x.zip", top) if packed else top, **how)) == len(pictures)


def test_a_csv_of_pixels_beside_pictures(tmp_path, csv, faces, write_tree):
    top = write_tree(tmp_path / "top", ["overview.png"])
    csv.rename(top / "mine.csv")
    (top / "notes.csv").write_text("id,note\n1,x\n")
    assert_same(read(top), faces)


def test_a_folder_may_be_called_as_a_pickle_is(tmp_path, write_tree):
    assert len(read(write_tree(tmp_path / "faces.pth", TREE))) == len(TREE)


@pytest.mark.parametrize("name", ["", "x.zip", "x.tar", "x.tar.gz", "x.tgz"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_class_folders(tmp_path, tree, name, wrapped):
    top = tree
    if wrapped:
        (tmp_path / "outer/images").mkdir(parents=True)
        top = tree.rename(tmp_path / "outer/images/tree").parents[1]
    (top / "labels.csv").write_text("a table that is not the data\n")
    faces = read(pack(tmp_path / name, top) if name else top)
    assert faces.ids.tolist() == ["test/sad/PrivateTest_3.png", "test/sad/PublicTest_2.png", TREE[0]]
    assert faces.splits.tolist() == [TEST, VAL, TRAIN]
    for row, image in zip(faces.ids, faces.images, strict=True):
        noise = np.random.default_rng(TREE.index(row)).integers(0, 256, (48, 48), np.uint8)
        np.testing.assert_array_equal(image, noise)


def test_a_split_that_is_a_link_to_another(tree):
    (tree / "validation").symlink_to("test")
    faces = read(tree)
    assert [faces.splits.tolist().count(split) for split in (TRAIN, VAL, TEST)] == [1, 2, 2]


def test_a_csv_whose_name_is_no_utf8(csv, faces):
    try:
        csv.rename(csv.with_name(os.fsdecode(b"donn\xe9es.csv")))
    except OSError:
        pytest.skip("this disk takes UTF-8 only")
    assert_same(read(csv.parent), faces)


def test_a_file_name_that_is_no_utf8_can_be_written(tree):
    try:
        (tree / TREE[0]).rename(tree / "train/happy" / os.fsdecode(b"bj\xf6rn.png"))
    except OSError:
        pytest.skip("this disk takes UTF-8 only")
    for _ in ("parsed", "from the cache"):
        ids = read(tree).ids.tolist()
        assert ids[-1] == "train/happy/bj\\xf6rn.png"
        "".join(ids).encode()


def test_the_home_directory(csv, faces, monkeypatch):
    monkeypatch.setenv("HOME", str(csv.parent))
    monkeypatch.setenv("USERPROFILE", str(csv.parent))
    assert_same(read("~/fer2013.csv"), faces)


def test_nothing_is_written_beside_the_source(tmp_path, tree):
    path = pack(tmp_path / "x.zip", tree)
    before = sorted(tmp_path.iterdir())
    read(path)
    assert sorted(set(tmp_path.iterdir()) - {tmp_path / "cache"}) == before


# Cache


def parses(monkeypatch) -> list[Path]:
    """The sources that are parsed from here on."""
    seen: list[Path] = []
    original = reader._parse

    def parse(source, *how):
        seen.append(source)
        return original(source, *how)

    monkeypatch.setattr(reader, "_parse", parse)
    return seen


@pytest.mark.parametrize("form", ["csv", "zip", "tree", "directory of a csv"])
def test_the_second_read_does_not_parse(tmp_path, csv, tree, form, monkeypatch):
    path = {"csv": csv, "zip": pack(tmp_path / "x.zip", tree), "tree": tree, "directory of a csv": tmp_path}[form]
    seen = parses(monkeypatch)
    first = read(path)
    assert_same(read(path), first)
    assert len(seen) == 1
    assert_same(read(path, use_cache=False), first)
    assert len(seen) == 2


def test_a_changed_csv_is_read_anew(csv, faces, csv_text, some_faces):
    read(csv)
    other = some_faces(30, seed=1)
    csv.write_text(csv_text(other))
    assert_same(read(csv), other)
    csv.write_text(csv_text(faces))
    assert_same(read(csv), faces)


def test_a_source_that_changes_while_it_is_read_is_not_cached(csv, csv_text, some_faces, monkeypatch):
    original = reader._parse
    other = some_faces(30, seed=1)

    def parse(source, *how):
        found = original(source, *how)
        csv.write_text(csv_text(other))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(reader, "_parse", parse)
        read(csv)
    assert_same(read(csv), other)


def test_a_picture_that_comes_while_a_folder_is_read_is_there_the_next_time(tree, monkeypatch):
    original = reader._parse

    def parse(source, *how):
        found = original(source, *how)
        shutil.copy(tree / TREE[0], (tree / TREE[0]).with_name("late.png"))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(reader, "_parse", parse)
        assert len(read(tree)) == len(TREE)
    assert len(read(tree)) == len(TREE) + 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_a_pipe_in_a_folder_is_named(tmp_path, tree):
    """And not waited for: beside pictures that were read before, and in the place of the table."""
    read(tree)
    os.mkfifo(tree / "faces.parquet")
    with pytest.raises(UserError, match=r"faces\.parquet is no file but a pipe or a device"):
        read(tree)
    (tmp_path / "other").mkdir()
    os.mkfifo(tmp_path / "other" / "fer2013.csv")
    with pytest.raises(UserError, match=r"fer2013\.csv is no file and no folder but a pipe or a device"):
        read(tmp_path / "other")


def test_without_the_cache_nothing_is_kept(csv, cache_directory):
    read(csv, use_cache=False)
    assert not cache_directory.exists()


def test_a_mistake_is_not_cached(csv, faces, csv_text, cache_directory):
    csv.write_text(csv_text(faces)[:-3000])
    for _ in range(2):
        with pytest.raises(UserError, match="row 29"):
            read(csv)
    assert not cache_directory.exists()


def test_notes_are_repeated_at_each_start(tmp_path, write_tree, monkeypatch, caplog):
    top = write_tree(tmp_path / "tree", [*TREE, "train/bored/1.png"])
    seen = parses(monkeypatch)
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert len(read(top)) == 3
        assert "left out 1 images" in caplog.text
        assert "train/bored (1)" in caplog.text
    assert len(seen) == 1


# Mistakes


def message(path) -> str:
    with pytest.raises(UserError) as error:
        read(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_path_that_does_not_exist(tmp_path):
    assert "nowhere.csv does not exist; give a FER2013 CSV" in message(tmp_path / "nowhere.csv")


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
@pytest.mark.parametrize("content", ["csv", "tree"])
def test_a_truncated_archive(tmp_path, csv, tree, name, content):
    path = pack(tmp_path / name, csv if content == "csv" else tree)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert f"{name} is truncated or damaged (" in message(path)


@pytest.mark.parametrize("suffix", ["gz", "xz"])
def test_a_truncated_compressed_csv(tmp_path, csv, suffix):
    whole = (lzma if suffix == "xz" else gzip).compress(csv.read_bytes())
    path = tmp_path / f"cut.csv.{suffix}"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    assert f"cut.csv.{suffix} is truncated or damaged (" in message(path)


def test_a_damaged_checksum(tmp_path, csv):
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(csv.read_bytes())[:-8] + bytes(8))
    assert "x.csv.gz is truncated or damaged (CRC" in message(path)


@pytest.mark.parametrize("how", [{"layout": "raf-db"}, {"layout": "kdef"}, {"names": ["happy", "sad"]}])
@pytest.mark.parametrize("packed", [False, True])
def test_that_a_csv_of_pixels_explains_its_numbers_itself_is_said(tmp_path, csv, faces, how, packed, caplog):
    path = pack(tmp_path / "x.zip", csv) if packed else csv
    said = f"data.{next(iter(how))} is not used: a CSV of pixels has FER2013's numbers"
    assert_same(read(path, layout="fer2013"), faces)
    assert "is not used" not in caplog.text
    assert_same(read(path, **how), faces)
    assert said in caplog.text


def test_a_bad_row_inside_an_archive_is_named(tmp_path, csv):
    csv.write_text(csv.read_text().replace("Training", "Practice", 1))
    found = message(pack(tmp_path / "x.tar.gz", csv))
    assert "x.tar.gz: fer2013.csv, line 2 (row 0), has the Usage 'Practice'" in found


def test_an_archive_or_folder_of_something_else(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/letter.txt").write_text("Dear")
    assert "it holds docs: name the CSV" in message(pack(tmp_path / "x.zip", tmp_path / "docs"))
    assert "it holds letter.txt: name the CSV" in message(tmp_path / "docs")
    (tmp_path / "docs/letter.txt").unlink()
    assert "it holds nothing: name the CSV" in message(tmp_path / "docs")


def test_a_file_of_another_kind(tmp_path):
    path = tmp_path / "face.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert "face.png is no UTF-8 text (a spreadsheet may have to save it as such): data.path takes" in message(path)


def test_an_unreadable_disk(csv, monkeypatch):
    def fail(*_args):
        raise PermissionError(13, "Permission denied", str(csv))

    monkeypatch.setattr(reader, "_parse", fail)
    assert "fer2013.csv cannot be read ([Errno 13] Permission denied" in message(csv)


# The whole


def test_torch_is_not_imported(csv):
    code = f"import sys; from fer.data.reader import read; read({str(csv)!r}); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def test_the_real_rows(fer2013_zip, cache_directory, monkeypatch):
    monkeypatch.setenv("FER_CACHE", str(cache_directory))  # empty: parsed, and then found
    faces = read(fer2013_zip)
    assert np.bincount(faces.labels[faces.splits == TRAIN]).tolist() == [3995, 436, 4097, 7215, 4830, 3171, 4965]
    assert np.count_nonzero(faces.splits == VAL) == 3589
    assert len(faces) == 28709 + 3589
    found = faces.official
    assert found is not None
    assert found.sure.all()
    assert (found.splits == faces.splits).all()
    assert found.rows.tolist() == [int(Path(name).stem.rpartition("_")[2]) for name in faces.ids]
    again = read(fer2013_zip)
    assert_same(again, faces)
