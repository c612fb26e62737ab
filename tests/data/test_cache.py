import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fer.data import cache, csv_file
from fer.data.cache import load, save, source_key
from fer.data.faces import Faces


@pytest.fixture
def source(tmp_path, write_tree):
    """A file and a tree, by their names."""
    (tmp_path / "file").write_bytes(b"emotion,pixels\n")
    write_tree(tmp_path / "tree", ["happy/1.png", "happy/2.png"])
    return tmp_path


def entries(directory):
    return sorted(path.name for path in directory.iterdir())


def stored(source: Path, key: str) -> tuple[Faces, list[str]]:
    found = load(source, key)
    assert found is not None
    return found


def test_returns_what_was_stored(source, some_faces):
    faces = some_faces(5)
    save(source / "file", "key", faces, ["a note", "and another"])
    found, notes = stored(source / "file", "key")
    for field in ("images", "labels", "splits", "ids"):
        expected = getattr(faces, field)
        np.testing.assert_array_equal(getattr(found, field), expected)
        assert getattr(found, field).dtype == expected.dtype
    assert notes == ["a note", "and another"]
    save(source / "file", "key", faces, [])
    assert stored(source / "file", "key")[1] == []


def test_a_source_of_a_long_name_has_an_entry(tmp_path, some_faces, cache_directory):
    source = tmp_path / ("数" * 84)  # 252 of 255 bytes
    source.mkdir()
    assert not cache.has_entry(source)
    cache.save(source, "key", some_faces(3), [])
    assert cache.has_entry(source)
    assert len(list(cache_directory.iterdir())) == 1


def test_only_for_the_same_key_and_path(source, some_faces):
    save(source / "file", "key", some_faces(2), [])
    assert load(source / "file", "other key") is None
    assert load(source / "tree", "key") is None
    assert load(source / "elsewhere" / "file", "key") is None
    assert load(source / "tree" / ".." / "file", "key") is not None


def test_one_entry_per_source(source, some_faces, cache_directory):
    for count in (2, 3):
        save(source / "file", f"key {count}", some_faces(count), [])
    assert len(entries(cache_directory)) == 1
    assert load(source / "file", "key 2") is None
    assert len(stored(source / "file", "key 3")[0]) == 3


@pytest.mark.parametrize("name", ["file", "tree"])
def test_the_key_stays_while_the_content_stays(source, name):
    key = source_key(source / name)
    assert key == source_key(source / name)
    os.utime(source / name, (0, 0))
    assert source_key(source / name) == key
    copy = source / "copy"
    shutil.copytree(source / name, copy) if name == "tree" else shutil.copyfile(source / name, copy)
    assert source_key(copy) == key


def flip_a_byte(path):
    """An edit that changes neither size nor time."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)


def swap_content(top):
    (top / "tree/happy/1.png").rename(top / "x")
    (top / "tree/happy/2.png").rename(top / "tree/happy/1.png")
    (top / "x").rename(top / "tree/happy/2.png")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("file", lambda top: flip_a_byte(top / "file")),
        ("file", lambda top: (top / "file").write_bytes(b"")),
        ("tree", lambda top: flip_a_byte(top / "tree/happy/2.png")),
        ("tree", lambda top: (top / "tree/happy/1.png").unlink()),
        ("tree", lambda top: (top / "tree/happy/1.png").rename(top / "tree/happy/3.png")),
        ("tree", lambda top: (top / "tree/happy").rename(top / "tree/sad")),
        ("tree", lambda top: shutil.copy(top / "tree/happy/1.png", top / "tree/happy/3.png")),
        ("tree", lambda top: (top / "tree/fear").mkdir()),
        ("tree", swap_content),
    ],
)
def test_the_key_changes_with_the_content(source, name, change):
    before = source_key(source / name)
    change(source)
    assert source_key(source / name) != before


def test_files_that_are_no_images_leave_a_trees_key_alone(source):
    before = source_key(source / "tree")
    (source / "tree/happy/notes.txt").write_text("x")
    (source / "tree/.hidden.png").write_text("x")
    assert source_key(source / "tree") == before


def test_the_key_changes_with_the_code_that_reads(source, tmp_path, monkeypatch):
    before = source_key(source / "file")
    changed = tmp_path / "csv_file.py"
    changed.write_text(Path(csv_file.__file__).read_text() + "# better now\n")
    monkeypatch.setattr(csv_file, "__file__", str(changed))
    assert source_key(source / "file") != before


@pytest.mark.parametrize("where", [0.0, 0.2, 0.5, 0.8, 0.9, 0.999])
@pytest.mark.parametrize("how", ["flip", "cut", "zeros"])
def test_a_damaged_entry_is_ignored_and_replaced(source, some_faces, cache_directory, where, how):
    faces = some_faces(20)
    save(source / "file", "key", faces, ["note"])
    (path,) = cache_directory.iterdir()
    content = bytearray(path.read_bytes())
    at = int(where * len(content))
    if how == "cut":
        del content[at:]
    elif how == "zeros":
        content[at:] = bytes(len(content) - at)
    else:
        content[at] ^= 0x55
    path.write_bytes(content)
    found = load(source / "file", "key")
    if found is not None:  # only bytes that mean nothing were hit, such as a date in the archive's directory
        np.testing.assert_array_equal(found[0].images, faces.images)
        np.testing.assert_array_equal(found[0].labels, faces.labels)
        np.testing.assert_array_equal(found[0].ids, faces.ids)
    if where < 0.9:
        assert found is None
    save(source / "file", "key", faces, [])
    assert load(source / "file", "key") is not None


def test_a_pickle_is_not_run(source, some_faces, cache_directory, tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    faces = some_faces(1)
    save(source / "file", "key", faces, [])
    (path,) = cache_directory.iterdir()
    with path.open("wb") as file:
        np.savez(file, key=np.array("key"), images=np.array([Payload()], object), labels=faces.labels)
    assert load(source / "file", "key") is None
    assert not (tmp_path / "run").exists()


def test_a_full_disk_leaves_the_old_entry_and_no_debris(source, some_faces, cache_directory, monkeypatch, caplog):
    save(source / "file", "old", some_faces(2), [])

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    save(source / "file", "new", some_faces(3), [])
    assert "cannot be written (No space left on device)" in caplog.text
    assert len(entries(cache_directory)) == 1
    assert len(stored(source / "file", "old")[0]) == 2


def test_an_interrupt_leaves_no_debris(source, some_faces, cache_directory, monkeypatch):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save(source / "file", "key", some_faces(3), [])
    assert entries(cache_directory) == []


def test_an_unwritable_directory_is_a_warning(source, some_faces, monkeypatch, caplog):
    monkeypatch.setenv("FER_CACHE", str(source / "file" / "below"))  # a file is in the way, even for root
    with caplog.at_level(logging.WARNING):
        save(source / "file", "key", some_faces(1), [])
    assert "FER_CACHE names another directory" in caplog.text
    assert load(source / "file", "key") is None


def test_the_users_cache_directory_is_the_default(monkeypatch):
    monkeypatch.setenv("FER_CACHE", "")
    assert cache.cache_directory().name == "fer-lightning"


def test_images_beyond_the_memory_are_mapped_and_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    count = 10_000
    faces = Faces(
        rng.integers(0, 256, (count, 48, 48), np.uint8),
        rng.integers(0, 7, count),
        rng.integers(0, 3, count).astype(np.int8),
        np.arange(count).astype(str),
    )
    source = tmp_path / "faces.csv"
    source.touch()
    cache.save(source, "key", faces, ["a note"])
    found = cache.load(source, "key", memory=1e6)
    assert found is not None
    mapped, notes = found
    assert isinstance(mapped.images, np.memmap)
    assert notes == ["a note"]
    assert np.array_equal(mapped.images, faces.images)
    some = mapped.labels != 6
    before = {path.name for path in cache.cache_directory().iterdir()}
    picked = mapped.select(some)
    assert isinstance(picked.images, np.memmap)  # 8,571 faces: they would not fit either
    assert np.array_equal(picked.images, faces.images[some])
    assert not isinstance(mapped.select(np.arange(10)).images, np.memmap)
    assert {path.name for path in cache.cache_directory().iterdir()} == before
    in_memory = cache.load(source, "key")
    assert in_memory is not None
    assert not isinstance(in_memory[0].images, np.memmap)
