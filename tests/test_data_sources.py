import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from data_files import cifar_rows, flip, pack, write_cifar, write_fer_csv, write_fer_folders

from nnlib.data import cifar10, load, load_cifar10, load_fer2013
from nnlib.data.cache import intact
from nnlib.data.sources import checkout_root, data_root, status, verify


@pytest.fixture
def root(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    write_cifar(tmp_path / "data")
    return tmp_path / "data"


def arrays(root: Path) -> Path:
    """The one folder of cached CIFAR-10 arrays under the root."""
    (folder,) = root.glob(".nnlib-cache/cifar10-python-*")
    return folder


def cached_names(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob(".nnlib-cache/*"))


# Where the data lie


def test_the_root_is_the_explicit_one_then_the_variable_then_data_here_then_in_the_checkout(tmp_path, monkeypatch):
    checkout = tmp_path / "checkout"
    inner = checkout / "notebooks"
    for folder in (tmp_path / "explicit", tmp_path / "variable", inner / "data", checkout / "data", checkout / "nnlib"):
        folder.mkdir(parents=True)
    (checkout / "pyproject.toml").write_text("")
    monkeypatch.chdir(inner)
    monkeypatch.setenv("NNLIB_DATA", str(tmp_path / "variable"))
    assert data_root(tmp_path / "explicit") == tmp_path / "explicit"
    assert data_root() == tmp_path / "variable"
    monkeypatch.delenv("NNLIB_DATA")
    assert data_root() == inner / "data"
    (inner / "data").rmdir()
    assert data_root() == checkout / "data"
    assert checkout_root() == checkout


def test_a_root_that_does_not_exist_is_explained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("NNLIB_DATA", str(tmp_path / "gone"))
    for call in (data_root, load_cifar10, load_fer2013, status, verify):
        with pytest.raises(FileNotFoundError, match="NNLIB_DATA") as caught:
            call()
        message = str(caught.value)
        assert "\n" not in message
        for part in (str(tmp_path / "gone"), "cifar-10-batches-py/", "fer2013.csv"):
            assert part in message
    monkeypatch.delenv("NNLIB_DATA")
    (tmp_path / "data").rmdir()
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "data")):
        data_root()
    assert checkout_root() is None


def test_an_empty_root_is_explained(tmp_path):
    for call in (status, verify):
        with pytest.raises(FileNotFoundError, match=r"no data set in .*cifar-10-batches-py/.*fer2013\.csv.*NNLIB_DATA"):
            call(tmp_path)


# The cache


def test_the_second_load_reads_no_batch_and_gives_the_same(root, monkeypatch):
    first = load_cifar10(root=root)
    monkeypatch.setattr("nnlib.data.cifar10.python_batch", lambda _: pytest.fail("decoded again"))
    second = load_cifar10(root=root)
    assert second.fingerprint == first.fingerprint
    assert isinstance(second.inputs.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        second.inputs[0] = 0


def test_a_touched_file_is_checked_but_not_decoded_again(root, monkeypatch):
    load_cifar10(root=root)
    monkeypatch.setattr("nnlib.data.cifar10.python_batch", lambda _: pytest.fail("decoded again"))
    path = root / "cifar-10-batches-py" / "test_batch"
    os.utime(path, (1, 1))
    load_cifar10(root=root)
    assert status(root)[0].state == "ready"


def test_changed_files_are_read_again_and_the_old_arrays_removed(root):
    before = load_cifar10("test", root=root)
    shutil.rmtree(root / "cifar-10-batches-py")
    write_cifar(root, rows=cifar_rows(seed=1))
    after = load_cifar10("test", root=root)
    assert after.labels.tolist() == cifar_rows(seed=1)["test_batch"][1]
    assert before.labels.tolist() == cifar_rows()["test_batch"][1], "a live split keeps its arrays"
    assert before.inputs.shape == after.inputs.shape
    arrays(root)


@pytest.mark.parametrize("name", ["train.images.npy", "train.labels.npy", "contents.json"])
@pytest.mark.parametrize("harm", ["flip", "truncate", "empty", "remove"])
def test_a_corrupt_cache_is_built_again(root, name, harm):
    fingerprint = load_cifar10(root=root).fingerprint
    path = arrays(root) / name
    if harm == "flip":
        flip(path, path.stat().st_size // 2, bit=5)
    elif harm == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 if harm == "truncate" else 0])
    assert load_cifar10(root=root).fingerprint == fingerprint
    assert intact(arrays(root))


def test_any_flip_in_the_list_of_contents_is_noticed(root):
    load_cifar10(root=root)
    path = arrays(root) / "contents.json"
    whole = path.read_bytes()
    for offset in range(len(whole)):
        flip(path, offset)
        assert not intact(arrays(root)) or json.loads(path.read_bytes()) == json.loads(whole)
        path.write_bytes(whole)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"cifar-10-batches-py/test_batch": [1, 2]}'])
def test_a_corrupt_manifest_is_written_again(root, text):
    fingerprint = load_cifar10(root=root).fingerprint
    manifest = root / ".nnlib-cache" / "cifar10-python.json"
    whole = manifest.read_text()
    manifest.write_text(text)
    assert load_cifar10(root=root).fingerprint == fingerprint
    assert json.loads(manifest.read_text()) == json.loads(whole)


def test_what_a_killed_writer_left_is_ignored_and_later_removed(root):
    old, new = (root / ".nnlib-cache" / f"cifar10-python.partial-{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "train.images.npy").write_bytes(b"half")
    os.utime(old, (1, 1))
    load_cifar10(root=root)
    assert not old.exists()
    assert new.exists(), "its writer may still be at work"


LOAD = "import sys; from nnlib.data import load_cifar10; print(load_cifar10(root=sys.argv[1]).fingerprint)"


def test_processes_may_load_at_the_same_time(root):
    command = [sys.executable, "-c", LOAD, str(root)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = {run.communicate()[0].strip() for run in runs}
    assert printed == {load_cifar10(root=root).fingerprint}
    assert cached_names(root) == [arrays(root).name, "cifar10-python.json"]


FULL_DISK = """
import resource, sys
from nnlib.data import load_cifar10
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    load_cifar10(root=sys.argv[1])
except OSError as error:
    print(error)
"""


def test_a_full_disk_leaves_no_half_cache(root):
    """The kernel refuses to write beyond 100 kB a file, as a full disk does."""
    command = [sys.executable, "-c", FULL_DISK, str(root)]
    (line,) = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "the cache of cifar-10-batches-py (0 MiB) could not be written in" in line
    assert "free some space" in line
    assert cached_names(root) == []
    assert len(load_cifar10(root=root)) == 100


@contextmanager
def unprivileged():
    """Write permissions do not hold for root, so become nobody for a while."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_the_cache_of_a_read_only_root_is_the_users(root, monkeypatch):
    load_cifar10(root=root)  # NumPy imports mmap at its first use, and nobody may not read every Python
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cifar(folder / "data")
        (folder / "user").mkdir()
        for path, mode in ((folder, 0o755), (folder / "user", 0o777), (folder / "data", 0o555)):
            path.chmod(mode)
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "user"))
        with unprivileged():
            fingerprint = load_cifar10(root=folder / "data").fingerprint
            monkeypatch.setattr("nnlib.data.cifar10.python_batch", lambda _: pytest.fail("decoded again"))
            assert load_cifar10(root=folder / "data").fingerprint == fingerprint
        assert not (folder / "data" / ".nnlib-cache").exists()
        assert len(list((folder / "user" / "nnlib").glob("*/cifar10-python-*"))) == 1
        (folder / "data").chmod(0o755)


def test_without_any_writable_folder_the_error_names_both(root, tmp_path):
    (root / ".nnlib-cache").write_text("a file in the way")
    load_cifar10(root=root)
    shutil.rmtree(tmp_path / "user")
    (tmp_path / "user").write_text("a file in the way")
    with pytest.raises(OSError, match=r"no folder for the cache of cifar-10-batches-py \(.*data.*user.*\); make one"):
        load_cifar10(root=root)


# What is there, and whether it is whole


def test_status_tells_what_is_read_changed_and_incomplete(root):
    write_fer_csv(root)
    unread = status(root)
    assert [(row.dataset, row.layout, row.path) for row in unread] == [
        ("cifar10", "python", "cifar-10-batches-py"), ("fer2013", "csv", "fer2013.csv")]
    assert {(row.state, row.checksum, *row.images) for row in unread} == {("not read yet", "not computed")}
    load_cifar10(root=root)
    load_fer2013(root=root)
    cifar, fer = status(root)
    assert (cifar.state, cifar.checksum, cifar.images) == ("ready", "another copy", {"train": 100, "test": 20})
    assert fer.images == {"train": 14, "test": 14, "private": 14}
    flip(root / "fer2013.csv", 500)
    (root / "cifar-10-batches-py" / "data_batch_2").unlink()
    cifar, fer = status(root)
    assert cifar.state == "incomplete: cifar-10-batches-py/data_batch_2 missing"
    assert fer.state == "changed since it was read"


def test_every_layout_has_its_row(root):
    pack(write_cifar(root, "binary"), root)
    pack(root / "cifar-10-batches-py", root)
    write_fer_folders(root)
    assert [row.path for row in status(root)] == ["cifar-10-batches-py", "cifar-10-batches-bin",
                                                  "cifar-10-python.tar.gz", "cifar-10-binary.tar.gz", "fer2013"]


@pytest.fixture
def whole(monkeypatch):
    """Let the small sets of these tests pass for complete."""
    monkeypatch.setitem(cifar10.COUNTS, "train", 100)
    monkeypatch.setitem(cifar10.COUNTS, "test", 20)


@pytest.mark.usefixtures("whole")
def test_verify_fills_the_cache_and_is_content_with_whole_data(root):
    seen = []
    found = verify(root, progress=seen.append)
    assert found.ok
    assert seen == ["cifar-10-batches-py"]
    assert [(row.state, row.checksum) for row in found.rows] == [("whole", "another copy, read for the first time")]
    assert status(root)[0].state == "ready"
    assert verify(root).rows[0].checksum == "another copy, as at the first load"


@pytest.mark.usefixtures("whole")
def test_verify_finds_a_flipped_pixel_that_loading_cannot_know(root):
    load_cifar10(root=root)
    path = root / "cifar-10-batches-py" / "data_batch_4"
    times = path.stat()
    flip(path, 40_000)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as bits rot: size and time stay
    found = verify(root)
    assert not found.ok
    assert found.rows[0].checksum == "changed since the first load"
    (defect,) = found.defects
    assert "data_batch_4 changed since the first load" in defect
    flip(path, 40_000)
    assert verify(root).ok


def test_verify_knows_the_official_release(root, monkeypatch):
    sums = frozenset(hashlib.md5(path.read_bytes()).hexdigest() for path in (root / "cifar-10-batches-py").iterdir())
    monkeypatch.setattr("nnlib.data.cifar10.OFFICIAL", sums)
    assert load_cifar10(root=root).source == "CIFAR-10, training images, official release"
    assert status(root)[0].checksum == verify(root).rows[0].checksum == "official release"
    flip(root / "cifar-10-batches-py" / "test_batch", 40_000)
    assert load_cifar10(root=root).source.endswith("a copy other than the official release")


def test_verify_names_each_defect_in_one_line(root):
    folder = root / "cifar-10-batches-py"
    (folder / "data_batch_1").write_bytes((folder / "data_batch_1").read_bytes()[:5000])
    (folder / "data_batch_2").unlink()
    (folder / "test_batch").write_bytes(b"")
    found = verify(root)
    assert not found.ok
    assert found.rows[0].state == "broken"
    for part in ("data_batch_1: not an intact", "data_batch_2 cannot be read: No such file",
                 "test_batch: not an intact", "holds 60 train images, expected 50000"):
        assert sum(part in defect for defect in found.defects) == 1, part
    assert len(found.defects) == 4
    assert not any("\n" in defect for defect in found.defects)
    assert cached_names(root) == []


def test_verify_does_not_flood_the_screen(root):
    write_fer_csv(root, ["9,1,x"] * 500)
    assert len(verify(root).defects) < 30
    assert any("481 more defects" in defect for defect in verify(root).defects)


def test_sets_are_loaded_by_name(root):
    write_fer_csv(root)
    assert load("cifar10", "test", root=root).fingerprint == load_cifar10("test", root=root).fingerprint
    assert load("fer2013", "private", root=root).fingerprint == load_fer2013("private", root=root).fingerprint
    assert load("shapes10", "test").synthetic
    assert load("faces7", "test").synthetic
    with pytest.raises(ValueError, match="expected cifar10, fer2013, shapes10 or faces7, got 'mnist'"):
        load("mnist")
