"""Votes: reading, finding each face's, labels made of them, the download, and training targets in the data module."""

import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from fer.data import ferplus as module
from fer.data.datamodule import FER2013DataModule
from fer.data.download import download_votes
from fer.data.faces import TEST, TRAIN, VAL, Faces
from fer.data.ferplus import (
    NOT_A_FACE,
    UNKNOWN,
    Votes,
    distribution,
    read_votes,
    voted,
    votes_of,
    winner,
)
from fer.errors import UserError
from fer.labels import ALL_EMOTIONS, EMOTIONS
from fer.settings.train import DataSettings

USAGES = {TRAIN: "Training", VAL: "PublicTest", TEST: "PrivateTest"}
HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
IN_FILE = [6, 3, 5, 4, 0, 1, 2, 7, 8, 9]  # columns of the file as positions in Votes.counts


def counts(**votes: int) -> list[int]:
    """A row of counts: `counts(happy=8, unknown=2)`."""
    names = [*ALL_EMOTIONS, "unknown", "not_a_face"]
    return [votes.get(name, 0) for name in names]


def write(path: Path, rows: list[list[int]], splits: list[int]) -> Path:
    lines = [HEADER]
    for number, (row, split) in enumerate(zip(rows, splits, strict=True)):
        name = "" if row[NOT_A_FACE] > 5 else f"fer{number:07d}.png"
        lines.append(",".join([USAGES[split], name, *(str(row[position]) for position in IN_FILE)]))
    path.write_text("\n".join(lines) + "\n")
    return path


def agreeing(faces: Faces) -> list[list[int]]:
    """Nine votes for each face's own label and one for contempt."""
    return [counts(**{EMOTIONS[label]: 9, "contempt": 1}) for label in faces.labels.tolist()]


def test_reads_the_columns_in_our_order(tmp_path: Path) -> None:
    rows = [counts(angry=1, disgust=2, fear=3, happy=4), counts(contempt=1, unknown=2, not_a_face=7)]
    votes = read_votes(write(tmp_path / "votes.csv", rows, [TRAIN, TEST]))
    assert votes.counts.tolist() == rows
    assert votes.splits.tolist() == [TRAIN, TEST]


def test_columns_may_stand_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    columns = HEADER.split(",")
    line = dict(zip(columns, ["Training", "x", *"0900000001"], strict=True))
    path.write_text(",".join(reversed(columns)) + "\n" + ",".join(line[name] for name in reversed(columns)) + "\n")
    assert read_votes(path).counts.tolist() == [counts(happy=9, not_a_face=1)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "has no column Usage; get it from https"),
        (f"{HEADER}\n", "no rows"),
        (f"{HEADER}\nTraining,x,1,2\n", r"line 2 \(row 0\), has 4 columns where the header has 12"),
        (f"{HEADER}\nTraining,x,0,0,0,0,0,0,0,0,0,0\n", r"line 2 \(row 0\), has no vote at all"),
        (f"{HEADER}\nTraining,x,1,0,0,0,-1,0,0,0,0,0\n", "no whole number"),
        (f"{HEADER}\nTraining,x,1,0,0,0,x,0,0,0,0,0\n", "no whole number"),
        (f"{HEADER}\nTraining,x,1,0,0,0,{'7' * 23},0,0,0,0,0\n", "no whole number"),
        (f"{HEADER}\nTraining,x,1,0,0,0,{'7' * 5000},0,0,0,0,0\n", "no whole number"),
        (f'{HEADER}\n"Training,' + "x" * 140_000, r"cannot be read as a CSV \(field larger than"),
        ('"' + "x" * 140_000, r"cannot be read as a CSV \(field larger than"),
        (f"{HEADER}\nTrain,x,1,0,0,0,0,0,0,0,0,0\n", "the Usage 'Train'"),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "votes.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_votes(path)


def test_a_missing_or_binary_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist; get it from https://raw\S*/fer2013new\.csv"):
        read_votes(tmp_path / "none.csv")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(UserError, match="cannot be read as text"):
        read_votes(tmp_path / "picture.png")


def test_the_winner_has_most_votes_and_ties_go_by_the_files_order() -> None:
    rows = np.array(
        [
            counts(angry=3, sad=7),
            counts(angry=5, neutral=5),  # neutral is the file's first column
            counts(fear=5, unknown=5),
            counts(unknown=6, happy=4),
            counts(not_a_face=10),
            counts(contempt=10),
        ]
    )
    expected = [EMOTIONS.index("sad"), EMOTIONS.index("neutral"), EMOTIONS.index("fear"), UNKNOWN, NOT_A_FACE, 7]
    assert winner(rows).tolist() == expected


def test_distribution_and_voted_labels() -> None:
    row = np.array([counts(happy=5, sad=3, fear=1, unknown=1), counts(unknown=8, happy=1, sad=1), counts(unknown=10)])
    classes = ("happy", "sad", "fear")
    assert distribution(row, classes) == pytest.approx(np.array([[5, 3, 1], [4.5, 4.5, 0], [0, 0, 0]]) / 9, abs=1e-6)
    # 30 % of all ten votes, or the most: one of ten is enough where nothing has more.
    assert voted(row, classes) == pytest.approx(np.array([[5 / 8, 3 / 8, 0], [0.5, 0.5, 0], [0, 0, 0]]), abs=1e-6)


def by_name(faces: Faces, names: list[str]) -> Faces:
    return Faces(faces.images, faces.labels, faces.splits, np.array(names))


def test_faces_of_a_csv_go_by_number_and_files_by_the_number_in_their_name(some_faces: Callable[..., Faces]) -> None:
    faces = some_faces(6)
    votes = Votes(np.array(agreeing(faces)), faces.splits)
    assert np.array_equal(votes_of(faces, votes, "v"), votes.counts)
    prefix = {TRAIN: "Training", VAL: "PublicTest", TEST: "PrivateTest"}
    names = [f"x/happy/{prefix[int(split)]}_{row}.webp" for row, split in enumerate(faces.splits)]
    shuffled = by_name(faces, names).select(np.array([4, 0, 2]))
    assert np.array_equal(votes_of(shuffled, votes, "v"), votes.counts[[4, 0, 2]])
    with pytest.raises(UserError, match=r"happy/im5\.png does not say its row"):
        votes_of(by_name(faces, [*names[:5], "happy/im5.png"]), votes, "v")


def test_the_leading_splits_alone_will_do(some_faces: Callable[..., Faces]) -> None:
    faces = some_faces(30)
    ordered = Faces(faces.images, faces.labels, np.repeat([TRAIN, VAL, TEST], 10).astype(np.int8), faces.ids)
    votes = Votes(np.array(agreeing(ordered)), ordered.splits)
    assert len(votes_of(ordered.select(np.arange(20)), votes, "v")) == 20
    with pytest.raises(UserError, match=r"v has 30 rows, the data 19"):
        votes_of(ordered.select(np.arange(19)), votes, "v")
    with pytest.raises(UserError, match=r"v has 20 rows, but the data have a row 29"):
        votes_of(ordered, Votes(votes.counts[:20], votes.splits[:20]), "v")


def test_votes_in_another_order_are_refused(some_faces: Callable[..., Faces]) -> None:
    faces = some_faces(300)
    rows = np.array(agreeing(faces))
    with pytest.raises(UserError, match=r"v: row 0 is of the val split, in the data 0 is of train"):
        votes_of(faces, Votes(np.roll(rows, -1, axis=0), np.roll(faces.splits, -1)), "v")
    same_splits = np.roll(np.arange(300), 3)  # splits repeat every three rows, labels every seven
    with pytest.raises(UserError, match=r"v agrees with the data's labels on 0% of the rows"):
        votes_of(faces, Votes(rows[same_splits], faces.splits), "v")


@dataclass
class Server:
    """What the loopback server answers."""

    content: bytes = b""
    status: int = 200


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(state.status)
            self.send_header("Content-Length", str(len(state.content)))
            self.end_headers()
            self.wfile.write(state.content)

        def log_message(self, *_args: object) -> None:
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, args=(0.01,)).start()
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(module, "URL", f"http://127.0.0.1:{listening.server_port}/fer2013new.csv")
    monkeypatch.setattr(module, "ROWS", 4)
    yield state
    listening.shutdown()
    listening.server_close()


def test_missing_votes_are_fetched_whole(server: Server, tmp_path: Path) -> None:
    source = write(tmp_path / "source.csv", [counts(happy=10)] * 4, [TRAIN] * 4)
    server.content = source.read_bytes()
    target = tmp_path / "new" / "votes.csv"
    assert download_votes(target) == target
    assert target.read_bytes() == server.content
    assert [path.name for path in target.parent.iterdir()] == ["votes.csv"]
    server.content = b""
    download_votes(target)  # asks nobody
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 404, "the server answers 404"),
        (b"<html>", 200, "is damaged"),
        (f"{HEADER}\nTraining,x,9,1,0,0,0,0,0,0,0,0\n".encode(), 200, "has 1 of 4 rows"),
    ],
)
def test_a_failed_download_leaves_nothing(
    server: Server, tmp_path: Path, content: bytes, status: int, message: str
) -> None:
    server.content, server.status = content, status
    with pytest.raises(UserError, match=message) as error:
        download_votes(tmp_path / "votes.csv")
    assert "data.ferplus_path" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "URL", "http://127.0.0.1:9/fer2013new.csv")
    with pytest.raises(UserError, match="could not be downloaded"):
        download_votes(tmp_path / "votes.csv")


@pytest.fixture
def data(some_faces: Callable[..., Faces], csv_text: Callable[..., str], tmp_path: Path) -> Callable[..., Path]:
    """A CSV of 42 rows, 14 in each split, and its votes: `data({row: counts(...)})`; returns the votes' path."""

    def make(changes: dict[int, list[int]]) -> Path:
        faces = some_faces(42)
        (tmp_path / "faces.csv").write_text(csv_text(faces))
        rows = agreeing(faces)
        for row, new in changes.items():
            rows[row] = new
        return write(tmp_path / "votes.csv", rows, faces.splits.tolist())

    return make


def ready(votes: Path, **settings: object) -> FER2013DataModule:
    chosen = {
        "path": str(votes.parent / "faces.csv"),
        "batch_size": 14,
        "labels": "ferplus",
        "ferplus_path": str(votes),
    }
    datamodule = FER2013DataModule(DataSettings.checked({**chosen, "augment": None, **settings}))
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def target_of(datamodule: FER2013DataModule, row: int) -> list[float]:
    """What a training row is trained towards."""
    place = datamodule.rows(TRAIN).ids.tolist().index(str(row))
    image = datamodule.tensors(TRAIN)[0][place]
    for faces, targets in datamodule.train_dataloader():
        for face, target in zip(faces, targets, strict=True):
            if torch.equal(face, image):
                found = target if target.ndim else torch.nn.functional.one_hot(target, len(datamodule.classes))
                return [round(value, 4) for value in found.tolist()]
    raise AssertionError("the row is in no batch")


def test_majority_labels_and_rows_left_out(data: Callable[..., Path]) -> None:
    # Rows 0, 3, 6, ... train, 1, 4, ... validate.
    votes = data({0: counts(happy=6, sad=4), 3: counts(unknown=9, sad=1), 6: counts(not_a_face=10), 4: counts(fear=9)})
    datamodule = ready(votes)
    train, val = datamodule.rows(TRAIN), datamodule.rows(VAL)
    assert {"3", "6"}.isdisjoint(train.ids)
    assert len(train) == 12
    assert train.labels[train.ids == "0"] == EMOTIONS.index("happy")
    assert val.labels[val.ids == "4"] == EMOTIONS.index("fear")
    assert target_of(datamodule, 0) == [0, 0, 0, 1, 0, 0, 0]
    assert datamodule.describe_labels() == {"train": "FER+ majority", "evaluation": "FER+ majority"}


def test_ferplus_for_training_only_leaves_the_rest_as_it_is(data: Callable[..., Path]) -> None:
    votes = data({0: counts(happy=9), 4: counts(not_a_face=10), 7: counts(fear=10)})
    mixed, plain = ready(votes, eval_labels="fer2013"), ready(votes, labels="fer2013")
    for code in (VAL, TEST):
        assert np.array_equal(mixed.rows(code).ids, plain.rows(code).ids)
        assert np.array_equal(mixed.rows(code).labels, plain.rows(code).labels)
    assert mixed.rows(TRAIN).labels[0] == EMOTIONS.index("happy") != plain.rows(TRAIN).labels[0]
    assert mixed.describe_labels() == {"train": "FER+ majority", "evaluation": "the given labels"}
    assert plain.describe_labels() == {"train": "the given labels", "evaluation": "the given labels"}


@pytest.mark.parametrize("division", [{"split": "random"}, {"folds": 3}])
def test_which_side_a_row_is_on_depends_on_neither_labels_nor_classes(
    data: Callable[..., Path], division: dict[str, object]
) -> None:
    votes = data(
        {row: counts(unknown=9, sad=1) for row in range(0, 42, 4)} | {1: counts(contempt=9), 2: counts(fear=9)}
    )
    sides: dict[str, set[int]] = {}
    for settings in (
        {"labels": "fer2013"},
        {"labels": "fer2013", "classes": 4},
        {"labels": "fer2013", "ferplus_auxiliary": 1.0},
        {"labels": "ferplus"},
        {"labels": "ferplus", "classes": 4},
        {"labels": "ferplus", "classes": 8, "eval_labels": "fer2013"},
    ):
        faces = ready(votes, **division, **settings).faces
        for row, side in zip(faces.ids.tolist(), faces.splits.tolist(), strict=True):
            sides.setdefault(row, set()).add(side)
    assert len(sides) == 42
    assert all(len(side) == 1 for side in sides.values())


def test_soft_targets_are_shares_of_the_votes_for_the_classes(data: Callable[..., Path]) -> None:
    row = counts(angry=4, sad=2, contempt=2, unknown=2)
    votes = data({0: row})
    assert target_of(ready(votes, ferplus_target="soft"), 0) == pytest.approx([4 / 6, 0, 0, 0, 2 / 6, 0, 0], abs=1e-4)
    eight = ready(votes, ferplus_target="soft", classes=8)
    assert target_of(eight, 0) == pytest.approx([0.5, 0, 0, 0, 0.25, 0, 0, 0.25])
    assert eight.tensors(TRAIN)[1].dtype == torch.int64  # hard labels beside them
    four = ready(votes, ferplus_target="soft", classes=4)
    assert target_of(four, 0) == pytest.approx([4 / 6, 0, 2 / 6, 0], abs=1e-4)
    assert target_of(ready(votes, ferplus_target="any"), 0) == [1, 0, 0, 0, 0, 0, 0]


def test_fer2013s_own_label_can_have_a_share(data: Callable[..., Path]) -> None:
    votes = data({3: counts(angry=6, sad=4)})  # FER2013 says happy
    soft = ready(votes, ferplus_target="soft", fer2013_weight=0.25)
    assert target_of(soft, 3) == pytest.approx([0.45, 0, 0, 0.25, 0.3, 0, 0])
    assert target_of(ready(votes, fer2013_weight=0.25), 3) == pytest.approx([0.75, 0, 0, 0.25, 0, 0, 0])
    assert soft.describe_labels()["train"] == "0.75 FER+ vote distribution + 0.25 the given labels"


def test_the_votes_can_be_a_second_task_beside_the_own_labels(data: Callable[..., Path]) -> None:
    votes = data({0: counts(angry=4, sad=2, contempt=2, unknown=1, not_a_face=1)})
    datamodule = ready(votes, labels="fer2013", ferplus_auxiliary=0.5)
    loader = datamodule.train_dataloader()
    place = datamodule.rows(TRAIN).ids.tolist().index("0")
    own, shares = loader.targets[place, :7], loader.targets[place, 7:]
    assert own.tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert shares.tolist() == pytest.approx([0.4, 0, 0, 0, 0.2, 0, 0, 0.2, 0.1, 0.1])
    assert datamodule.tensors(TRAIN)[1].dtype == torch.int64
    _, targets = next(iter(datamodule.val_dataloader()))
    assert targets.dtype == torch.int64  # judged as ever
    assert datamodule.describe_labels() == {
        "train": "the given labels, and FER+'s votes as a second task of weight 0.5",
        "evaluation": "the given labels",
    }
    soft = ready(votes, ferplus_target="soft", ferplus_auxiliary=0.5).train_dataloader()
    assert soft.targets[place, :7].tolist() == pytest.approx([4 / 6, 0, 0, 0, 2 / 6, 0, 0], abs=1e-4)


def test_rows_won_by_contempt_need_the_eighth_class(data: Callable[..., Path]) -> None:
    votes = data({0: counts(contempt=8, happy=2)})
    assert "0" not in ready(votes).rows(TRAIN).ids
    eight = ready(votes, classes=8)
    assert eight.class_counts()["train"]["contempt"] == 1
    assert len(eight.classes) == 8
    with pytest.raises(UserError, match=r"has no contempt; for FER2013 add data\.labels=ferplus"):
        ready(votes, classes=8, labels="fer2013")


def test_the_sampler_balances_the_hard_labels(data: Callable[..., Path]) -> None:
    datamodule = ready(data({0: counts(happy=5, sad=5)}), ferplus_target="soft", balance="sampler")
    _, targets = next(iter(datamodule.train_dataloader()))
    assert (targets.dtype, tuple(targets.shape)) == (torch.float32, (14, 7))


def test_missing_votes_without_download(data: Callable[..., Path]) -> None:
    votes = data({})
    votes.unlink()
    with pytest.raises(UserError, match=r"data\.ferplus_path=.* does not exist and only a missing fer2013new\.csv is"):
        ready(votes, download=False)


def test_the_real_votes(fer2013_zip: Path) -> None:
    """The development rows of FER2013: 158 of the 177 rows that not-a-face wins without a name stand among them."""
    path = fer2013_zip.with_name("fer2013new.csv")
    found = winner(read_votes(path).counts)
    assert len(found) == 32298
    assert int((found == NOT_A_FACE).sum()) == 161
    rows = {7: (28224, 3529), 8: (28389, 3553), 4: (23819, 2965)}
    for classes, (train, val) in rows.items():
        datamodule = FER2013DataModule(
            DataSettings(path=str(fer2013_zip), classes=classes, labels="ferplus", ferplus_path=str(path))
        )
        datamodule.setup()
        assert (len(datamodule.rows(TRAIN)), len(datamodule.rows(VAL))) == (train, val)
