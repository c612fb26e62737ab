import io
from pathlib import Path

import numpy as np
import PIL
import pytest
from containers import opened
from PIL import Image

from fer.data.decode import face_of, read_places
from fer.data.faces import TEST, TRAIN, UNSPLIT, VAL
from fer.data.folder import place, to_face
from fer.errors import UserError
from fer.labels import EMOTIONS

HAPPY, SAD = EMOTIONS.index("happy"), EMOTIONS.index("sad")


def places(*names):
    """(row, emotion, split) of each image."""
    return [(p.row, EMOTIONS[p.label], p.split) for p in place(names, "data")[0]]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def decode(image: Image.Image, **how) -> np.ndarray:
    """`to_face` of the image after a trip through a file, which `face_of` agrees with."""
    file = io.BytesIO()
    image.save(file, **how)
    with Image.open(file) as opened:
        face = to_face(opened)
    np.testing.assert_array_equal(face_of(file.getvalue(), 48), face)
    assert face.shape == (48, 48)
    assert face.dtype == np.uint8
    return face


# Paths


@pytest.mark.parametrize("wrapping", ["", "images/", "fer-2013/images/", "./"])
def test_train_validation_and_test(wrapping):
    names = ["train/happy/1.png", "validation/sad/1.png", "test/fear/1.png"]
    assert places(*[wrapping + name for name in names]) == [
        ("test/fear/1.png", "fear", TEST),
        ("train/happy/1.png", "happy", TRAIN),
        ("validation/sad/1.png", "sad", VAL),
    ]


def test_digits_of_other_scripts_are_sorted_as_letters():
    names = ["happy/1\u06632.png", "happy/1a2.png"]
    assert sorted(row for row, *_ in places(*names)) == sorted(names)


@pytest.mark.parametrize("folder", ["val", "valid", "Validation", "public_test", "PublicTest"])
def test_spellings_of_validation(folder):
    assert {split for _, _, split in places("train/happy/1.png", f"{folder}/happy/1.png")} == {TRAIN, VAL}


def test_official_test_sets_mixed_in_one_folder_are_told_apart_by_name():
    names = [
        "train/happy/Training_1.jpg",
        "test/happy/PublicTest_2.jpg",
        "test/happy/PrivateTest_3.jpg",
        "test/happy/4.jpg",
    ]
    assert [(row.rpartition("/")[2], split) for row, _, split in places(*names)] == [
        ("4.jpg", TEST),
        ("PrivateTest_3.jpg", TEST),
        ("PublicTest_2.jpg", VAL),
        ("Training_1.jpg", TRAIN),
    ]


def test_with_a_validation_folder_the_test_folder_is_taken_at_its_word():
    names = ["train/happy/1.jpg", "val/happy/PrivateTest_2.jpg", "test/happy/PublicTest_3.jpg"]
    assert [split for _, _, split in places(*names)] == [TEST, TRAIN, VAL]


def test_one_folder_of_classes_is_unsplit():
    assert places("angry/a.png", "wrapped.png/x.txt", "neutral/Training_1.png") == [
        ("angry/a.png", "angry", UNSPLIT),
        ("neutral/Training_1.png", "neutral", UNSPLIT),
    ]


def test_splits_inside_the_classes():
    assert places("Happy/train/1.png", "Happy/test/1.png") == [
        ("Happy/test/1.png", "happy", TEST),
        ("Happy/train/1.png", "happy", TRAIN),
    ]


def test_folders_below_the_class():
    assert places("happy/S005/1.png", "sad/S005/1.png") == [
        ("happy/S005/1.png", "happy", UNSPLIT),
        ("sad/S005/1.png", "sad", UNSPLIT),
    ]


def test_spellings_of_the_classes():
    folders = ["0_Anger", "disgusted", "Fearful", "HAPPINESS", "Sadness", "surprised", "Neutral"]
    for folder, emotion in zip(folders, EMOTIONS, strict=True):
        assert places(f"train/{folder}/1.JPG") == [(f"train/{folder}/1.JPG", emotion, TRAIN)]


def test_order_is_natural():
    names = ["train/happy/im10.png", "train/happy/im2.png", "train/angry/im3.png"]
    rows = [row for row, _, _ in places(*names)]
    assert rows == ["train/angry/im3.png", "train/happy/im2.png", "train/happy/im10.png"]
    assert rows == [row for row, _, _ in places(*reversed(names))]


def test_other_files_do_not_matter():
    assert len(places("happy/1.png", "happy/Thumbs.db", "happy/desktop.ini", "happy/notes.txt", "README.md")) == 1


def test_unknown_class_folders_are_left_out_in_words():
    names = ["train/happy/1.png", *[f"train/bored/{i}.png" for i in range(12)], "sample.png"]
    found, notes = place(names, "data")
    assert [p.row for p in found] == ["train/happy/1.png"]
    assert notes == ["data: left out 13 images that are in no class's folder: its top (1), train/bored (12)"]


def test_a_misspelt_class_folder_is_not_left_out():
    with pytest.raises(UserError, match="is the folder train/suprise meant to be surprise"):
        place(["train/happy/1.png", "train/suprise/1.png"], "data")


def test_no_class_folder_at_all():
    with pytest.raises(UserError, match=r"neither a FER2013 CSV nor class folders .* it holds cats, dogs: name"):
        place(["cats/1.png", "dogs/1.png"], "data")
    with pytest.raises(UserError, match="it holds nothing"):
        place([], "data")


@pytest.mark.parametrize("content", [[], ["train/fear/Thumbs.db"], ["train/fear/face.heic"]])
def test_an_empty_class_folder(content):
    with pytest.raises(UserError, match=r"data: no images \(\.png.*\) in the class folder train/fear; fill or delete"):
        place(["train/", "train/happy/", "train/happy/1.png", "train/fear/", *content], "data")


def test_a_tree_that_holds_itself_once_more_is_read_once():
    names = ["train/happy/1.png", "test/happy/2.png"]
    found, notes = place([f"{top}{name}" for top in ("images/", "images/images/") for name in names], "data")
    assert [p.name for p in found] == ["images/test/happy/2.png", "images/train/happy/1.png"]
    assert notes == ["data: images/images/ repeats what is above it and is left out"]


def test_two_data_sets_side_by_side():
    with pytest.raises(UserError, match=r"holds more than one data set, in ck/, fer/; name one of them in data.path"):
        place(["fer/train/happy/1.png", "ck/train/happy/1.png"], "data")


def test_classes_inside_and_outside_the_splits():
    with pytest.raises(UserError, match="inside its train folder and others outside, such as sad"):
        place(["train/happy/1.png", "sad/1.png"], "data")


# Pictures


@pytest.mark.parametrize("how", [{"format": name} for name in ("png", "bmp", "gif", "tiff")] + [
    {"format": "webp", "lossless": True}
])  # fmt: skip
def test_a_gray_face_stays_as_it_is(how):
    face = noise(48, 48)
    np.testing.assert_array_equal(decode(Image.fromarray(face), **how), face)


def test_a_gray_jpeg_is_what_pillow_decodes():
    file = io.BytesIO()
    Image.fromarray(noise(48, 48)).save(file, "jpeg")
    with Image.open(file) as opened, Image.open(file) as again:
        np.testing.assert_array_equal(to_face(opened), np.asarray(again))


def test_colours_become_their_luma():
    image = Image.new("RGB", (48, 48), (200, 100, 50))
    luma = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    modes = ["RGB", "RGBA", "CMYK"]
    if int(PIL.__version__.split(".")[0]) >= 13:  # an earlier Pillow does not read the TIFF that it has written
        modes.append("YCbCr")
    for mode in modes:
        assert np.abs(decode(image.convert(mode), format="tiff").astype(int) - luma).max() <= 2, mode
    for mode in ("RGB", "CMYK"):
        assert np.abs(decode(image.convert(mode), format="jpeg").astype(int) - luma).max() <= 3, mode
    assert np.abs(decode(image.quantize(4), format="png").astype(int) - luma).max() <= 2


def test_one_bit_images_are_black_and_white():
    bits = noise(48, 48) > 127
    np.testing.assert_array_equal(decode(Image.fromarray(bits), format="png"), bits * np.uint8(255))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_parts_lie_over_white(mode):
    image = Image.new("LA", (48, 48), (40, 255))
    image.paste((40, 0), (0, 0, 24, 48))
    face = decode(image.convert("RGBA").convert(mode), format="tiff" if mode == "PA" else "png")
    assert (face[:, :24] == 255).all()
    assert (face[:, 24:] == 40).all()


def test_a_transparent_palette_colour():
    image = Image.fromarray(np.tile(np.array([0, 1], np.uint8), (48, 24)), "P")
    image.putpalette([10, 10, 10, 90, 90, 90])
    face = decode(image, format="png", transparency=0)
    assert (face[0, 0], face[0, 1]) == (255, 90)


@pytest.mark.parametrize("how", [{"format": "png"}, {"format": "tiff"}])
def test_sixteen_bits_become_eight(how):
    ramp = np.arange(48 * 48, dtype=np.uint16).reshape(48, 48) * 28
    np.testing.assert_array_equal(decode(Image.fromarray(ramp), **how), ramp >> 8)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_a_known_white_are_refused(dtype):
    with pytest.raises(ValueError, match="not 8 or 16 bits"):
        to_face(Image.fromarray(np.zeros((48, 48), dtype)))


def test_exif_rotation():
    face = np.zeros((48, 48), np.uint8)
    face[:24] = 255  # bright above
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me clockwise"
    turned = decode(Image.fromarray(face), format="jpeg", exif=exif, quality=95)
    assert turned[:, 28:].min() > 200
    assert turned[:, :20].max() < 50


@pytest.mark.parametrize("size", [(480, 480), (1000, 700), (96, 240), (24, 24), (1, 1), (5000, 40)])
@pytest.mark.parametrize("how", ["png", "jpeg"])
def test_any_size_is_scaled_over_its_whole_area(size, how):
    # A smooth picture: what a 48x48 one of the same light would show.
    def light(width, height):
        x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
        return (128 + 60 * np.sin(3 * x)[None] + 60 * np.cos(2 * y)[:, None]).astype(np.uint8)

    face = decode(Image.fromarray(light(*size)), format=how)
    if min(size) >= 24:
        assert np.abs(face.astype(int) - light(48, 48)).mean() < 4


def test_fine_detail_is_averaged_not_sampled():
    stripes = np.tile(np.array([0, 255], np.uint8), (960, 480))
    for how in ("png", "jpeg"):
        assert np.abs(decode(Image.fromarray(stripes), format=how).astype(int) - 127).max() <= 6


def test_an_animation_shows_its_first_frame():
    first, second = noise(48, 48, seed=1), noise(48, 48, seed=2)
    image = Image.fromarray(first)
    np.testing.assert_array_equal(
        decode(image, format="gif", save_all=True, append_images=[Image.fromarray(second)]), first
    )


# Both together


def test_reads_each_image_into_its_row(tmp_path, write_tree):
    names = ["train/happy/10.png", "train/happy/9.png", "test/sad/PublicTest_1.png", "test/sad/PrivateTest_2.png"]
    write_tree(tmp_path, names)
    with opened(tmp_path) as tree:
        places, notes = place(tree.names, "data")
        faces = read_places(tree, places, "data")
    assert notes == []
    assert faces.ids.tolist() == [
        "test/sad/PrivateTest_2.png",
        "test/sad/PublicTest_1.png",
        "train/happy/9.png",
        "train/happy/10.png",
    ]
    assert faces.labels.tolist() == [SAD, SAD, HAPPY, HAPPY]
    assert faces.splits.tolist() == [TEST, VAL, TRAIN, TRAIN]
    for row, image in zip(faces.ids, faces.images, strict=True):
        np.testing.assert_array_equal(image, noise(48, 48, seed=names.index(row)))


def break_file(path: Path, how: str) -> None:
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "text": b"no picture at all"}[how])


@pytest.mark.parametrize("how", ["empty", "cut", "text"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "gif", "tif"])
def test_a_broken_image_among_good_ones_is_named(tmp_path, write_tree, how, suffix):
    write_tree(tmp_path, [f"happy/{i}.{suffix}" for i in range(4)])
    break_file(tmp_path / f"happy/2.{suffix}", how)
    with opened(tmp_path) as tree, pytest.raises(UserError) as error:
        read_places(tree, place(tree.names, "data")[0], "data")
    assert str(error.value).startswith(f"data: 1 of 4 images cannot be read: happy/2.{suffix} (")
    assert "replace or delete" in str(error.value)


def test_many_broken_images_are_counted(tmp_path, write_tree):
    write_tree(tmp_path, [f"happy/{i}.png" for i in range(12)])
    for i in range(11):
        break_file(tmp_path / f"happy/{i}.png", "text")
    with opened(tmp_path) as tree, pytest.raises(UserError) as error:
        read_places(tree, place(tree.names, "data")[0], "data")
    shown = "; ".join(f"happy/{i}.png (no known image format)" for i in range(5))
    assert f"11 of 12 images cannot be read: {shown}; and 6 more; replace" in str(error.value)
