from pathlib import Path

import numpy as np
import pytest
from data_files import fer_line, fer_rows, write_fer_csv, write_fer_folders, write_icml_csv
from PIL import Image

from nnlib.data import Split, load_fer2013
from nnlib.data.sources import verify

USAGES = {"train": "Training", "test": "PublicTest", "private": "PrivateTest"}


def multiset(split: Split) -> list[tuple[int, bytes]]:
    return sorted((int(label), image.tobytes()) for label, image in zip(split.labels, split.inputs, strict=True))


def refusal(root: Path, error: type[Exception] = ValueError, split: str = "train") -> str:
    """The message with which loading fails; it must be one line, and leave no cache behind."""
    with pytest.raises(error) as caught:
        load_fer2013(split, root=root)
    assert "\n" not in str(caught.value)
    assert not list(root.glob(".nnlib-cache/fer2013*"))
    return str(caught.value)


@pytest.mark.parametrize("writer", [write_fer_csv, write_icml_csv])
@pytest.mark.parametrize("split", USAGES)
def test_a_csv_gives_its_rows_in_order(tmp_path, writer, split):
    writer(tmp_path)
    loaded = load_fer2013(split, root=tmp_path)
    expected = [(emotion, face) for emotion, face, usage in fer_rows() if usage == USAGES[split]]
    assert loaded.inputs.shape == (14, 48, 48, 1)
    assert loaded.inputs.dtype == np.uint8
    assert loaded.labels.tolist() == [emotion for emotion, _ in expected]
    assert np.array_equal(loaded.inputs[..., 0], [face for _, face in expected])
    assert loaded.classes == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
    assert loaded.source == f"FER2013, {USAGES[split]} images, a copy other than the official release"


@pytest.mark.parametrize("split", USAGES)
def test_folders_hold_the_same_images_as_the_csv(tmp_path, split):
    (tmp_path / "other").mkdir()
    write_fer_csv(tmp_path)
    write_fer_folders(tmp_path / "other")
    folders = load_fer2013(split, root=tmp_path / "other")
    assert multiset(folders) == multiset(load_fer2013(split, root=tmp_path))
    assert folders.source == f"FER2013, {USAGES[split]} images, a copy other than the official release"


def test_pixels_may_be_quoted_and_spaced(tmp_path):
    emotion, face, usage = fer_rows()[0]
    row = f'{emotion}," {"  ".join(map(str, face.ravel()))}  ",{usage}'
    write_fer_csv(tmp_path, [row])
    split = next(split for split, name in USAGES.items() if name == usage)
    assert np.array_equal(load_fer2013(split, root=tmp_path).inputs[0, ..., 0], face)


FACE = np.full((48, 48), 7)
PIXELS = " ".join(["7"] * 2304)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (f"3,{PIXELS[:-2]},Training", "expected 2304 pixels, got 2303"),
        (f"3,{PIXELS} 7,Training", "expected 2304 pixels, got 2305"),
        ("3,,Training", "expected 2304 pixels, got 0"),
        (f"3,{PIXELS}", "expected 3 cells, got 2"),
        ("3", "expected 3 cells, got 1"),
        (f"7,{PIXELS},Training", "expected an emotion 0..6, got '7'"),
        (f"-1,{PIXELS},Training", "expected an emotion 0..6, got '-1'"),
        (f"happy,{PIXELS},Training", "expected an emotion 0..6, got 'happy'"),
        (f",{PIXELS},Training", "expected an emotion 0..6, got ''"),
        (f"3,x{PIXELS[1:]},Training", "expected pixels 0..255, got 'x'"),
        (f"3,nan{PIXELS[1:]},Training", "expected pixels 0..255, got 'nan'"),
        (f"3,-7{PIXELS[1:]},Training", "expected pixels 0..255, got '-7'"),
        (f"3,7.0{PIXELS[1:]},Training", "expected pixels 0..255, got '7.0'"),
        (f"3,256{PIXELS[1:]},Training", "expected pixels 0..255, got '256'"),
        (f"3,99999999999{PIXELS[1:]},Training", "expected pixels 0..255, got '99999999999'"),
        (f"3,{PIXELS},Testing", "expected Usage Training, PublicTest, PrivateTest, got 'Testing'"),
    ],
)
def test_a_bad_row_is_named(tmp_path, row, words):
    good = fer_line(0, FACE, "Training")
    write_fer_csv(tmp_path, [good, good, row, good])
    message = refusal(tmp_path)
    assert f"fer2013.csv, row 4: {words}; " in message


def test_a_truncated_csv_is_named(tmp_path):
    path = write_fer_csv(tmp_path)
    path.write_bytes(path.read_bytes()[:-3000])
    assert "fer2013.csv, row 43: expected 3 cells, got 2" in refusal(tmp_path)


def test_an_empty_csv_or_one_without_its_header_is_named(tmp_path):
    write_fer_csv(tmp_path, [])
    assert "fer2013.csv holds no images" in refusal(tmp_path)
    (tmp_path / "fer2013.csv").write_text("")
    assert "expected the columns emotion, pixels, Usage, got ''" in refusal(tmp_path)
    (tmp_path / "fer2013.csv").write_text(fer_line(0, FACE, "Training"))
    assert "expected the columns emotion, pixels, Usage, got '0,7 7" in refusal(tmp_path)


def test_an_empty_split_is_named(tmp_path):
    write_fer_csv(tmp_path, [fer_line(0, FACE, "Training")])
    with pytest.raises(FileNotFoundError, match=r"fer2013\.csv holds no 'private' images, only train images"):
        load_fer2013("private", root=tmp_path)
    assert len(load_fer2013("train", root=tmp_path)) == 1


@pytest.mark.parametrize(
    ("stray", "words"),
    [
        ("train/happy/notes.txt", "expected only images in <emotion>/ here; move it out of fer2013/"),
        ("train/notes.txt", "expected only images"),
        ("test/bored/PublicTest_1.png", "expected only images"),
        ("test/happy/face.png", "expected a file name that starts with PublicTest_ or PrivateTest_ in test/; re"),
        ("test/happy/Training_9.png", "expected a file name that starts with PublicTest_ or PrivateTest_"),
        ("train/happy/Training_9.png", "damaged image (not a PNG or JPEG); replace it"),
    ],
)
def test_a_stray_file_is_named(tmp_path, stray, words):
    path = write_fer_folders(tmp_path) / stray
    path.parent.mkdir(exist_ok=True)
    path.write_text("remember the milk")
    message = refusal(tmp_path)
    assert f"fer2013/{stray}: {words}" in message


def test_hidden_files_are_passed_over(tmp_path):
    (write_fer_folders(tmp_path) / "train" / "happy" / ".DS_Store").write_text("")
    assert len(load_fer2013(root=tmp_path)) == 14


def test_a_truncated_image_and_one_of_another_size_are_named(tmp_path):
    folder = write_fer_folders(tmp_path) / "train" / "sad"
    path = sorted(folder.iterdir())[0]
    whole = path.read_bytes()
    for length in (len(whole) // 2, 40, 20, 0):
        path.write_bytes(whole[:length])
        assert f"{path.name}: damaged image (" in refusal(tmp_path)
    Image.fromarray(np.zeros((48, 47), np.uint8)).save(path)
    assert f"{path.name}: expected 48x48 pixels, got 47x48" in refusal(tmp_path)


def test_colour_images_are_read_as_grey(tmp_path):
    path = sorted((write_fer_folders(tmp_path) / "train" / "sad").iterdir())[0]
    grey = Image.open(path).copy()
    grey.convert("RGB").save(path)
    assert np.asarray(grey).tobytes() in [face for _, face in multiset(load_fer2013(root=tmp_path))]


def test_folders_without_images_are_refused(tmp_path):
    (tmp_path / "fer2013" / "train" / "happy").mkdir(parents=True)
    assert "fer2013 holds no images" in refusal(tmp_path)


def test_absent_data_and_other_splits_are_explained(tmp_path):
    message = refusal(tmp_path, FileNotFoundError)
    for part in (str(tmp_path), "fer2013.csv", "icml_face_data.csv", "fer2013/{train,test}/<emotion>/", "NNLIB_DATA"):
        assert part in message
    assert "'train', 'test' or 'private', got 'valid'" in refusal(tmp_path, split="valid")


def test_verify_names_every_bad_row_and_image(tmp_path):
    good = fer_line(0, FACE, "Training")
    write_fer_csv(tmp_path, [good, "9,1,x", good, "1,2"])
    stray = write_fer_folders(tmp_path) / "train" / "notes.txt"
    stray.write_text("")
    defects = verify(tmp_path).defects
    for part in ("row 3: ", "row 5: ", "notes.txt: "):
        assert sum(part in defect for defect in defects) == 1


def test_the_real_faces(real_data):
    train, test = load_fer2013(root=real_data), load_fer2013("test", root=real_data)
    assert train.inputs.shape == (28_709, 48, 48, 1)
    assert test.inputs.shape == (3_589, 48, 48, 1)
    assert np.bincount(train.labels).tolist() == [3995, 436, 4097, 7215, 4830, 3171, 4965]
    assert test.source.startswith("FER2013, PublicTest images, ")


@pytest.mark.slow
def test_the_real_folders_hold_the_same_images_as_the_csv(real_data, tmp_path):
    for layout in ("csv", "folders"):
        (tmp_path / layout).mkdir()
    (tmp_path / "csv" / "fer2013.csv").symlink_to(real_data / "fer2013.csv")
    (tmp_path / "folders" / "fer2013").symlink_to(real_data / "fer2013")
    for split in ("train", "test"):
        csv, folders = (load_fer2013(split, root=tmp_path / layout) for layout in ("csv", "folders"))
        assert multiset(csv) == multiset(folders)
