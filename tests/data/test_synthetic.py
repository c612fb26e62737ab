"""The drawn faces: same seed same faces, action units that move what they should, and a task that must be learnt."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from fer.data import synthetic
from fer.data.faces import SIZE, TEST, TRAIN, VAL, Faces
from fer.labels import EMOTIONS

Outlines = dict[str, npt.NDArray[np.floating]]


@pytest.fixture(scope="module")
def faces() -> Faces:
    return synthetic.make_faces(train=1400, val=140, test=700, seed=0)


def same(a: Faces, b: Faces) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("images", "labels", "splits", "ids"))


def test_order_names_and_types(faces: Faces) -> None:
    assert faces.images.shape == (2240, SIZE, SIZE)
    assert faces.labels.dtype == np.int64
    assert faces.splits.dtype == np.int8
    assert faces.splits.tolist() == [TRAIN] * 1400 + [VAL] * 140 + [TEST] * 700
    assert faces.ids[0] == "synthetic_train_000000"
    assert faces.ids[1400] == "synthetic_val_000000"
    assert faces.ids[-1] == "synthetic_test_000699"
    assert len(np.unique(faces.ids)) == len(faces)


@pytest.mark.parametrize("count", [1, 69, 70, 71, 500])
def test_emotions_are_balanced(count: int) -> None:
    counts = np.bincount(synthetic.make_faces(count, 0, 0, seed=1).labels, minlength=len(EMOTIONS))
    assert counts.sum() == count
    assert counts.max() - counts.min() <= 1


def test_same_seed_same_faces_other_seed_other_faces() -> None:
    first = synthetic.make_faces(80, 20, 20, seed=7)
    assert same(first, synthetic.make_faces(80, 20, 20, seed=7))
    other = synthetic.make_faces(80, 20, 20, seed=8)
    assert not (first.images == other.images).all(axis=(1, 2)).any()


def test_a_face_depends_on_seed_split_and_position_alone() -> None:
    few = synthetic.make_faces(train=30, val=10, test=75, seed=3)
    many = synthetic.make_faces(train=100, val=0, test=80, seed=3)
    for split, count in ((TRAIN, 30), (TEST, 75)):
        wanted, found = few.select(few.splits == split), many.select(many.splits == split)
        assert same(wanted, found.select(np.arange(count)))


def test_no_face_twice(faces: Faces) -> None:
    assert len(np.unique(faces.images.reshape(len(faces), -1), axis=0)) == len(faces)


def test_pictures_use_the_gray_range_and_none_is_blank(faces: Faces) -> None:
    spread = faces.images.std(axis=(1, 2))
    assert spread.min() > 4
    assert np.median(spread) > 25
    assert faces.images.min() < 10
    assert faces.images.max() > 245


def test_prototypes_name_known_emotions_and_units() -> None:
    assert set(synthetic.PROTOTYPES) == set(EMOTIONS)
    for always, sometimes in synthetic.PROTOTYPES.values():
        assert set(always) | set(sometimes) <= set(synthetic.ACTION_UNITS)
        assert not set(always) & set(sometimes)


# Geometry. The mouth's curves have 15 points from corner to corner, lids 11 from the nose outwards, brows 8.


def people(count: int = 40) -> dict[str, npt.NDArray[np.floating]]:
    traits = synthetic.draw_traits(np.random.default_rng(5), count)
    return traits | {"asymmetry": np.zeros(count, np.float32), "gaze": np.zeros(count, np.float32)}


def shape_of(traits: dict[str, npt.NDArray[np.floating]], strengths: dict[int, float]) -> Outlines:
    count = len(traits["skin"])
    actions = {unit: np.full(count, strengths.get(unit, 0.0), np.float32) for unit in synthetic.ACTION_UNITS}
    return synthetic.outlines(traits, actions)


def height(shape: Outlines, feature: str, *points: int) -> npt.NDArray[np.floating]:
    up: npt.NDArray[np.floating] = -shape[feature][:, list(points), 1].mean(axis=1)
    return up


def width(shape: Outlines, feature: str) -> npt.NDArray[np.floating]:
    across: npt.NDArray[np.floating] = np.ptp(shape[feature][:, :, 0], axis=1)
    return across


def gap(shape: Outlines, upper: tuple[str, int], lower: tuple[str, int]) -> npt.NDArray[np.floating]:
    return height(shape, *upper) - height(shape, *lower)


Measure = Callable[[Outlines], npt.NDArray[np.floating]]
CORNERS_ABOVE_CENTRE: Measure = lambda o: height(o, "mouth_line", 0, 14) - height(o, "mouth_line", 7)  # noqa: E731
MOUTH_GAP: Measure = lambda o: gap(o, ("mouth", 7), ("mouth", 22))  # noqa: E731


@pytest.mark.parametrize(
    ("unit", "measure", "change"),
    [
        (1, lambda o: height(o, "left_brow", 0), 0.1),
        (1, lambda o: height(o, "left_brow", 0) - height(o, "left_brow", 7), 0.1),
        (2, lambda o: height(o, "left_brow", 7), 0.08),
        (2, lambda o: height(o, "left_brow", 7) - height(o, "left_brow", 0), 0.08),
        (4, lambda o: height(o, "left_brow", 0), -0.1),
        (4, lambda o: o["right_brow"][:, 0, 0] - o["left_brow"][:, 0, 0], -0.08),
        (5, lambda o: height(o, "left_upper_lid", 5), 0.05),
        (6, lambda o: height(o, "left_lower_lid", 5), 0.04),
        (6, lambda o: height(o, "left_cheek", 0), 0.03),
        (7, lambda o: gap(o, ("left_upper_lid", 5), ("left_lower_lid", 5)), -0.03),
        (9, lambda o: height(o, "nose_base", 4), 0.05),
        (9, lambda o: width(o, "nose_base"), 0.03),
        (10, lambda o: height(o, "lips", 7), 0.05),
        (12, CORNERS_ABOVE_CENTRE, 0.1),
        (12, lambda o: width(o, "mouth_line"), 0.08),
        (15, CORNERS_ABOVE_CENTRE, -0.1),
        (16, lambda o: height(o, "lips", 22), -0.03),
        (17, lambda o: height(o, "lips", 22), 0.04),
        (20, lambda o: width(o, "mouth_line"), 0.1),
        (23, lambda o: gap(o, ("lips", 7), ("lips", 22)), -0.03),
        (25, MOUTH_GAP, 0.05),
        (26, MOUTH_GAP, 0.2),
        (26, lambda o: height(o, "head", 8), -0.1),
    ],
)
def test_each_action_unit_moves_its_feature(unit: int, measure: Measure, change: float) -> None:
    traits = people()
    moved = measure(shape_of(traits, {unit: 1.0})) - measure(shape_of(traits, {}))
    assert (np.sign(change) * moved > abs(change)).all()


def test_stronger_actions_move_more() -> None:
    traits = people()
    smiles = [CORNERS_ABOVE_CENTRE(shape_of(traits, {12: strength})) for strength in (0.0, 0.3, 0.6, 1.0)]
    assert (np.diff(smiles, axis=0) > 0).all()


def test_prototypes_show_their_emotion() -> None:
    traits = people()
    shapes = {emotion: shape_of(traits, always) for emotion, (always, _) in synthetic.PROTOTYPES.items()}
    corners = {emotion: CORNERS_ABOVE_CENTRE(shape).mean() for emotion, shape in shapes.items()}
    assert max(corners, key=corners.__getitem__) == "happy"
    assert corners["sad"] < corners["neutral"] < corners["happy"]
    mouths = {emotion: MOUTH_GAP(shape).mean() for emotion, shape in shapes.items()}
    assert max(mouths, key=mouths.__getitem__) == "surprise"
    brows = {emotion: height(shape, "left_brow", 0, 7).mean() for emotion, shape in shapes.items()}
    assert max(brows, key=brows.__getitem__) == "surprise"
    frowns = {emotion: height(shape, "left_brow", 0).mean() for emotion, shape in shapes.items()}
    assert min(frowns, key=frowns.__getitem__) == "angry"
    noses = {emotion: height(shape, "nose_base", 4).mean() for emotion, shape in shapes.items()}
    assert max(noses, key=noses.__getitem__) == "disgust"
    eyes = {e: gap(shape, ("left_upper_lid", 5), ("left_lower_lid", 5)).mean() for e, shape in shapes.items()}
    assert sorted(eyes, key=eyes.__getitem__)[-2:] in (["surprise", "fear"], ["fear", "surprise"])


def test_a_face_without_asymmetry_is_its_own_mirror_image() -> None:
    shape = shape_of(people(), {1: 0.5, 4: 0.3, 6: 0.4, 9: 0.5, 12: 0.8, 26: 0.4})
    pairs = [name.removeprefix("left_") for name in shape if name.startswith("left_")]
    assert len(pairs) > 10
    for name in pairs:
        np.testing.assert_allclose(shape[f"left_{name}"] * [-1, 1, 1], shape[f"right_{name}"], atol=1e-5)


def test_pose_turns_and_places_the_head() -> None:
    traits = people(1) | {name: np.zeros(1, np.float32) for name in ("roll", "yaw", "pitch", "shift_x", "shift_y")}
    traits["scale"] = np.ones(1, np.float32)
    shape = shape_of(traits, {})

    def middle(feature: str, **pose: float) -> npt.NDArray[np.floating]:
        posed = traits | {name: np.array([value], np.float32) for name, value in pose.items()}
        point: npt.NDArray[np.floating] = synthetic.project(shape, posed)[feature][0].mean(axis=0) / 2**synthetic.SHIFT
        return point

    def eyes(**pose: float) -> npt.NDArray[np.floating]:
        return middle("right_iris", **pose) - middle("left_iris", **pose)

    nose = middle("nose_tip")
    assert middle("nose_tip", yaw=0.3)[0] > nose[0] + 5  # a positive yaw looks to the viewer's right
    assert middle("nose_tip", pitch=0.2)[1] > nose[1] + 2  # a positive pitch looks down
    np.testing.assert_allclose(middle("nose_tip", shift_x=0.1, shift_y=-0.05) - nose, [9.6, -4.8], atol=0.1)
    np.testing.assert_allclose(eyes(scale=0.5), 0.5 * eyes(), atol=0.1)
    across, down = eyes(roll=0.3)
    assert np.arctan2(down, across) == pytest.approx(0.3, abs=0.01)
    assert eyes(yaw=0.4)[0] < eyes()[0]


# The task.


def standardise(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    flat = images.reshape(len(images), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= flat.std(axis=1, keepdims=True) + 1
    return flat


def portraits(count: int) -> dict[str, npt.NDArray[np.floating]]:
    """Bald, fair people who face a good camera in flat light."""
    fixed = dict.fromkeys(("roll", "yaw", "pitch", "shift_x", "shift_y", "blur", "noise"), 0.0)
    fixed |= {"scale": 1.0, "skin": 200.0, "hairline": 1.2, "bar": 4.0, "light_hardness": 0.1, "gamma": 1.0}
    return people(count) | {name: np.full(count, value, np.float32) for name, value in fixed.items()}


def test_features_are_drawn_where_the_outlines_lie() -> None:
    traits = portraits(20)
    actions = {unit: np.zeros(20, np.float32) for unit in synthetic.ACTION_UNITS}
    shape = synthetic.project(synthetic.outlines(traits, actions), traits)
    images = synthetic.render(traits, actions, np.random.default_rng(0)).astype(int)

    def darkest(feature: str) -> npt.NDArray[np.int_]:
        """The darkest of the 3x3 pixels at the feature's middle."""
        at = (shape[feature].mean(axis=1) / 2**synthetic.SHIFT / 2).astype(int)
        return np.array([image[y - 1 : y + 2, x - 1 : x + 2].min() for image, (x, y) in zip(images, at, strict=True)])

    for side in ("left", "right"):
        for feature in ("brow", "iris", "nostril"):
            assert (darkest(f"{side}_{feature}") < darkest(f"{side}_cheek") - 30).all(), feature
    assert (darkest("mouth_line") < darkest("chin") - 30).all()


@pytest.mark.parametrize("unit", synthetic.ACTION_UNITS)
def test_each_action_unit_is_seen_in_its_half_of_the_face(unit: int) -> None:
    traits = portraits(20)

    def drawn(strengths: dict[int, float]) -> npt.NDArray[np.int_]:
        actions = {u: np.full(20, strengths.get(u, 0.0), np.float32) for u in synthetic.ACTION_UNITS}
        return synthetic.render(traits, actions, np.random.default_rng(0)).astype(int)

    change = np.abs(drawn({unit: 1.0}) - drawn({})).mean(axis=0)
    upper, lower = change[:29].mean(), change[29:].mean()  # the nose's tip lies at row 29
    assert max(upper, lower) > 1
    if unit not in (6, 9):  # the cheek raiser and the nose wrinkler move the middle
        assert (upper > 3 * lower) == (unit in (1, 2, 4, 5, 7))


def test_the_drawing_shows_the_actions() -> None:
    """One person in front of one camera: the nearest class mean tells the emotions apart."""
    rng = np.random.default_rng(2)
    labels = np.tile(np.arange(len(EMOTIONS)), 60)
    one = synthetic.draw_traits(rng, 1) | {"bar": np.full(1, 4), "blur": np.zeros(1)}
    traits = {name: np.repeat(value, len(labels)).astype(np.float32) for name, value in one.items()}
    traits["intensity"] = np.full(len(labels), 0.9, np.float32)
    images = synthetic.render(traits, synthetic.draw_actions(rng, labels, traits["intensity"]), rng)
    flat = standardise(images)
    known, asked = slice(0, 210), slice(210, None)
    means = np.stack([flat[known][labels[known] == emotion].mean(axis=0) for emotion in range(len(EMOTIONS))])
    distance = ((flat[asked][:, None] - means) ** 2).sum(axis=2)
    assert (distance.argmin(axis=1) == labels[asked]).mean() > 0.85


def test_pixels_alone_do_not_separate_the_emotions(faces: Faces) -> None:
    """Ridge regression on the pixels beats chance (14 %) and stays far behind a network (docs/synthetic.md)."""
    flat = standardise(faces.images)
    train, test = faces.splits == TRAIN, faces.splits == TEST
    targets = np.eye(len(EMOTIONS))[faces.labels[train]]
    gram = flat[train] @ flat[train].T
    scores = {}
    for ridge in (3e3, 1e4, 3e4, 1e5):
        dual = np.linalg.solve(gram + ridge * np.eye(len(gram)), targets - targets.mean(axis=0))
        guess = (flat[test] @ (flat[train].T @ dual)).argmax(axis=1)
        scores[ridge] = (guess == faces.labels[test]).mean()
    assert 0.2 < max(scores.values()) < 0.4, scores


def test_faces_do_not_resemble_faces_of_their_own_emotion(faces: Faces) -> None:
    """The nearest neighbour is a person in the same pose and light, not one of the same emotion."""
    flat = standardise(faces.images)
    train, test = faces.splits == TRAIN, faces.splits == TEST
    nearest = (flat[test] @ flat[train].T).argmax(axis=1)
    assert (faces.labels[train][nearest] == faces.labels[test]).mean() < 0.3
