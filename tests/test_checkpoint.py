"""Files that are replaced whole or not at all."""

import errno
import os

import numpy as np
import pytest

from nnlib import checkpoint


def test_arrays_and_text_come_back(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "half": np.ones(3, dtype=np.float16), "none": np.zeros((0, 2))}
    checkpoint.write(tmp_path / "deep" / "file", {**arrays, "t": arrays["a"].T}, {"key": "wörd"})
    found, metadata = checkpoint.read(tmp_path / "deep" / "file")
    assert metadata == {"key": "wörd"}
    for name, array in {**arrays, "t": arrays["a"].T}.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_no_temporary_one(tmp_path, monkeypatch, call):
    path = tmp_path / "file"
    checkpoint.write_bytes(path, b"old")

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os if call == "fsync" else checkpoint.Path, call, fail)
    with pytest.raises(OSError, match=r"could not save .*file: Input/output error; the previous file is kept"):
        checkpoint.write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="could not save"):
        checkpoint.write_bytes(tmp_path / "file" / "inside", b"x")


@pytest.mark.parametrize(("kind", "size"), [("BF16", 2), ("F8_E4M3", 1)])
def test_numbers_that_numpy_does_not_have_are_told(tmp_path, kind, size):
    header = f'{{"a":{{"dtype":"{kind}","shape":[1],"data_offsets":[0,{size}]}}}}'.encode()
    (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
    with pytest.raises(ValueError, match=r"file: expected tensors of float16, 32 or 64 \(.*\); convert and save again"):
        checkpoint.read(tmp_path / "file")


def test_what_could_not_be_written_is_told_before(tmp_path):
    (tmp_path / "file").write_text("old")
    checkpoint.check_writable(tmp_path / "file")
    checkpoint.check_writable(tmp_path / "new" / "file")
    assert (tmp_path / "file").read_text() == "old"
    assert list((tmp_path / "new").iterdir()) == []
    for path in (tmp_path, tmp_path / "file" / "inside", "/dev/null"):
        with pytest.raises(OSError, match=f"could not save {path}"):
            checkpoint.check_writable(path)
