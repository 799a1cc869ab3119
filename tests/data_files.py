"""Small data sets in the layouts in which people download the real ones, for tests that break them."""

import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
EMOTIONS = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]


def cifar_rows(seed: int = 0, count: int = 20) -> dict[str, tuple[np.ndarray, list[int]]]:
    """{batch: (pixels (count, 3072), labels)} of random images."""
    rng = np.random.default_rng(seed)
    return {batch: (rng.integers(0, 256, (count, 3072), np.uint8), rng.integers(0, 10, count).tolist())
            for batch in BATCHES}


def cifar_pickle(pixels: np.ndarray, labels: object, protocol: int = 2) -> bytes:
    return pickle.dumps({b"batch_label": b"a batch", b"labels": labels, b"data": pixels}, protocol=protocol)


def cifar_pickle_of_python2(pixels: np.ndarray, labels: list[int]) -> bytes:
    """The opcodes of the official files: Python 2 strings, and numpy.core as NumPy 1 called it."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    shape = struct.pack("<cHcHc", b"M", len(pixels), b"M", pixels.shape[1], b"\x86")
    kind = b"cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    raw = b"T" + struct.pack("<i", pixels.size) + pixels.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x04cnumpy\nndarray\nq\x05K\x00\x85U\x01b\x87R"
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return (b"\x80\x02}q\x01(" + text(b"batch_label") + text(b"a batch") + text(b"labels") + listed
            + text(b"data") + array + b"(K\x01" + shape + kind + b"\x89" + raw + b"tbu.")


def cifar_binary(pixels: np.ndarray, labels: list[int]) -> bytes:
    return np.column_stack([np.array(labels, np.uint8), pixels]).tobytes()


def write_cifar(root: Path, layout: str = "python", rows: dict | None = None) -> Path:
    """A CIFAR-10 folder under root in the layout python, python2 or binary; returns it."""
    encode = {"python": cifar_pickle, "python2": cifar_pickle_of_python2, "binary": cifar_binary}[layout]
    folder = root / ("cifar-10-batches-bin" if layout == "binary" else "cifar-10-batches-py")
    folder.mkdir(parents=True)
    for batch, (pixels, labels) in (rows or cifar_rows()).items():
        (folder / f"{batch}{'.bin' if layout == 'binary' else ''}").write_bytes(encode(pixels, labels))
    return folder


def pack(folder: Path, root: Path) -> Path:
    """The folder as root/cifar-10-python.tar.gz or cifar-10-binary.tar.gz."""
    root.mkdir(exist_ok=True)
    kind = "binary" if folder.name.endswith("bin") else "python"
    with tarfile.open(root / f"cifar-10-{kind}.tar.gz", "w:gz") as tar:
        tar.add(folder, folder.name)
    return root / f"cifar-10-{kind}.tar.gz"


def fer_rows(seed: int = 0) -> list[tuple[int, np.ndarray, str]]:
    """(emotion, face (48, 48), usage): of each usage two faces an emotion, shuffled."""
    rng = np.random.default_rng(seed)
    rows = [(emotion, rng.integers(0, 256, (48, 48), np.uint8), usage)
            for usage in ("Training", "PublicTest", "PrivateTest") for emotion in range(7) for _ in range(2)]
    return [rows[index] for index in rng.permutation(len(rows))]


def fer_line(emotion: object, face: np.ndarray, usage: str) -> str:
    return f"{emotion},{' '.join(map(str, face.ravel()))},{usage}"


def write_fer_csv(root: Path, rows: list[str] | None = None) -> Path:
    lines = ["emotion,pixels,Usage", *(rows if rows is not None else [fer_line(*row) for row in fer_rows()])]
    (root / "fer2013.csv").write_text("\n".join(lines) + "\n")
    return root / "fer2013.csv"


def write_icml_csv(root: Path) -> Path:
    """The columns of Kaggle's icml_face_data.csv: another order, spaces in the header, Windows line ends."""
    lines = ["emotion, Usage, pixels"]
    for emotion, face, usage in fer_rows():
        lines.append(f"{emotion},{usage},{' '.join(map(str, face.ravel()))}")
    (root / "icml_face_data.csv").write_text("\n".join(lines) + "\n", newline="\r\n")
    return root / "icml_face_data.csv"


def write_fer_folders(root: Path) -> Path:
    for number, (emotion, face, usage) in enumerate(fer_rows()):
        folder = root / "fer2013" / ("train" if usage == "Training" else "test") / EMOTIONS[emotion]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(face).save(folder / f"{usage}_{number:05d}.png")
    return root / "fer2013"


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Turn over one bit of the file, in place."""
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1 << bit
    path.write_bytes(raw)
