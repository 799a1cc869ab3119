"""Weights that torchvision trained, in networks of this library."""

from os import PathLike

from nnlib import checkpoint
from nnlib.functional.checks import Array
from nnlib.network import Network


def load_torchvision(path: str | PathLike[str], network: Network) -> None:
    """Fill ``resnet(depth, 1, ...)`` from the state of torchvision's model of that depth, saved as safetensors.

    Convolution weights go from (out, in, height, width) to (height, width, in, out), linear weights from (out, in) to
    (in, out); running statistics are filled too, ``num_batches_tracked`` is ignored. The Normalize layer is left as it
    is, since a state does not tell its preprocessing. For torchvision's ImageNet weights and uint8 RGB images it is
    ``network.buffers["normalize.mean"][...] = (123.675, 116.28, 103.53)`` and
    ``network.buffers["normalize.deviation"][...] = (58.395, 57.12, 57.375)``.
    Raises FileNotFoundError, ValueError for a broken file, and ValueError that lists every tensor that is missing, not
    expected, or of another shape (told in this library's order); the network is then as it was.
    """
    tensors, _ = checkpoint.read(path)
    arrays = {**network.parameters, **network.buffers}
    filled = {name: array for name, array in arrays.items() if not name.startswith("normalize.")}
    given = {name: _turn(tensor) for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    checkpoint.fill(filled, given, str(path))


def _turn(tensor: Array) -> Array:
    """Return a view of a tensor in this library's order of axes."""
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
