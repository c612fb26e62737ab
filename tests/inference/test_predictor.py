"""`Predictor` on a small network with random weights: shapes, temperature, pictures, threads, bad files."""

import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fer import machine
from fer.checkpoint import PREFIX, SPEC_KEY, write_checkpoint
from fer.data.synthetic import make_faces
from fer.errors import UserError
from fer.inference.analyzer import FaceAnalyzer
from fer.inference.browser import answer
from fer.inference.crop import crop_faces
from fer.inference.detectors import create_detector
from fer.inference.prediction import Detection, Prediction
from fer.inference.predictor import Predictor, choose_device
from fer.inference.sources import open_source
from fer.models.network import EmotionNetwork, NetworkSpec

CLASSES = ("angry", "happy", "sad", "neutral")
RNG = np.random.default_rng(0)


@pytest.fixture
def network() -> EmotionNetwork:
    torch.manual_seed(0)
    spec = NetworkSpec("net", CLASSES, kwargs={"widths": [8, 16]}, temperatures={"none": 1.7})
    return EmotionNetwork(spec).eval()


@pytest.fixture
def checkpoint(network: EmotionNetwork, tmp_path: Path) -> Path:
    path = tmp_path / "best.ckpt"
    state = {PREFIX + name: tensor for name, tensor in network.state_dict().items()}
    write_checkpoint({SPEC_KEY: network.spec.to_dict(), "state_dict": state}, path)
    return path


@pytest.fixture
def keep_threads():
    before = torch.get_num_threads(), cv2.getNumThreads()
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def faces(count: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, 48, 48), dtype=np.uint8)


@pytest.mark.usefixtures("keep_threads")
def test_a_checkpoint_predicts_what_its_network_says(checkpoint, network):
    predictor = Predictor.load(checkpoint)
    assert predictor.classes == CLASSES
    assert predictor.temperature == 1.7
    batch = faces(5)
    with torch.inference_mode():
        logits = network(torch.from_numpy(batch)[:, None])
    expected = torch.softmax(logits / 1.7, dim=1).numpy()
    probabilities = predictor.probabilities(batch)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)

    predictions = predictor(batch)
    for prediction, row in zip(predictions, expected, strict=True):
        assert prediction.label == CLASSES[row.argmax()]
        assert prediction.confidence == pytest.approx(row.max(), abs=1e-6)
        assert list(prediction.probabilities) == list(CLASSES)
        assert list(prediction.probabilities.values()) == pytest.approx(row, abs=1e-6)
        assert prediction.smoothed == prediction.probabilities
        assert prediction.box is None
        assert prediction.track is None
        assert prediction.score is None
        assert not prediction.uncertain


def test_one_face_or_many_or_none(network):
    predictor = Predictor(network)
    batch = faces(3)
    (single,) = predictor(batch[1])
    assert single.confidence == pytest.approx(predictor(batch)[1].confidence, abs=1e-6)
    assert predictor(batch[:0]) == []
    assert predictor.probabilities(batch[:0]).shape == (0, 4)


def test_many_faces_go_through_in_parts_with_the_same_result(network, monkeypatch):
    predictor = Predictor(network)
    batch = faces(11)
    whole = predictor.probabilities(batch)
    monkeypatch.setattr("fer.inference.predictor._BATCH", 4)
    np.testing.assert_allclose(predictor.probabilities(batch), whole, atol=1e-6)


def test_views_with_any_strides_are_taken(network):
    predictor = Predictor(network)
    batch = faces(4)
    np.testing.assert_allclose(
        predictor.probabilities(batch[::-2, :, ::-1]), predictor.probabilities(batch[::-2, :, ::-1].copy()), atol=1e-6
    )


def test_a_picture_is_searched_for_faces(network):
    picture = np.full((480, 960, 3), 120, np.uint8)
    for index, face in enumerate(make_faces(12, 7, 7, seed=0).images[:8]):
        y, x = 40 + 230 * (index // 4), 40 + 230 * (index % 4)
        picture[y : y + 160, x : x + 160] = cv2.resize(face, (160, 160), interpolation=cv2.INTER_CUBIC)[..., None]
    predictor = Predictor(network)
    predictions = predictor(picture)
    assert len(predictions) >= 4
    boxes = [prediction.box for prediction in predictions if prediction.box is not None]
    expected = predictor.probabilities(crop_faces(picture, boxes))
    for prediction, row in zip(predictions, expected, strict=True):
        assert list(prediction.probabilities.values()) == pytest.approx(row, abs=1e-6)
        assert prediction.score is not None
        assert 0.7 <= prediction.score <= 1
        assert prediction.track is None
    assert predictor(np.zeros((1, 1, 3), np.uint8)) == []


def test_a_list_goes_through_the_network_in_one_batch(network, monkeypatch, tmp_path):
    predictor = Predictor(network)
    pictures = crowds(2)
    cv2.imwrite(str(tmp_path / "a.png"), pictures[0])
    crops = faces(3)
    items = [str(tmp_path / "a.png"), np.zeros((60, 60, 3), np.uint8), pictures[1], crops, crops[0]]
    expected = [predictor(item) for item in items]
    batches = []
    run = predictor._run

    def counted(batch):
        batches.append(len(batch))
        return run(batch)

    monkeypatch.setattr(predictor, "_run", counted)
    found = predictor(items)
    assert batches == [sum(map(len, expected))]
    assert [len(one) for one in found[1:2] + found[3:]] == [0, 3, 1]
    assert found[0]
    assert all(alike(one, other) for one, other in zip(found, expected, strict=True))
    assert predictor([]) == []
    with pytest.raises(UserError, match=r"item 1 of the list: .*did cv2\.imread fail"):
        predictor((crops, None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((2, 48, 48), np.float32),
        np.zeros((2, 224, 224), np.uint8),
    ],
    ids=lambda image: f"{image.dtype}{image.shape}",
)
def test_other_faces_are_refused_in_words(network, image):
    with pytest.raises(UserError, match=r"uint8 of shape \(N, 48, 48\), and the last axis of a picture is 1, 3 or 4"):
        Predictor(network)(image)
    with pytest.raises(UserError, match=r"uint8 of shape \(N, 48, 48\)"):
        Predictor(network).probabilities(image)


def test_a_gray_picture_of_another_size_than_a_face_is_searched(network):
    predictor = Predictor(network)
    gray = cv2.cvtColor(crowds(1)[0], cv2.COLOR_BGR2GRAY)
    assert alike(predictor(gray), predictor(cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)))
    assert predictor(gray)[0].box
    assert predictor(gray[:48, :48])[0].box is None


def test_a_network_of_another_size_gets_faces_of_its_size(tmp_path):
    torch.manual_seed(0)
    network = EmotionNetwork(NetworkSpec("net", CLASSES, 64, kwargs={"widths": [8, 16]}, size=64)).eval()
    path = tmp_path / "large.ckpt"
    state = {PREFIX + name: tensor for name, tensor in network.state_dict().items()}
    write_checkpoint({SPEC_KEY: network.spec.to_dict(), "state_dict": state}, path)
    predictor = Predictor.load(path, threads=1)
    assert predictor.size == 64
    picture = crowds(1)[0]
    found = predictor(picture)
    crops = crop_faces(picture, [face.box for face in found if face.box is not None], 64)
    expected = network.probabilities(torch.from_numpy(crops)[:, None]).numpy()
    assert len(found) >= 2
    for face, row in zip(found, expected, strict=True):
        assert list(face.probabilities.values()) == pytest.approx(row, abs=1e-5)
    # The same in infer.py, which is an analyzer in front of every source, and in the page.
    analyzer = FaceAnalyzer(predictor, create_detector(), smoothing=0)
    assert alike(analyzer(picture, None), found)
    seen = sorted(analyzer(picture, 0.0), key=lambda face: face.box or ())
    wanted = sorted(found, key=lambda face: face.box or ())
    assert [face.probabilities for face in seen] == [face.probabilities for face in wanted]
    sent = answer(analyzer, cv2.imencode(".jpg", picture)[1].tobytes(), None, 0.0)
    assert [face["emotion"] for face in sent["faces"]] == [face.label for face in found]
    assert predictor(crops[0])[0].label == found[0].label
    with pytest.raises(UserError, match=r"uint8 of shape \(N, 64, 64\)"):
        predictor(faces(2))


# --- which network and where ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("keep_threads")
def test_networks_of_the_package_by_name(monkeypatch, tmp_path, checkpoint):
    monkeypatch.chdir(tmp_path)
    assert len(Predictor.load().classes) == 7
    assert Predictor.load("senet_5").classes == ("angry", "fear", "happy", "sad", "neutral")
    with pytest.raises(UserError, match="senet_9 is no file, and no network of the package: there is senet_4, senet_5"):
        Predictor.load("senet_9")
    Path("senet_5").write_bytes(checkpoint.read_bytes())
    assert Predictor.load("senet_5").classes == CLASSES  # a file of that name wins


@pytest.mark.usefixtures("keep_threads")
def test_devices(checkpoint, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == "cpu"
    with pytest.raises(UserError, match="device=cuda: torch sees none here"):
        Predictor.load(checkpoint, device="cuda")
    with pytest.raises(UserError, match="there is auto, cpu, cuda, mps"):
        Predictor.load(checkpoint, device="tpu")
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert choose_device("auto") == "mps"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert choose_device("auto") == "cuda"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.usefixtures("keep_threads")
def test_a_gpu_says_what_the_processor_says(checkpoint):
    batch = faces(20)
    found = Predictor.load(checkpoint, device="cuda").probabilities(batch)
    np.testing.assert_allclose(found, Predictor.load(checkpoint, device="cpu").probabilities(batch), atol=5e-3)


# --- videos -----------------------------------------------------------------------------------------------------------


def test_a_video_gives_frames_with_faces_that_are_followed(network, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 25, (480, 300))
    picture = crowds(1)[0]
    for number in range(20):
        writer.write(np.roll(picture, number, axis=1))
    writer.release()
    found = list(Predictor(network).video(tmp_path / "a.mp4", smoothing=0))
    assert [frame.index for frame, _ in found] == list(range(20))
    assert found[-1][0].time == pytest.approx(19 / 25, abs=2e-3)
    tracks = {face.track for _, faces in found for face in faces}
    assert tracks
    assert len(tracks) <= 2
    frames = Predictor(network).video(str(tmp_path / "missing.mp4"))
    with pytest.raises(UserError, match="does not exist"):
        next(frames)


def test_a_video_that_is_left_early_is_closed(network, tmp_path, monkeypatch):
    opened: list[Any] = []

    def remember(*arguments):
        opened.append(open_source(*arguments))
        return opened[0]

    monkeypatch.setattr("fer.inference.predictor.open_source", remember)
    writer = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
    for _ in range(20):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    frames = Predictor(network, "none").video(tmp_path / "a.mp4")
    next(frames)
    frames.close()
    assert not opened[0]._capture.isOpened()


# --- a detector of the caller's ---------------------------------------------------------------------------------------


def test_a_detector_of_the_callers_finds_the_faces(network):
    boxes = [(10, 20, 50, 50), (-5.5, 3, 30, 31)]
    asked = []

    def detector(picture):
        asked.append(picture)
        return [Detection(box, score) for box, score in zip(boxes, (0.0, 0.75), strict=True)]

    picture = crowds(1)[0]
    found = Predictor(network, detector)(picture)
    assert [(face.box, face.score) for face in found] == [(boxes[1], 0.75), (boxes[0], 0.0)]  # the surest first
    np.testing.assert_array_equal(asked[0], picture)


def test_a_turned_face_is_shown_upright_to_the_network_and_called_uncertain(network):
    picture = crowds(1)[0]
    predictor = Predictor(network, lambda _: [Detection((20, 20, 130, 130), 0.8, turned=90)])
    (face,) = predictor(picture)
    assert face.uncertain
    assert face.turned == 90
    upright = np.rot90(crop_faces(picture, [(20, 20, 130, 130)])[0])
    assert list(face.probabilities.values()) == pytest.approx(predictor.probabilities(upright[None])[0], abs=1e-5)
    (still,) = FaceAnalyzer(predictor, predictor._detector)(picture)
    assert (still.uncertain, still.turned) == (True, 90)
    assert still.probabilities == pytest.approx(face.probabilities, abs=1e-5)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "must return a list"),
        ([(0, 0, 9, 9)], "must return a list"),
        ([Detection((0, 0, 50, 80), 0.9)], "must be squares"),
        ([Detection((0, 0, -5, -5), 0.9)], "must be squares"),
        ([Detection((float("nan"), 0, 5, 5), 0.9)], "must be squares"),
        ([Detection((0, 0, 50, 50), 99.0)], r"scores must be in \[0, 1\]"),
    ],
)
def test_a_detector_that_answers_with_something_else(network, answer, message):
    with pytest.raises(UserError, match=message):
        Predictor(network, lambda picture: answer)(np.zeros((60, 60, 3), np.uint8))


@pytest.mark.parametrize("detector", ["mtcnn", 7])
def test_what_is_no_detector(network, detector):
    with pytest.raises(UserError, match="auto, yunet, haar, none"):
        Predictor(network, detector)


# --- threads and processes --------------------------------------------------------------------------------------------


def crowds(count: int) -> list[np.ndarray]:
    """Pictures of two drawn faces each, of different sizes and places."""
    drawn = make_faces(2 * count, 7, 7, seed=1).images
    pictures = []
    for index in range(count):
        picture = np.full((300 + 10 * index, 480, 3), 120, np.uint8)
        for number, face in enumerate(drawn[2 * index : 2 * index + 2]):
            y, x, side = 20 + 8 * index, 20 + 5 * index + 220 * number, 130 + 6 * index
            picture[y : y + side, x : x + side] = cv2.resize(face, (side, side))[..., None]
        pictures.append(picture)
    return pictures


def alike(one: list[Prediction], other: list[Prediction]) -> bool:
    """Same boxes, and probabilities that agree up to rounding."""
    return [face.box for face in one] == [face.box for face in other] and all(
        np.allclose(list(a.probabilities.values()), list(b.probabilities.values()), atol=1e-5)
        for a, b in zip(one, other, strict=True)
    )


class NotForTwo:
    """A detector of the caller's that keeps state while it works."""

    def __init__(self) -> None:
        self.busy = False

    def __call__(self, picture: np.ndarray) -> list[Detection]:
        assert not self.busy, "called by two threads at once"
        self.busy = True
        time.sleep(0.001)
        self.busy = False
        return [Detection((0, 0, picture.shape[0], picture.shape[0]), 0.9)]


def assert_threads_agree(shared: Predictor, serial: Predictor) -> None:
    """Eight threads, whose first calls are the first of all, against one."""
    pictures = crowds(8)
    expected = [serial(picture) for picture in pictures]
    assert any(expected)
    ready = threading.Barrier(8)

    def work(first: int) -> list[bool]:
        ready.wait()
        order = [*range(first, 8), *range(first)]
        return [alike(shared(pictures[index]), expected[index]) for index in order]

    with ThreadPoolExecutor(8) as pool:
        for answers in pool.map(work, range(8)):
            assert all(answers)


@pytest.mark.parametrize("name", ["yunet", "haar", "none", "own"])
def test_eight_threads_get_the_answers_of_one(network, name):
    def detector():
        return NotForTwo() if name == "own" else name

    assert_threads_agree(Predictor(network, detector()), Predictor(network, detector()))


@pytest.mark.usefixtures("keep_threads")
def test_a_pickled_predictor_is_its_path_and_settings(checkpoint, monkeypatch, tmp_path):
    monkeypatch.chdir(checkpoint.parent)
    picture = crowds(1)[0]
    for detector in ("haar", create_detector("yunet", score_threshold=0.6), NotForTwo()):
        predictor = Predictor.load(checkpoint.name, threads=1, detector=detector)
        pickled = pickle.dumps(predictor)
        assert len(pickled) < 400_000  # of which YuNet's file is 230 kB
        monkeypatch.chdir("/")
        assert alike(pickle.loads(pickled)(picture), predictor(picture))
        monkeypatch.chdir(checkpoint.parent)


def test_a_predictor_of_a_network_cannot_be_pickled(network):
    with pytest.raises(UserError, match=r"Predictor\.load"):
        pickle.dumps(Predictor(network))


def _label(predictor: Predictor, answers: "multiprocessing.SimpleQueue[str]") -> None:
    try:
        answers.put(predictor(np.zeros((48, 48), np.uint8))[0].label)
    except UserError as error:
        answers.put(str(error))


@pytest.mark.usefixtures("keep_threads")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(
    ("threads", "answer"), [(1, "|".join(CLASSES)), (2, "load it in the child, or with threads=1")]
)
def test_a_forked_child_answers_or_says_why_not(checkpoint, threads, answer):
    """With two of torch's threads it would wait for ever for one that is not there."""
    predictor = Predictor.load(checkpoint, threads=threads)
    predictor(faces(1))
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.SimpleQueue[str] = context.SimpleQueue()
    child = context.Process(target=_label, args=(predictor, answers))
    child.start()
    child.join(20)
    if child.is_alive():
        child.kill()
    assert child.exitcode == 0
    assert re.search(answer, answers.get())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize(
    "before",
    [
        "predictor(picture)",
        "predictor(picture); torch.set_num_threads(1); cv2.setNumThreads(3)",
        "del predictor; torch.set_num_threads(2); torch.randn(999, 999) @ torch.randn(999, 999)",
    ],
    ids=["used", "used and lessened", "of others"],
)
def test_a_forked_child_loads_one_of_its_own(checkpoint, before):
    """In processes of its own, which can hang: threads are not copied, and are waited for."""
    code = f"""
import multiprocessing, sys
import cv2, numpy as np, torch
from fer.inference.predictor import Predictor
picture = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)
cv2.GaussianBlur(picture, (21, 21), 0)

def answer(threads):
    predictor = Predictor.load({str(checkpoint)!r}, threads=threads, detector="none")
    cv2.GaussianBlur(picture, (21, 21), 0)
    return predictor(picture)[0].label, torch.get_num_threads(), cv2.getNumThreads()

predictor = Predictor.load({str(checkpoint)!r}, threads=2, detector="none")
{before}
count = cv2.getNumThreads()
for threads in 1, 2:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        print(*pool.map_async(answer, [threads]).get(30)[0])
    assert cv2.getNumThreads() == count
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for threads, line in zip(("1", "2"), done.stdout.splitlines(), strict=True):
        label, of_torch, of_opencv = line.split()
        assert label in CLASSES
        assert (of_torch, of_opencv) == ("1", threads)


@pytest.mark.usefixtures("keep_threads")
def test_threads_are_those_asked_for(checkpoint):
    Predictor.load(checkpoint, threads=2)
    assert torch.get_num_threads() == cv2.getNumThreads() == 2
    with pytest.raises(UserError, match="threads=0"):
        Predictor.load(checkpoint, threads=0)


@pytest.mark.usefixtures("keep_threads")
@pytest.mark.parametrize(
    ("cores", "load", "policy", "expected"),
    [
        (1, 0, "PASSIVE", 1),
        (2, 0.3, "PASSIVE", 2),
        (2, 3.5, "PASSIVE", 1),
        (8, 5.1, "passive", 3),
        (64, 0, "PASSIVE", 4),
        (2, 0.3, "ACTIVE", 1),
        (4, 0.3, "", 3),
    ],
)
def test_threads_are_chosen_by_the_free_cores(checkpoint, monkeypatch, cores, load, policy, expected):
    monkeypatch.setattr(machine, "available_cores", lambda: cores)
    monkeypatch.setattr(machine, "_load", lambda: load)
    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    Predictor.load(checkpoint)
    assert torch.get_num_threads() == cv2.getNumThreads() == expected


def test_available_cores_are_those_of_the_process(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    assert machine.available_cores() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert machine.available_cores() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    assert machine.available_cores() == 3
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert machine.available_cores() == 6


def test_the_wait_policy_is_the_users_where_there_is_one(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    machine.sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_a_file_that_is_no_checkpoint(tmp_path):
    path = tmp_path / "notes.ckpt"
    path.write_text("no network here")
    with pytest.raises(UserError, match=r"notes\.ckpt"):
        Predictor.load(path)
    with pytest.raises(UserError, match=r"nowhere\.ckpt"):
        Predictor.load(tmp_path / "nowhere.ckpt")


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="looks at Linux device files")
def test_a_device_is_a_camera(network):
    with pytest.raises(UserError, match="no other program using it"):
        next(Predictor(network).video("/dev/null"))


@pytest.mark.parametrize("suffix", ["", ".ckpt", ".onnx", ".mp4"])
def test_names_that_are_too_long_for_a_file(network, suffix):
    name = "x" * 300 + suffix
    with pytest.raises(UserError, match=r"is no file|does not exist"):
        Predictor.load(name)
    with pytest.raises(UserError, match="does not exist"):
        next(Predictor(network).video(name))
    with pytest.raises(UserError, match="cannot be read"):
        Predictor(network)(name)


def test_torch_is_imported_by_loading_alone_and_waits_without_spinning(checkpoint):
    """In a new process: nothing else of the chain needs torch, nor lightning or timm at any time."""
    code = f"""
import os, sys
os.environ.pop("OMP_WAIT_POLICY", None)
import numpy as np
from fer.inference.analyzer import FaceAnalyzer
from fer.inference.browser import answer
from fer.inference.detectors import create_detector
from fer.inference.predictor import Predictor
create_detector("haar")(np.zeros((100, 100, 3), np.uint8))
assert "torch" not in sys.modules
predictor = Predictor.load({str(checkpoint)!r})
assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
print(predictor(np.zeros((48, 48), np.uint8))[0].label)
assert not {{"lightning", "timm", "hydra", "torchvision", "matplotlib"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in CLASSES
