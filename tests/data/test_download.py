"""Against a server of the test's own that speaks as much of Kaggle's protocol as kagglehub needs."""

import http.server
import io
import json
import logging
import socket
import threading
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import kagglehub.clients
import numpy as np
import pytest
from kagglesdk import kaggle_env

from fer.data import download as module
from fer.data.datamodule import FER2013DataModule
from fer.data.download import download
from fer.data.faces import TEST, TRAIN, VAL
from fer.data.reader import read
from fer.errors import UserError
from fer.settings.train import DataSettings

WAYS_OUT = (
    "Three ways out: get fer2013.csv in a browser from https://www.kaggle.com/datasets/deadskull7/fer2013 and save it",
    "name a copy that you have in data.path",
    "data=synthetic",
)


@dataclass
class Kaggle:
    """What the server does and has seen."""

    content: bytes = b""
    status: int = 200
    zipped: bool = False  # Kaggle sends large files so
    cut: int | None = None  # bytes after which the connection ends
    silent: bool = False
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def kaggle(monkeypatch, tmp_path):
    state = Kaggle()
    release = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.requests.append(self.path)
            if state.silent:
                release.wait(20)
            elif state.status != 200:
                self.answer({"code": state.status, "message": "no"}, state.status)
            elif self.path == "/v1/datasets.DatasetApiService/GetDataset":
                assert (body["ownerSlug"], body["datasetSlug"]) == ("deadskull7", "fer2013")
                self.answer({"currentVersionNumber": 1})
            elif self.path == "/v1/datasets.DatasetApiService/DownloadDataset":
                assert body["fileName"] == "fer2013.csv"
                self.send_response(302)
                self.send_header("Location", "/storage/fer2013.csv" + ".zip" * state.zipped)
                self.send_header("Content-Length", "0")
                self.end_headers()

        def do_GET(self):
            state.requests.append(self.path)
            content = state.content
            if state.zipped:
                file = io.BytesIO()
                with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                    archive.writestr("fer2013.csv", content)
                content = file.getvalue()
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: state.cut])

        def answer(self, value, status=200):
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()
    only_here(monkeypatch, tmp_path, f"http://127.0.0.1:{server.server_port}")
    yield state
    release.set()
    server.shutdown()
    server.server_close()


def only_here(monkeypatch, tmp_path, endpoint):
    """Sends kagglehub to `endpoint`, without anybody's login, and lets nothing leave this machine."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "KAGGLE_KEY", "KAGGLE_USERNAME", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, endpoint)
    # kagglehub looks through all of the program for libraries that Kaggle counts: half a second for each request.
    monkeypatch.setattr(kagglehub.clients, "get_user_agent", lambda: "tests")
    connect = socket.socket.connect

    def guarded(self, address):
        assert address[0] in ("127.0.0.1", "::1"), f"the test tried to reach {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def small(monkeypatch, some_faces, csv_text):
    """A data set of nine rows that passes for the whole of FER2013."""
    monkeypatch.setattr(module, "OFFICIAL_ROWS", {TRAIN: 3, VAL: 3, TEST: 3})
    return csv_text(some_faces(9)).encode()


def failure(target) -> str:
    """The message of a download that fails, leaving nothing behind."""
    with pytest.raises(UserError) as error:
        download(target)
    assert not target.exists()
    assert list(target.parent.glob("*")) + list(target.parent.glob(".*")) == []
    message = str(error.value)
    assert all(way in message for way in WAYS_OUT)
    assert message.count(str(target)) == 2
    assert "\n" not in message
    return message


@pytest.mark.parametrize("zipped", [False, True])
def test_fetches_the_csv_to_where_it_is_wanted(kaggle, small, tmp_path, caplog, zipped):
    kaggle.content, kaggle.zipped = small, zipped
    target = tmp_path / "new" / "folders" / "faces.csv"
    with caplog.at_level(logging.INFO):
        assert download(target) == target
    assert target.read_bytes() == small
    assert [path.name for path in target.parent.iterdir()] == ["faces.csv"]
    assert np.bincount(read(target).splits).tolist() == [3, 3, 3]
    assert "downloading FER2013" in caplog.text
    assert "https://www.kaggle.com/datasets/deadskull7/fer2013" in caplog.text
    assert "is whole: 3 + 3 + 3 rows" in caplog.text
    assert not (tmp_path / "kagglehub").exists()  # no second copy


def test_what_exists_is_not_fetched(kaggle, small, tmp_path):
    target = tmp_path / "fer2013.csv"
    target.write_bytes(b"mine")
    assert download(target) == target
    assert target.read_bytes() == b"mine"
    assert kaggle.requests == []


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("path=fer2013.zip", r"data\.path=\S*fer2013\.zip does not exist; correct it \(only a missing fer2013\.csv is"),
        ("path=mine.csv", r"data\.path=\S*mine\.csv does not exist; correct it"),
        ("path=a.csv,b.csv", r"several sources are a list: 'data\.path=\[\S*a\.csv,b\.csv\]'"),
        ("ferplus_path=votes.csv", r"data\.ferplus_path=\S*votes\.csv does not exist and only a missing fer2013new"),
    ],
)
def test_only_a_file_of_the_right_name_is_downloaded(kaggle, tmp_path, wrong, told):
    key, _, name = wrong.partition("=")
    values = {"path": str(tmp_path / "fer2013.csv"), "labels": "ferplus", key: str(tmp_path / name)}
    settings = DataSettings.checked(values)
    with pytest.raises(UserError, match=told):
        FER2013DataModule(settings).prepare_data()
    assert kaggle.requests == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("status", "reason"), [(403, "Forbidden"), (404, "Not Found"), (429, "Too Many Requests")])
def test_a_refusal(kaggle, tmp_path, status, reason):
    kaggle.status = status
    message = failure(tmp_path / "data" / "fer2013.csv")
    assert f"could not be downloaded (Kaggle answers {status} {reason})" in message


def test_no_server(monkeypatch, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        only_here(monkeypatch, tmp_path, f"http://127.0.0.1:{free.getsockname()[1]}")
        assert "could not be downloaded ([Errno " in failure(tmp_path / "data" / "fer2013.csv")


def test_no_name_service(monkeypatch, tmp_path):
    only_here(monkeypatch, tmp_path, "http://kaggle.invalid")

    def unknown(*_args, **_kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "([Errno -2] Name or service not known)" in failure(tmp_path / "data" / "fer2013.csv")


def test_a_server_that_never_answers(kaggle, tmp_path, monkeypatch):
    kaggle.silent = True
    monkeypatch.setattr(module, "TIMEOUTS", (1.0, 0.5))
    start = time.monotonic()
    assert "timed out" in failure(tmp_path / "data" / "fer2013.csv")
    assert time.monotonic() - start < 10


def test_a_broken_connection(kaggle, small, tmp_path):
    kaggle.content, kaggle.cut = small, len(small) // 2
    assert f"({len(small) // 2} bytes read" in failure(tmp_path / "data" / "fer2013.csv").replace("IncompleteRead", "")


def test_a_truncated_file(kaggle, small, tmp_path):
    kaggle.content = small[: len(small) // 2]
    message = failure(tmp_path / "data" / "fer2013.csv")
    assert "was downloaded, but is damaged (fer2013.csv, line 6 (row 4), has 2 columns" in message


def test_a_file_of_something_else(kaggle, tmp_path):
    kaggle.content = b"<!DOCTYPE html><title>Log in</title>\n"
    assert "was downloaded, but is damaged (fer2013.csv has no column" in failure(tmp_path / "data" / "fer2013.csv")


def test_missing_rows(kaggle, some_faces, csv_text, tmp_path):
    kaggle.content = csv_text(some_faces(9)).encode()
    found = "3 of 28,709 train, 3 of 3,589 val, 3 of 3,589 test rows"
    assert f"is not the whole of FER2013 ({found})" in failure(tmp_path / "data" / "fer2013.csv")


def test_a_target_that_cannot_be_written(kaggle, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"fer2013.csv cannot be written \(.*\). Three ways out"):
        download(tmp_path / "file" / "fer2013.csv")
    assert kaggle.requests == []


def test_a_kaggle_notebooks_mounted_copy(monkeypatch, small, tmp_path):
    import kagglehub

    mounted = tmp_path / "input" / "fer2013.csv"
    mounted.parent.mkdir()
    mounted.write_bytes(small)
    monkeypatch.setattr(kagglehub, "dataset_download", lambda *_args, **_kwargs: str(mounted))
    target = Path(tmp_path / "data" / "fer2013.csv")
    download(target)
    assert target.read_bytes() == mounted.read_bytes() == small


def test_the_timeouts_are_taken_back(kaggle, small, tmp_path):
    import requests

    before = requests.Session.send
    kaggle.content = small
    download(tmp_path / "fer2013.csv")
    assert requests.Session.send is before
