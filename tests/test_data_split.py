import numpy as np
import pytest

from nnlib.data import Split

CLASSES = ("cat", "dog", "owl")


def images(count: int = 12) -> np.ndarray:
    return np.arange(count * 12, dtype=np.uint8).reshape(count, 2, 2, 3)


def labels(count: int = 12) -> np.ndarray:
    return np.arange(count) % 3


@pytest.mark.parametrize(
    ("inputs", "targets", "error", "words"),
    [
        (images().astype(np.int32), labels(), TypeError, "uint8 images or floats, got int32"),
        (images().reshape(12, -1), labels(), ValueError, r"\(N, H, W, C\), got shape \(12, 12\)"),
        (np.zeros(12), labels(), ValueError, r"\(N, \.\.\.\)"),
        (images(0), labels(0), ValueError, "expected at least one"),
        (images(), labels(11), ValueError, "label for each of 12 inputs"),
        (images(), labels() * 1.0, TypeError, "labels must be integers, got float64"),
        (images(), labels() - 1, ValueError, "0..2, row 0 has -1"),
        (images(), labels() + 1, ValueError, "0..2, row 2 has 3"),
        (np.array([[0.0], [np.nan]]), [0, 1], ValueError, "row 1 holds NaN"),
        (np.array([[np.inf], [0.0]]), [0, 1], ValueError, "row 0 holds NaN or infinity"),
    ],
)
def test_a_bad_split_is_refused_in_one_line(inputs, targets, error, words):
    with pytest.raises(error, match=words) as caught:
        Split(inputs, targets, CLASSES)
    assert "\n" not in str(caught.value)


def test_labels_become_int64_and_unnamed_classes_have_no_upper_limit():
    split = Split(images(), labels().astype(np.uint8) + 200)
    assert split.labels.dtype == np.int64
    assert split.labels.max() == 202
    with pytest.raises(ValueError, match="0 or more, row 0 has -1"):
        Split(images(), labels() - 1)


def test_rows_keep_classes_and_source():
    split = Split(images(), labels(), CLASSES, source="a zoo", synthetic=True)
    for rows in (slice(3, 6), np.array([3, 4, 5]), np.isin(np.arange(12), [3, 4, 5])):
        part = split[rows]
        assert (part.classes, part.source, part.synthetic) == (CLASSES, "a zoo", True)
        assert np.array_equal(part.inputs, images()[3:6])
    with pytest.raises(TypeError, match=r"split\[i:i \+ 1\]"):
        split[3]
    with pytest.raises(ValueError, match="empty"):
        split[:0]


def test_the_fingerprint_depends_on_contents_alone():
    split = Split(images(), labels())
    same = Split(images().copy(order="F"), labels(), CLASSES, source="elsewhere")
    assert split.fingerprint == same.fingerprint
    assert len(split.fingerprint) == 16
    others = [split[::-1], Split(images(), labels()[::-1]), Split(images() / 255, labels()),
              Split(images().reshape(12, 2, 3, 2), labels())]
    assert len({split.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_hold_out_is_stratified_disjoint_and_repeatable():
    sizes = [60, 30, 11]
    split = Split(np.arange(101.0)[:, None], np.repeat([0, 1, 2], sizes), CLASSES)
    rest, held = split.hold_out(20, seed=3)
    assert len(held) == 20
    assert np.array_equal(np.sort(np.concatenate([rest.inputs, held.inputs]), axis=0), split.inputs)
    assert np.all(np.abs(np.bincount(held.labels) - 20 * np.array(sizes) / 101) < 1)
    again = split.hold_out(20, seed=3)[1]
    assert held.fingerprint == again.fingerprint
    assert held.fingerprint != split.hold_out(20, seed=4)[1].fingerprint
    for count in (0, 101, -1):
        with pytest.raises(ValueError, match="between 1 and 100"):
            split.hold_out(count)
