import io
import os
import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from data_files import (
    BATCHES,
    cifar_binary,
    cifar_pickle,
    cifar_pickle_of_python2,
    cifar_rows,
    pack,
    write_cifar,
)

from nnlib.data import load_cifar10
from nnlib.data.cifar10 import python_batch


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_cifar(tmp_path / "data")
    return tmp_path / "data"


def refusal(root: Path, error: type[Exception] = ValueError, split: str = "train") -> str:
    """The message with which loading fails; it must be one line, and leave no cache behind."""
    with pytest.raises(error) as caught:
        load_cifar10(split, root=root)
    assert "\n" not in str(caught.value)
    assert not list(root.glob(".nnlib-cache/cifar10*"))
    return str(caught.value)


def test_images_are_rows_columns_channels(root):
    split = load_cifar10("test", root=root)
    pixels, labels = cifar_rows()["test_batch"]
    assert split.inputs.shape == (20, 32, 32, 3)
    assert split.inputs.dtype == np.uint8
    for image, row, column, channel in ((0, 0, 0, 0), (3, 5, 7, 1), (19, 31, 30, 2)):
        assert split.inputs[image, row, column, channel] == pixels[image, 1024 * channel + 32 * row + column]
    assert split.labels.tolist() == labels
    assert split.classes[3] == "cat"
    assert split.source == "CIFAR-10, test images, a copy other than the official release"
    assert not split.synthetic


def test_training_images_are_the_five_batches_in_order(root):
    expected = [label for batch in BATCHES[:5] for label in cifar_rows()[batch][1]]
    assert load_cifar10(root=root).labels.tolist() == expected


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_layout_gives_the_same_split(tmp_path, split):
    roots = []
    for layout in ("python", "python2", "binary"):
        folder = write_cifar(tmp_path / layout, layout)
        roots += [tmp_path / layout, pack(folder, tmp_path / f"{layout}_archive").parent]
    assert len({load_cifar10(split, root=root).fingerprint for root in roots}) == 1


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_the_pickles_of_any_python_give_the_same_batch(protocol):
    pixels, labels = cifar_rows()["test_batch"]
    raw = cifar_pickle_of_python2(pixels, labels)
    assert np.array_equal(pickle.loads(raw, encoding="bytes")[b"data"], pixels)
    images, found = python_batch(raw)
    same, same_labels = python_batch(cifar_pickle(pixels, labels, protocol))
    assert np.array_equal(images, same)
    assert found.tolist() == same_labels.tolist() == labels


def test_a_truncated_batch_is_named(root, tmp_path):
    path = root / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(path.read_bytes()[:30_000])
    assert "data_batch_3: not an intact CIFAR-10 pickle" in refusal(root)
    write_cifar(tmp_path, "binary")
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-100])
    assert "test_batch.bin: expected rows of 3073 bytes, got 61360" in refusal(tmp_path)
    path.write_bytes(b"")
    assert "got 0 bytes" in refusal(tmp_path)


@pytest.mark.parametrize("writer", [cifar_pickle, cifar_pickle_of_python2])
def test_any_bit_flipped_outside_the_pixels_is_harmless(writer):
    """Each flip gives a batch or a ValueError of one line: no crash, no other exception, no hoarding of memory."""
    raw = writer(*cifar_rows()["test_batch"])
    messages = []
    for offset in [*range(300), *range(len(raw) - 60, len(raw))]:
        for bit in range(8):
            broken = bytearray(raw)
            broken[offset] ^= 1 << bit
            try:
                python_batch(bytes(broken))
            except ValueError as error:
                messages.append(str(error))
    assert len(messages) > 800
    assert not any("\n" in message for message in messages)


def test_a_flipped_length_is_named(root):
    path = root / "cifar-10-batches-py" / "data_batch_2"
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"batch_label", b"batch\xffabel", 1))
    assert "data_batch_2: not an intact CIFAR-10 pickle" in refusal(root)


def test_a_memo_number_reserves_no_memory():
    with pytest.raises(ValueError, match="memo number 1073741824 is out of range"):
        python_batch(b"\x80\x02}r\x00\x00\x00\x40.")


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("key", [b"labels", b"data", b"extra"])
def test_a_pickle_that_calls_something_is_refused(root, tmp_path, key):
    pixels, labels = cifar_rows()["test_batch"]
    bomb = Call(os.system, f"touch {tmp_path / 'called'}")
    batch = {b"labels": labels, b"data": pixels, key: bomb}
    (root / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))
    assert "system, which is not allowed" in refusal(root)
    assert not (tmp_path / "called").exists()
    pickle.loads(pickle.dumps(bomb, protocol=2))
    assert (tmp_path / "called").exists(), "the bomb of this test must work"


@pytest.mark.parametrize("bomb", [Call(eval, "1"), Call(getattr, "", "join"), Call(np.load, "x"), Call(bytes, 3)])
def test_only_the_four_names_of_these_files_are_known(bomb):
    with pytest.raises(ValueError, match="not allowed"):
        python_batch(pickle.dumps({b"labels": [1], b"data": bomb}, protocol=2))


@pytest.mark.parametrize(
    ("pixels", "labels", "words"),
    [
        (np.zeros((2, 3072), np.uint8), [1, 10], "image 1 has label 10, expected 0..9"),
        (np.zeros((2, 3072), np.uint8), [-1, 1], "image 0 has label -1"),
        (np.zeros((2, 3072), np.uint8), [1.0, 2.0], "opcode BINFLOAT"),
        (np.zeros((2, 3072), np.uint8), [True, None], "expected integer labels"),
        (np.zeros((2, 3072), np.uint8), [1], "got 1 labels for 2 images"),
        (np.zeros((0, 3072), np.uint8), [], "got 0 labels for 0 images"),
        (np.zeros((2, 3071), np.uint8), [1, 2], r"\(N, 3072\), got \(2, 3071\)"),
        (np.full((2, 3072), np.nan, np.float32), [1, 2], "expected an array of uint8"),
        ([1, 2], [1, 2], "an array `data` and a list `labels`"),
    ],
)
def test_a_batch_of_wrong_contents_is_refused(pixels, labels, words):
    with pytest.raises(ValueError, match=words):
        python_batch(cifar_pickle(pixels, labels, protocol=3))


def test_a_missing_batch_is_named(root):
    (root / "cifar-10-batches-py" / "data_batch_4").unlink()
    message = refusal(root, FileNotFoundError, "test")
    assert "cifar-10-batches-py/data_batch_4 missing" in message


def test_absent_data_is_explained(tmp_path):
    message = refusal(tmp_path, FileNotFoundError)
    for part in (str(tmp_path), "cifar-10-batches-py/", "cifar-10-batches-bin/", ".tar.gz", "NNLIB_DATA"):
        assert part in message


def test_another_split_is_refused(root):
    assert "'train' or 'test', got 'validation'" in refusal(root, split="validation")


def add(tar: tarfile.TarFile, name: str, raw: bytes = b"", link: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.size = len(raw)
    if link:
        member.type, member.linkname = tarfile.SYMTYPE, link
    tar.addfile(member, io.BytesIO(raw))


@pytest.mark.parametrize(
    ("name", "link"),
    [("../evil", ""), ("cifar-10-batches-py/../../test_batch", ""), ("cifar-10-batches-py/link", "/etc/passwd")],
)
def test_an_archive_that_leaves_its_folder_is_refused(tmp_path, name, link):
    root = tmp_path / "data"
    root.mkdir()
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as tar:
        for batch, rows in cifar_rows().items():
            add(tar, f"cifar-10-batches-py/{batch}", cifar_pickle(*rows))
        add(tar, name, b"" if link else b"x", link)
    assert "is not safe to read" in refusal(root)
    assert [path.name for path in root.parent.iterdir()] == ["data"]


def test_nothing_is_unpacked_beside_the_cache(root, tmp_path):
    archive = pack(root / "cifar-10-batches-py", tmp_path / "packed")
    load_cifar10(root=archive.parent)
    assert sorted(path.name for path in archive.parent.iterdir()) == [".nnlib-cache", archive.name]


def test_a_broken_archive_is_named(root, tmp_path):
    archive = pack(root / "cifar-10-batches-py", tmp_path / "packed")
    raw = archive.read_bytes()
    wrong_sum = raw[:-8] + bytes([raw[-8] ^ 1]) + raw[-7:]
    for broken in (raw[: len(raw) // 2], raw[:-4], wrong_sum, b"", b"not an archive at all"):
        archive.write_bytes(broken)
        assert "cifar-10-python.tar.gz is truncated or damaged" in refusal(archive.parent)
    archive.write_bytes(raw[:1000] + b"\x00" * 5000 + raw[6000:])
    assert "cifar-10-python.tar.gz/data_batch_1: not an intact CIFAR-10 pickle" in refusal(archive.parent)
    (root / "cifar-10-batches-py" / "data_batch_5").unlink()
    pack(root / "cifar-10-batches-py", tmp_path / "packed")
    assert "cifar-10-python.tar.gz lacks data_batch_5" in refusal(archive.parent)


def test_the_real_images(real_data):
    train, test = load_cifar10(root=real_data), load_cifar10("test", root=real_data)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert train.inputs.shape == (50_000, 32, 32, 3)
    assert train.source.startswith("CIFAR-10, training images, ")


SECOND_LOAD = """
import sys, time
from nnlib.data import load_cifar10
start = time.perf_counter()
split = load_cifar10(root=sys.argv[1])
print(len(split), time.perf_counter() - start)
"""


def test_the_second_load_of_the_real_images_takes_less_than_a_second(real_data):
    load_cifar10(root=real_data)
    run = subprocess.run([sys.executable, "-c", SECOND_LOAD, real_data], capture_output=True, text=True, check=True)
    count, seconds = run.stdout.split()
    assert int(count) == 50_000
    assert float(seconds) < 1


@pytest.mark.slow
def test_the_real_images_are_the_same_in_the_binary_layout(real_data, tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    train, test = load_cifar10(root=real_data), load_cifar10("test", root=real_data)
    parts = [train[start : start + 10_000] for start in range(0, 50_000, 10_000)]
    for batch, part in zip(BATCHES, [*parts, test], strict=True):
        planes = part.inputs.transpose(0, 3, 1, 2).reshape(len(part), -1)
        (folder / f"{batch}.bin").write_bytes(cifar_binary(planes, part.labels.tolist()))
    assert load_cifar10(root=tmp_path).fingerprint == train.fingerprint
    assert load_cifar10("test", root=tmp_path).fingerprint == test.fingerprint
