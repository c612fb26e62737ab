"""Detectors on drawn faces and on pictures of odd sizes, and YuNet's file."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fer.data.synthetic import make_faces
from fer.errors import UserError
from fer.inference.crop import crop_detections
from fer.inference.detectors import YuNet, as_detector, create_detector, find_in_still
from fer.inference.prediction import Detection
from fer.inference.tracking import iou
from fer.weights import YUNET

SHARED = Path(os.environ.get("FER_SHARED") or Path(__file__).parents[3] / "shared")
MEDIA = SHARED / "media"
needs_media = pytest.mark.skipif(not MEDIA.is_dir(), reason=f"there are no photographs at {MEDIA}")


def photograph(name: str) -> np.ndarray:
    picture = cv2.imread(str(MEDIA / name))
    assert picture is not None
    return picture


@pytest.fixture(scope="module")
def crowd() -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Twelve drawn faces of 160 px on gray, and their centres."""
    picture = np.full((720, 960, 3), 120, np.uint8)
    centres = []
    for index, face in enumerate(make_faces(12, 7, 7, seed=0).images[:12]):
        y, x = 40 + 230 * (index // 4), 40 + 230 * (index % 4)
        picture[y : y + 160, x : x + 160] = cv2.resize(face, (160, 160), interpolation=cv2.INTER_CUBIC)[..., None]
        centres.append((x + 80.0, y + 80.0))
    return picture, centres


def found_share(name: str, crowd, scale: float = 1.0) -> float:
    """The share of drawn faces with a detection near; asserts that there are no others, and that boxes are square."""
    picture, centres = crowd
    if scale != 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    found = set()
    for detection in create_detector(name)(picture):
        x, y, width, height = (value / scale for value in detection.box)
        assert width == pytest.approx(height)
        assert detection.score is not None
        assert 0.7 <= detection.score <= 1
        near = [
            index
            for index, (centre_x, centre_y) in enumerate(centres)
            if np.hypot(x + width / 2 - centre_x, y + height / 2 - centre_y) < 32
        ]
        assert len(near) == 1
        assert 110 < width < 220
        found.update(near)
    return len(found) / len(centres)


@pytest.mark.parametrize("scale", [0.6, 1, 3])
def test_haar_finds_drawn_faces_at_any_scale(crowd, scale):
    assert found_share("haar", crowd, scale) >= 0.5


@pytest.mark.parametrize("scale", [0.2, 1, 3])
def test_yunet_finds_drawn_faces_at_any_scale(crowd, scale):
    assert found_share("yunet", crowd, scale) >= 0.7


@needs_media
def test_both_frame_a_face_alike():
    """The network is shown the same square, whichever detector found the face."""
    picture = photograph("dlib_bald_guys.jpg")
    yunet, haar = create_detector("yunet")(picture), create_detector("haar")(picture)
    pairs = [(np.array(a.box), np.array(b.box)) for a in yunet for b in haar if iou(a.box, b.box) > 0.4]
    assert len(pairs) >= 20
    sides = [b[2] / a[2] for a, b in pairs]
    shifts = [(b[:2] + b[2:] / 2 - a[:2] - a[2:] / 2) / a[2] for a, b in pairs]
    assert np.median(sides) == pytest.approx(1, abs=0.03)
    np.testing.assert_allclose(np.median(shifts, axis=0), 0, atol=0.02)


@needs_media
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("human_stock-group-1.jpg", 15),
        ("dlib_bald_guys.jpg", 24),
        ("dlib_2008_002079.jpg", 6),
        ("fr_two_people.jpg", 2),
        ("human_stock-emotions-a-6.jpg", 1),
        ("human_background.jpg", 0),
        ("fer_no-faces.jpg", 0),
    ],
)
def test_yunet_counts_the_faces_of_photographs(name, count):
    assert len(create_detector("yunet")(photograph(name))) == count


@needs_media
@pytest.mark.parametrize("quarter", range(4))
def test_faces_of_a_still_picture_are_turned_upright(quarter):
    picture = photograph("human_stock-emotions-a-6.jpg")
    turned = np.ascontiguousarray(np.rot90(picture, -quarter))  # clockwise
    (detection,) = find_in_still(create_detector(), turned)
    assert detection.turned == 90 * quarter
    assert create_detector()(turned)[0].turned == 0  # frames of a video are not looked at again
    face, upright = crop_detections(turned, [detection])[0], crop_detections(picture, create_detector()(picture))[0]
    likeness = [np.corrcoef(np.rot90(face, turn).ravel(), upright.ravel())[0, 1] for turn in range(4)]
    assert int(np.argmax(likeness)) == 0


@needs_media
@pytest.mark.parametrize("name", ["human_stock-group-1.jpg", "dlib_bald_guys.jpg", "fr_two_people.jpg"])
def test_faces_that_stand_upright_are_left_so(name):
    picture = photograph(name)
    assert find_in_still(create_detector(), picture) == create_detector()(picture)


@pytest.mark.parametrize("name", ["none", "haar", "yunet"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (3, 640), (640, 3), (31, 33), (48, 48), (700, 65)])
def test_pictures_of_odd_sizes_hold_no_face(name, shape):
    """Under 64 px YuNet's coarse cells answered with scores of 1.0 on black."""
    detector = create_detector(name)
    for value in (0, 200):
        found = detector(np.full((*shape, 3), value, np.uint8))
        assert len(found) == (1 if name == "none" else 0)


@pytest.mark.parametrize("name", ["haar", "yunet"])
def test_one_detector_takes_pictures_of_changing_size(crowd, name):
    detector = create_detector(name)
    picture, _ = crowd
    first = detector(picture)
    detector(picture[:300, :200])
    detector(picture[:10, :900])
    assert detector(picture) == first


def test_equally_sure_faces_come_in_one_order(crowd):
    """OpenCV's threads find them in any order."""
    detector = create_detector("haar")
    first = detector(crowd[0])
    scores = [detection.score for detection in first]
    assert len(set(scores)) < len(scores)
    assert all(detector(crowd[0]) == first for _ in range(20))


def test_ones_own_detector_keeps_its_order_among_equals(crowd):
    found = [
        Detection(np.array([300.0, 40.0, 80.0, 80.0]), None),  # type: ignore[arg-type]  # as people give them
        Detection([40, 40, 80, 80], None),  # type: ignore[arg-type]  # or so
        Detection((200.0, 40.0, 80.0, 80.0), 0.9),
    ]
    assert [detection.box[0] for detection in as_detector(lambda picture: found)(crowd[0])] == [300, 40, 200]


def test_a_picture_of_12000_pixels(crowd):
    large = np.full((1500, 12000, 3), 120, np.uint8)
    large[:, 5000:6500] = cv2.resize(crowd[0][:230, 230:460], (1500, 1500))
    (detection,) = create_detector("yunet")(large)
    x, _, side, _ = detection.box
    assert 5000 < x < x + side < 6500


def test_none_takes_the_largest_square_in_the_middle():
    detector = create_detector("none")
    assert [d.box for d in detector(np.zeros((48, 48, 3), np.uint8))] == [(0, 0, 48, 48)]
    (detection,) = detector(np.zeros((100, 160, 3), np.uint8))
    assert detection.box == (30.0, 0.0, 100.0, 100.0)
    assert detection.score is None


@pytest.mark.parametrize("name", ["haar", "yunet"])
def test_the_threshold_leaves_out_the_unsure(crowd, name):
    scores: list[Any] = [d.score for d in create_detector(name, score_threshold=0.5)(crowd[0])]
    assert scores == sorted(scores, reverse=True)
    high = (scores[0] + scores[-1]) / 2
    assert [d.score for d in create_detector(name, score_threshold=high)(crowd[0])] == pytest.approx(
        [score for score in scores if score >= high]
    )


def test_auto_is_the_yunet_of_the_package(crowd):
    detector = create_detector()
    assert isinstance(detector, YuNet)
    assert detector(crowd[0]) == create_detector("yunet")(crowd[0])
    assert "MIT License" in (YUNET.parent / "LICENSE.opencv_zoo.MIT").read_text()


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match="auto, yunet, haar, none"):
        create_detector("mtcnn")


@pytest.mark.parametrize("name", ["yunet", "auto"])
def test_a_model_that_is_missing_or_another_file(tmp_path, name):
    with pytest.raises(UserError, match=r"missing\.onnx cannot be read .*detector=haar"):
        create_detector(name, path=tmp_path / "missing.onnx")
    other = tmp_path / "other.onnx"
    other.write_bytes(b"not a network")
    with pytest.raises(UserError, match=r"other\.onnx is not the face detector YuNet"):
        create_detector(name, path=other)


def test_a_model_is_read_from_a_path_with_any_letters(tmp_path):
    path = tmp_path / "модель" / "yunet.onnx"
    path.parent.mkdir()
    path.write_bytes(YUNET.read_bytes())
    assert isinstance(create_detector("yunet", path=str(path)), YuNet)
