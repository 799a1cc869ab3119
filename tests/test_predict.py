"""Folders of pictures through saved networks: what comes out, and what is told of files that are no pictures."""

import csv
import io
import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import nnlib
from nnlib import checkpoint, cli, predict
from nnlib.models import mlp
from nnlib.predict import Preprocessing, read_picture

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
SHAPE = (48, 48, 1)
PLAIN = Preprocessing()


def random_network(shape=SHAPE, classes=7):
    rng = np.random.default_rng(3)
    network = mlp(shape, (12,), classes, rng=rng)
    network.fit_normalization(rng.integers(0, 256, (50, *shape), dtype=np.uint8))
    network.parameters["fc.weight"][...] = rng.normal(0, 1, network.parameters["fc.weight"].shape)
    return network


@pytest.fixture
def model(tmp_path):
    """The path of a saved network with seven named classes."""
    path = tmp_path / "net.safetensors"
    random_network().save(path, metadata=predict.metadata(PLAIN, CLASSES))
    return path


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "pictures"
    place.mkdir()
    return place


def faces(count=1, shape=(48, 48), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def smooth(size, mode="L"):
    """A picture without hard edges, which a lossy format keeps nearly."""
    small = np.random.default_rng(1).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode)


def header_only_png(path, width, height, *, chunks=b""):
    """Write a one-bit black PNG; a row of zeros takes next to no room."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    squeeze = zlib.compressobj(1)
    row = bytes(1 + (width + 7) // 8)
    data = b"".join(squeeze.compress(row) for _ in range(height)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def run(capsys, *arguments):
    """Return the status, the rows of the CSV and the lines on standard error."""
    status = cli.main(["predict", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, list(csv.DictReader(io.StringIO(captured.out))), captured.err.splitlines()


# ---- what comes out ------------------------------------------------------------------------------------------------


def test_grey_pictures_of_the_right_size_reach_the_network_untouched(folder, model):
    images = faces(12)
    for number, image in enumerate(images):
        suffix = ("png", "bmp", "webp", "PNG")[number % 4]
        Image.fromarray(image).save(folder / f"{number:02}.{suffix}", lossless=True)
    network = nnlib.load(model)
    classes = nnlib.predict_folder(folder, model)
    assert classes.dtype == np.int64
    np.testing.assert_array_equal(classes, network.predict(images[..., None]))
    assert len(set(classes)) > 2
    probabilities = network.predict_proba(images[..., None])
    for row, given in zip(predict.predictions(folder, network), probabilities, strict=True):
        assert (row.number, row.label, row.error) == (given.argmax(), CLASSES[given.argmax()], "")
        assert row.probability == pytest.approx(given.max(), rel=1e-5)


def test_more_pictures_than_a_batch_keep_their_order(folder, model, monkeypatch):
    monkeypatch.setattr(predict, "EVALUATION_BATCH", 4)
    images = faces(11)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:02}.png")
    (folder / "04.png").write_bytes(b"text")
    wanted = nnlib.load(model).predict(images[..., None])
    wanted[4] = -1
    np.testing.assert_array_equal(nnlib.predict_folder(folder, model), wanted)


def test_the_order_is_that_of_the_names(folder, model):
    names = ["b.png", "B.JPG", "a 10.png", "a 9.webp", "ä.bmp", "z\nz.jpeg", "Z.png"]
    for name in names:
        smooth((48, 48)).save(folder / name)
    assert [row.file for row in predict.predictions(folder, model)] == sorted(names)


def test_half_precision_predicts_in_single(folder, tmp_path):
    network = random_network()
    network.save(tmp_path / "half.safetensors", dtype=np.float16)
    for number, image in enumerate(faces(5)):
        Image.fromarray(image).save(folder / f"{number}.png")
    classifier = predict.Classifier(tmp_path / "half.safetensors")
    assert classifier.network.vector.dtype == np.float32
    exact = network.predict_proba(faces(5)[..., None])
    np.testing.assert_allclose(classifier.probabilities(faces(5)[..., None]), exact, atol=0.02)


def test_the_mirror_image_counts_where_the_metadata_says_so(folder, tmp_path):
    image = faces()[0]
    Image.fromarray(image).save(folder / "a.png")
    network = random_network()
    rows = {}
    for mirrored in (False, True):
        path = tmp_path / f"{mirrored}.safetensors"
        network.save(path, metadata=predict.metadata(Preprocessing(mirrored=mirrored), CLASSES))
        (rows[mirrored],) = predict.predictions(folder, path)
    both = network.predict_proba(np.stack([image, image[:, ::-1]])[..., None])
    assert rows[False].probability == pytest.approx(both[0].max(), rel=1e-5)
    assert rows[True].probability == pytest.approx(both.mean(axis=0).max(), rel=1e-5)
    assert abs(rows[True].probability - rows[False].probability) > 1e-3


def test_a_network_saved_without_metadata_gets_the_defaults_and_numbers(folder, tmp_path):
    Image.fromarray(faces()[0]).save(folder / "a.png")
    random_network().save(tmp_path / "net.safetensors")
    assert predict.Classifier(tmp_path / "net.safetensors").preprocessing == Preprocessing()
    (row,) = predict.predictions(folder, tmp_path / "net.safetensors")
    assert row.label == str(row.number)


def test_a_colour_network_gets_colours(folder, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    Image.fromarray(pixels[..., 0]).save(folder / "b.png")
    network = random_network((32, 32, 3), 10)
    grey = np.repeat(pixels[..., :1], 3, axis=2)
    wanted = network.predict(np.stack([pixels, grey]))
    np.testing.assert_array_equal(nnlib.predict_folder(folder, network), wanted)


# ---- how pictures are prepared -------------------------------------------------------------------------------------


def test_colour_becomes_luma(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read_picture(tmp_path / "a.png", SHAPE, PLAIN)[..., 0] - luma).max() <= 0.51


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.jpg", "L"), ("a.jpg", "RGB"), ("a.jpg", "CMYK"), ("a.webp", "RGB"), ("a.bmp", "RGB"), ("a.png", "RGBA"),
     ("a.png", "LA"), ("a.bmp", "P"), ("a.png", "P"), ("a.png", "1"), ("a.bmp", "1")],
)  # fmt: skip
def test_every_format_and_mode_is_read(tmp_path, name, mode):
    picture = smooth((48, 48)).convert("RGB").convert(mode)
    picture.save(tmp_path / name)
    wanted = np.asarray(picture.convert("RGB").convert("L")).astype(int)
    found = read_picture(tmp_path / name, SHAPE, PLAIN)
    assert found.shape == SHAPE
    assert found.dtype == np.uint8
    assert np.abs(found[..., 0] - wanted).mean() < (4 if name.endswith(("jpg", "webp")) else 0.6)


def test_sixteen_bits_keep_the_upper_eight(tmp_path):
    image = faces()[0]
    Image.fromarray(image.astype(np.uint16) * 257).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", SHAPE, PLAIN)[..., 0], image)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
def test_what_is_transparent_shows_the_background(tmp_path, mode):
    picture = Image.new("RGBA", (48, 48), (0, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 24, 48))
    options = {}
    if mode == "P":
        picture, options = Image.new("P", (48, 48), 1), {"transparency": bytes([0, 255])}
        picture.putpalette([0, 0, 0, 0, 0, 0])
        picture.paste(0, (0, 0, 24, 48))
    elif mode == "L":
        picture, options = Image.new("L", (48, 48), 0), {"transparency": 9}
        picture.paste(9, (0, 0, 24, 48))
    else:
        picture = picture.convert(mode)
    picture.save(tmp_path / "a.png", **options)
    for background in (255, 100):
        found = read_picture(tmp_path / "a.png", SHAPE, Preprocessing(background=background))
        assert (found[:, :24] == background).all()
        assert (found[:, 24:] == 0).all()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(tmp_path, orientation, suffix):
    upright = smooth((48, 48))
    turned = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90",
              7: "TRANSVERSE", 8: "ROTATE_270"}  # fmt: skip
    stored = upright.transpose(Image.Transpose[turned[orientation]]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"a.{suffix}", exif=exif, quality=95)
    found = read_picture(tmp_path / f"a.{suffix}", SHAPE, PLAIN)[..., 0].astype(int)
    assert np.abs(found - np.asarray(upright)).mean() < 3


def test_the_centre_is_cut_out_in_the_networks_proportions(tmp_path):
    image = np.zeros((48, 96), dtype=np.uint8)
    image[:, 24:72] = faces()[0]
    Image.fromarray(image).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", SHAPE, PLAIN)[..., 0], image[:, 24:72])
    assert read_picture(tmp_path / "a.png", (24, 48, 1), PLAIN).shape == (24, 48, 1)
    squashed = read_picture(tmp_path / "a.png", SHAPE, Preprocessing(crop=False))[..., 0]
    assert squashed[:, :11].max() == 0  # the black margins are still there, half as wide


@pytest.mark.parametrize("resample", ["box", "bilinear", "bicubic", "lanczos"])
def test_shrinking_does_not_alias(tmp_path, resample):
    board = np.indices((480, 480)).sum(axis=0) % 2 * 255
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "a.png")
    found = read_picture(tmp_path / "a.png", SHAPE, Preprocessing(resample=resample))
    assert np.abs(found.astype(float) - 127.5).max() < 8
    noise = Image.fromarray(faces(1, (100, 70))[0])
    noise.save(tmp_path / "b.png")
    wanted = np.asarray(ImageOps.fit(noise, (48, 48), Image.Resampling[resample.upper()]))
    found = read_picture(tmp_path / "b.png", SHAPE, Preprocessing(resample=resample))
    np.testing.assert_array_equal(found[..., 0], wanted)


@pytest.mark.parametrize("size", [(8, 8), (47, 48), (31, 9), (640, 480)])
def test_other_sizes_are_brought_to_the_networks(tmp_path, size):
    smooth(size, "RGB").save(tmp_path / "a.jpg")
    assert read_picture(tmp_path / "a.jpg", SHAPE, PLAIN).shape == SHAPE


def test_a_jpeg_of_several_views_gives_the_first(tmp_path):
    first, second = smooth((48, 48)), Image.new("L", (48, 48))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second], quality=95)
    found = read_picture(tmp_path / "a.jpg", SHAPE, PLAIN)[..., 0].astype(int)
    assert np.abs(found - np.asarray(first)).mean() < 3


# ---- files that give no picture ------------------------------------------------------------------------------------


def unreadable_files(folder):
    """Write a file of each kind of trouble; return what is to be said of it, by name."""
    (folder / "text.png").write_text("not a picture")
    (folder / "empty.jpg").touch()
    smooth((48, 48)).save(folder / "other.png", format="GIF")
    Image.new("L", (1, 1)).save(folder / "dot.png")
    Image.new("L", (7, 300)).save(folder / "thin.bmp")
    frames = [smooth((48, 48), "RGB"), Image.new("RGB", (48, 48))]
    for suffix in ("png", "webp"):
        frames[0].save(folder / f"moving.{suffix}", save_all=True, append_images=frames[1:])
    for suffix in ("jpg", "png", "bmp", "webp"):
        Image.fromarray(faces()[0]).save(folder / f"cut.{suffix}")
        content = (folder / f"cut.{suffix}").read_bytes()
        (folder / f"cut.{suffix}").write_bytes(content[: len(content) // 2])
    header_only_png(folder / "huge.png", 20_000, 20_000)
    header_only_png(folder / "large.png", 12_000, 8_000)  # more than Pillow warns of, less than it refuses
    (folder / "nowhere.png").symlink_to(folder / "missing.png")
    os.mkfifo(folder / "pipe.png")
    with (folder / "long.bmp").open("wb") as handle:
        handle.truncate(predict.LARGEST_FILE + 1)
    return {
        "text.png": "no JPEG, PNG, BMP or WebP picture",
        "empty.jpg": "no JPEG, PNG, BMP or WebP picture",
        "other.png": "no JPEG, PNG, BMP or WebP picture",
        "dot.png": "1x1 pixels show too little; expected at least 8x8",
        "thin.bmp": "7x300 pixels",
        "moving.png": "animated",
        "moving.webp": "animated",
        "cut.jpg": "damaged picture (image file is truncated",
        "cut.png": "damaged picture (image file is truncated",
        "cut.bmp": "damaged picture (image file is truncated",
        "cut.webp": "damaged picture (",
        "huge.png": "at most 64,000,000 pixels",
        "large.png": "at most 64,000,000 pixels, and it has 12,000 x 8,000",
        "nowhere.png": "no such file",
        "pipe.png": "not a regular file",
        "long.bmp": "300,000,001 bytes",
    }


@pytest.mark.filterwarnings("error")
def test_unreadable_files_are_in_the_csv_and_on_standard_error(folder, model, capsys):
    expected = unreadable_files(folder)
    Image.fromarray(faces()[0]).save(folder / "good.png")
    status, rows, errors = run(capsys, folder, "--model", model)
    assert status == 0
    assert [row["file"] for row in rows] == sorted([*expected, "good.png"])
    assert list(rows[0]) == ["file", "class", "label", "probability", "error"]
    *lines, summary = errors
    assert len(lines) == len(expected)
    assert summary == f"nnlib: {len(expected)} of {len(rows)} pictures could not be read; their class is -1"
    for row in rows:
        if row["file"] == "good.png":
            best = nnlib.load(model).predict_proba(faces()[..., None])[0]
            assert row["class"] == str(best.argmax())
            assert row["label"] == CLASSES[best.argmax()]
            assert float(row["probability"]) == pytest.approx(best.max(), abs=1e-6)
            assert row["error"] == ""
            continue
        assert (row["class"], row["label"], row["probability"]) == ("-1", "", "")
        assert expected[row["file"]] in row["error"]
        assert f"nnlib: {row['file']}: {row['error']}" in lines


LOOK = """
import resource, sys, warnings
from PIL import Image
from nnlib.predict import Preprocessing, Unreadable, read_picture
Image.init()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
for path in sys.argv[1:]:
    try:
        read_picture(path, (48, 48, 1), Preprocessing())
    except Unreadable as error:
        print(error)
print(peak() - before)
"""


def test_a_huge_picture_takes_no_memory(tmp_path):
    header_only_png(tmp_path / "huge.png", 20_000, 20_000)  # 400 MB, decoded
    header_only_png(tmp_path / "large.png", 12_000, 8_000)
    paths = [tmp_path / "huge.png", tmp_path / "large.png"]
    result = subprocess.run([sys.executable, "-c", LOOK, *paths], capture_output=True, text=True, timeout=60)
    *refused, megabytes = result.stdout.splitlines()
    assert len(refused) == 2, result.stderr
    assert all("too large" in line for line in refused)
    assert int(megabytes) < 40


def test_status_is_one_where_nothing_could_be_read(folder, model, capsys):
    (folder / "a.png").write_text("text")
    Image.new("L", (1, 1)).save(folder / "b.png")
    status, rows, errors = run(capsys, folder, "--model", model)
    assert status == 1
    assert [row["class"] for row in rows] == ["-1", "-1"]
    assert errors[-1] == "nnlib: 2 of 2 pictures could not be read; their class is -1"
    np.testing.assert_array_equal(nnlib.predict_folder(folder, model), [-1, -1])


def test_odd_names_are_one_line_each_and_survive_the_csv(folder, model, capsys):
    names = ["plain.png", "two words, a comma.png", 'quo"te.png', "line\nend.png", "\x1b[31mred.png", "ümläut 😀.png"]
    for name in names:
        (folder / name).write_text("text")
    (folder / os.fsdecode(b"bytes\xff.png")).write_text("text")
    (folder / "return\rreturn.png").write_text("text")
    _, rows, errors = run(capsys, folder, "--model", model)
    assert {row["file"] for row in rows} == {*names, "bytes\\xff.png", "return\\rreturn.png"}
    assert len(errors) == len(names) + 3
    assert any(line.startswith(r"nnlib: 'line\nend.png': ") for line in errors)
    assert "\x1b" not in "".join(errors)


def test_other_files_and_folders_are_counted(folder, model, capsys):
    Image.fromarray(faces()[0]).save(folder / "a.png")
    Image.fromarray(faces()[0]).save(folder / ".hidden.png")
    (folder / "notes.txt").touch()
    (folder / "inner.png").mkdir()
    status, rows, errors = run(capsys, folder, "--model", model)
    assert (status, len(rows)) == (0, 1)
    assert errors == ["nnlib: 2 other or hidden files and 1 folder inside were passed over"]


# ---- the command ---------------------------------------------------------------------------------------------------


def test_out_holds_the_same_as_standard_output(folder, model, tmp_path, capsys):
    Image.fromarray(faces()[0]).save(folder / "ä.png")
    assert cli.main(["predict", str(folder), "--model", str(model)]) == 0
    printed = capsys.readouterr().out
    out = tmp_path / "deep" / "out.csv"
    assert cli.main(["predict", str(folder), "--model", str(model), "--out", str(out)]) == 0
    assert capsys.readouterr() == ("", "")
    assert out.read_text(encoding="utf-8") == printed
    assert list(out.parent.iterdir()) == [out]


def test_an_out_that_cannot_be_written_is_told_before_the_work(folder, model, tmp_path, capsys, monkeypatch):
    Image.fromarray(faces()[0]).save(folder / "a.png")
    (tmp_path / "file").touch()
    monkeypatch.setattr(predict, "predictions", lambda *_: pytest.fail("the work was begun"))
    for out in (tmp_path / "file" / "out.csv", folder, "/dev/null"):
        status, _, (line,) = run(capsys, folder, "--model", model, "--out", out)
        assert status == 1
        assert f"could not save {out}" in line


def test_a_failed_run_leaves_the_old_csv(folder, model, tmp_path, capsys):
    out = tmp_path / "out.csv"
    out.write_text("old")
    assert run(capsys, folder, "--model", model, "--out", out)[0] == 1  # the folder is empty
    assert out.read_text() == "old"


def test_an_interruption_is_one_line(folder, model, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    Image.fromarray(faces()[0]).save(folder / "a.png")
    monkeypatch.setattr(predict, "read_picture", interrupted)
    status, _, (line,) = run(capsys, folder, "--model", model)
    assert (status, line) == (1, "nnlib: predict: interrupted; nothing was written")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a folder of pictures, found nothing"),
        ("file", "expected a folder of pictures, got a file"),
        ([], "no picture in it (.jpg, .jpeg, .png, .bmp, .webp); 0 other or hidden files and 0 folders"),
        (["a.txt", "b.csv"], "no picture in it (.jpg, .jpeg, .png, .bmp, .webp); 2 other or hidden files"),
    ],
)
def test_a_folder_without_pictures_is_one_line(tmp_path, model, content, message, capsys):
    place = tmp_path / "place"
    if content == "file":
        place.touch()
    elif content is not None:
        place.mkdir()
        for name in content:
            (place / name).write_text("text")
    status, _, (line,) = run(capsys, place, "--model", model)
    assert status == 1
    assert message in line


# ---- the network ---------------------------------------------------------------------------------------------------


def saved(path, **metadata):
    random_network().save(path, metadata=metadata)


def another_layout(path):
    tensors, metadata = checkpoint.read(path)
    metadata["nnlib_network"] = json.dumps({"layers": {"kind": "Transformer"}, "input_shape": [48, 48, 1]})
    checkpoint.write(path, tensors, metadata)


def other_tensors(path):
    tensors, metadata = checkpoint.read(path)
    checkpoint.write(path, {**tensors, "fc.weight": np.zeros((99, 7), dtype=np.float32)}, metadata)


def not_a_number(path):
    network = random_network()
    network.vector[...] = np.nan
    network.save(path)


def bfloat16(path):
    header = b'{"fc.bias":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "no network"),
        (lambda path: path.write_text("plain text, and enough of it"), "expected a safetensors file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "expected a safetensors file"),
        (lambda path: checkpoint.write(path, {"w": np.ones(3)}, {}), "expected a network saved by nnlib"),
        (bfloat16, "expected tensors of float16, 32 or 64"),
        (another_layout, "layer kind: expected one of"),
        (other_tensors, "its tensors do not fit the network"),
        (not_a_number, "its probabilities are not finite"),
        (lambda path: random_network((20,)).save(path), "expected inputs that are pictures"),
        (lambda path: random_network((8, 8, 4)).save(path), "expected inputs that are pictures"),
        (lambda path: saved(path, classes="happy"), "expected its classes to be a list in JSON, got 'happy'"),
        (lambda path: saved(path, classes="[1, 2]"), "expected its classes to be names"),
        (lambda path: saved(path, classes='["a", "b"]'), "names 2 classes, its outputs are 7"),
        (lambda path: saved(path, preprocessing="[]"), "expected its preprocessing to be a dict in JSON"),
        (lambda path: saved(path, preprocessing="{"), "expected its preprocessing to be a dict in JSON"),
        (lambda path: saved(path, preprocessing='{"size": 3}'), "unexpected keyword argument 'size'"),
        (lambda path: saved(path, preprocessing='{"mirrored": 1}'), "expected mirrored true or false, got 1"),
        (lambda path: saved(path, preprocessing='{"background": 256}'), "expected background 0 to 255, got 256"),
        (lambda path: saved(path, preprocessing='{"resample": "sinc"}'), "expected resample box, bilinear"),
    ],
)
def test_a_file_that_is_no_fit_network_is_one_line(folder, model, spoil, message, capsys):
    Image.fromarray(faces()[0]).save(folder / "a.png")
    spoil(model)
    status, rows, (line,) = run(capsys, folder, "--model", model)
    assert (status, rows) == (1, [])
    assert message in line
    assert str(model) in line


def test_metadata_comes_back(tmp_path):
    wanted = Preprocessing(background=10, crop=False, resample="lanczos", mirrored=True)
    random_network().save(tmp_path / "net.safetensors", metadata=predict.metadata(wanted, CLASSES))
    classifier = predict.Classifier(tmp_path / "net.safetensors")
    assert classifier.preprocessing == wanted
    assert tuple(classifier.classes) == CLASSES


def test_names_are_looked_up_in_the_checkout(folder, model, tmp_path, monkeypatch, capsys):
    Image.fromarray(faces()[0]).save(folder / "a.png")
    checkout = tmp_path / "checkout"
    (checkout / "nnlib").mkdir(parents=True)
    (checkout / "pyproject.toml").touch()
    monkeypatch.chdir(checkout)
    assert "expected a name (there is none yet) or the path" in run(capsys, folder, "--model", "fer_mlp")[2][0]
    (checkout / "models").mkdir()
    for name in ("fer_mlp", "fer_cnn"):
        (checkout / "models" / f"{name}.safetensors").write_bytes(model.read_bytes())
    np.testing.assert_array_equal(nnlib.predict_folder(folder, "fer_mlp"), nnlib.predict_folder(folder, model))
    assert predict.find_model("models/fer_mlp.safetensors") == Path("models/fer_mlp.safetensors")
    status, _, (line,) = run(capsys, folder, "--model", "fer_mpl")
    assert status == 1
    assert line == "nnlib: no network 'fer_mpl': expected a name (fer_cnn, fer_mlp) or the path of a saved network"
