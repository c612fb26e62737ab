import gzip
import lzma
import os
import shutil
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from containers import opened

from fer.data.container import Directory, open_container
from fer.data.reader import read
from fer.errors import UserError

FILES = {"a/b/1.txt": b"one" * 1000, "a/2.txt": b"two", "3.txt": b""}


@pytest.fixture
def tree(tmp_path):
    top = tmp_path / "tree"
    for name, content in (FILES | {".hidden": b"x", ".git/config": b"x", "__MACOSX/a/2.txt": b"x"}).items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)
    (top / "empty").mkdir()
    return top


def pack(tree: Path, path: Path) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(tree.rglob("*")):
                archive.write(file, file.relative_to(tree))
    else:
        mode: Any = "w:" + {".tar": "", ".xz": "xz"}.get(path.suffix, "gz")
        with tarfile.open(path, mode) as archive:
            archive.add(tree, ".")
    return path


@pytest.fixture(params=["tree", "x.zip", "x.tar", "x.tar.gz", "x.tgz", "x.tar.xz", "misnamed"])
def container_path(request, tree, tmp_path):
    if request.param == "tree":
        return tree
    if request.param == "misnamed":
        return pack(tree, tmp_path / "x.zip").rename(tmp_path / "fer2013.csv")
    return pack(tree, tmp_path / request.param)


def test_names_and_contents(container_path):
    with opened(container_path) as container:
        assert sorted(container.names) == sorted(["a/", "a/b/", "empty/", *FILES])
        assert dict(container.read(list(FILES))) == FILES
        with container.open("a/b/1.txt") as file:
            assert file.read(6) == b"oneone"
            assert len(file.read()) == 2994


@pytest.mark.parametrize("content", [b"", b"emotion,pixels\n", gzip.compress(b"emotion,pixels\n" * 100, mtime=0)])
def test_other_files_are_no_containers(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    assert open_container(tmp_path / "file") is None


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    (tmp_path / "data/happy").mkdir(parents=True)
    (tmp_path / "data/happy/1.txt").write_bytes(b"1")
    (tmp_path / "data/happy/up").symlink_to(tmp_path / "data")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/2.txt").write_bytes(b"2")
    (tmp_path / "data/sad").symlink_to(tmp_path / "elsewhere")
    with opened(tmp_path / "data") as container:
        files = {name for name in container.names if not name.endswith("/")}
        assert files == {"happy/1.txt", "sad/2.txt"}


def link(tree: Path, links: dict[str, str], form: str) -> Path:
    """The tree, or a .tar of it, with more links in it."""
    for name, target in links.items():
        (tree / name).symlink_to(target)
    return tree if form == "tree" else pack(tree, tree.parent / form)


@pytest.mark.parametrize("form", ["tree", "x.tar", "x.tar.gz"])
def test_links_to_files_are_followed(tree, form):
    links = {"0.txt": "a/b/1.txt", "a/4.txt": "../0.txt", "seen": ".hidden"}
    with opened(link(tree, links, form)) as container:
        assert {*container.names} >= {*links}
        assert dict(container.read(list(links))) == {
            "0.txt": b"one" * 1000,
            "a/4.txt": b"one" * 1000,
            "seen": b"x",
        }


def test_a_folder_that_two_links_lead_to_is_read_twice(tree):
    with opened(link(tree, {"c": "a", "d": "./a/"}, "tree")) as container:
        assert {"a/2.txt", "c/2.txt", "d/2.txt", "c/b/1.txt"} <= {*container.names}


@pytest.mark.parametrize("target", ["a", "./a/", ".", "b/../a"])
def test_a_link_to_a_folder_in_an_archive_is_refused(tree, target):
    with pytest.raises(UserError, match=r"x\.tar: c is a link to a folder; pack what it stands for"):
        open_container(link(tree, {"c": target}, "x.tar"))


@pytest.mark.parametrize("target", ["/nowhere", "../outside", "a/b/9.txt", "c"])
def test_a_link_in_an_archive_that_leads_nowhere_is_named_when_it_is_read(tree, target):
    with (
        opened(link(tree, {"c": target}, "x.tar")) as container,
        pytest.raises(UserError, match=r"x\.tar: c is a link to a file that the archive does not hold"),
    ):
        container.open("c")


def test_a_zip_with_a_name_that_is_no_utf8(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("train/happy/bj\u00f6rn.png", b"1")
    (tmp_path / "x.zip").write_bytes((tmp_path / "x.zip").read_bytes().replace(b"\xc3\xb6", b"\xf6_"))
    with pytest.raises(UserError, match=r"x\.zip is truncated or damaged \(a file name that cannot be read"):
        read(tmp_path / "x.zip")


@pytest.mark.parametrize("form", ["tree", "x.tar"])
def test_names_that_are_no_utf8_are_written_out(tree, form):
    try:
        (tree / os.fsdecode(b"bj\xf6rn.txt")).write_bytes(b"b")
    except OSError:
        pytest.skip("this disk takes UTF-8 only")
    (tree / "bj\u00f6rn.txt").write_bytes(b"u")
    with opened(link(tree, {}, form)) as container:
        assert dict(container.read(["bj\\xf6rn.txt", "bj\u00f6rn.txt"])) == {
            "bj\\xf6rn.txt": b"b",
            "bj\u00f6rn.txt": b"u",
        }
        assert container.open("bj\\xf6rn.txt").read() == b"b"
        assert set("".join(container.names)).isdisjoint(map(chr, range(0xDC80, 0xDD00)))
    (tree / "bj\\xf6rn.txt").touch()
    with pytest.raises(UserError, match="look the same; rename them"):
        open_container(tree)


def test_backslashes_of_windows_programs(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("train\\happy\\1.txt", b"1")
    with opened(tmp_path / "x.zip") as container:
        assert dict(container.read(container.names)) == {"train/happy/1.txt": b"1"}


DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tar.xz"])
def test_a_cut_archive_never_loses_files_in_silence(tree, tmp_path, name):
    path = pack(tree, tmp_path / name)
    content = path.read_bytes()
    noticed = 0
    # A plain .tar consists of blocks of 512 bytes: the cuts between them are the hard ones.
    lengths = range(512, len(content), 512) if name == "x.tar" else range(6, len(content), len(content) // 60)
    for length in lengths:
        path.write_bytes(content[:length])
        try:
            with opened(path) as container:
                found = dict(container.read([name for name in container.names if not name.endswith("/")]))
        except DAMAGE:
            noticed += 1
        else:
            assert found == FILES, f"cut at {length} of {len(content)}"
    assert noticed > len(lengths) / 4


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz", "x.tar.xz"])
def test_a_damaged_byte_never_changes_a_file_in_silence(tree, tmp_path, name):
    path = pack(tree, tmp_path / name)
    content = path.read_bytes()
    noticed = 0
    positions = range(6, len(content), 7)
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        try:
            container = open_container(path)
            if container is None:  # no archive any more
                noticed += 1
                continue
            with container:
                found = dict(container.read([name for name in container.names if not name.endswith("/")]))
        except (*DAMAGE, OSError, NotImplementedError, UserError):
            noticed += 1
        else:  # the names of a .zip have no checksum
            assert set(found.values()) <= {*FILES.values(), b"x"} if name == "x.zip" else found == FILES
    assert noticed > len(positions) / 10


def test_a_zip_with_a_password(tree, tmp_path):
    path = pack(tree, tmp_path / "x.zip")
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.find(signature)
        while start >= 0:
            content[start + flags] |= 1
            start = content.find(signature, start + 1)
    path.write_bytes(content)
    with opened(path) as container, pytest.raises(UserError, match=r"password.*unpack it"):
        dict(container.read(FILES))


def test_links_to_nothing_pipes_and_devices_end_in_a_sentence(tmp_path: Path) -> None:
    link = tarfile.TarInfo("b.png")
    link.type, link.linkname = tarfile.LNKTYPE, "nowhere.png"
    pipe = tarfile.TarInfo("c.png")
    pipe.type = tarfile.FIFOTYPE
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(link)
        tar.addfile(pipe)
    with opened(tmp_path / "a.tar") as container:
        assert container.names == ["b.png"]
        with pytest.raises(UserError, match=r"a\.tar: b\.png is a link to a file that the archive does not hold"):
            list(container.read(["b.png"]))
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", Path("/dev/null"), Path("/dev/stdin")):
        with pytest.raises(UserError, match="a pipe or a device"):
            open_container(path)
        with pytest.raises(UserError, match="a pipe or a device"):
            read(path)
    (tmp_path / "faces").mkdir()
    os.mkfifo(tmp_path / "faces" / "1.png")
    with opened(tmp_path / "faces") as folder:
        assert isinstance(folder, Directory)
        for reading in (lambda name: list(folder.read([name])), folder.open, folder.digest):
            with pytest.raises(UserError, match=r"1\.png is no file but a pipe"):
                reading("1.png")


def test_a_file_that_unfolds_to_more_than_memory_holds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer.data.container._MOST_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/happy/1.png", bytes(8 << 20))
    with (
        opened(tmp_path / "a.zip") as container,
        pytest.raises(UserError, match=r"a\.zip: train/happy/1\.png unfolds to more than 1 MB"),
    ):
        list(container.read(["train/happy/1.png"]))
    with gzip.open(tmp_path / "a.csv.gz", "wb") as file:
        file.write(b"emotion,pixels\n3," + bytes(8 << 20))
    tracemalloc.start()
    with pytest.raises(UserError, match="a line of more than 1,000,000 bytes"):
        read(tmp_path / "a.csv.gz", use_cache=False)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("form", ["folder", "a.tar", "a.tar.gz", "a.zip"])
def test_batches_hold_all_files_whole_links_too(tmp_path: Path, form: str) -> None:
    """A link in a .tar has no size of its own, and its file is read all the same."""
    top = tmp_path / "folder"
    top.mkdir()
    (top / "a.png").write_bytes(bytes(5000))
    os.link(top / "a.png", top / "b.png")
    (top / "c.png").write_bytes(b"c")
    path = tmp_path / form
    if form.startswith("a.tar"):
        with tarfile.open(path, "w:gz" if form.endswith("gz") else "w") as tar:
            tar.add(top, ".")
    elif form == "a.zip":
        shutil.make_archive(str(tmp_path / "a"), "zip", top)
    with opened(path) as container:
        batches = [batch() for batch in container.batches(["c.png", "a.png", "b.png"], 2)]
    assert [len(batch) for batch in batches] == [2, 1]
    found = {name: len(content) for batch in batches for name, content in batch}
    assert found == {"a.png": 5000, "b.png": 5000, "c.png": 1}
