"""The same networks in PyTorch. Only a worker imports this module: PyTorch is no requirement of the library."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from nnlib.bench.works import Work
from nnlib.models import EXPANSION, STAGES


class TorchSide:
    """A network of a work in PyTorch: at its defaults, or tuned with channels_last and the fused optimiser.

    Each task gives what it computed last, so that the caller can see that it is finite.
    """

    def __init__(self, work: Work, *, tuned: bool, threads: int, rate: float, momentum: float) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.work, self.tuned = work, tuned
        self.model = MODELS[work.model](**work.options)
        if tuned:
            self.model = self.model.to(memory_format=torch.channels_last)
        options: dict[str, Any] = {"fused": True} if tuned else {}
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=rate, momentum=momentum, **options)

    @property
    def parameters(self) -> int:
        """How many numbers are learned."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def train(self, batch: int) -> Callable[[], Any]:
        """Return a training step on a batch; it returns the loss."""
        x, labels = self._batch(batch)
        self.model.train()

        def step() -> Any:
            self.optimizer.zero_grad()
            loss = functional.cross_entropy(self.model(x), labels)
            loss.backward()
            self.optimizer.step()
            return loss.detach()

        return step

    def infer(self, batch: int) -> Callable[[], Any]:
        """Return inference on a batch; it returns the logits."""
        x, _ = self._batch(batch)
        self.model.eval()

        def run() -> Any:
            with torch.inference_mode():
                return self.model(x)

        return run

    def _batch(self, size: int) -> tuple[Any, Any]:
        x, labels = map(torch.from_numpy, self.work.batch_of(size))
        if x.ndim == 4 and self.work.model != "mlp":
            x = x.permute(0, 3, 1, 2)  # NHWC to NCHW, in this order in memory unless tuned
            x = x.contiguous(memory_format=torch.channels_last if self.tuned else torch.contiguous_format)
        return x, labels


def mlp(input_shape: tuple[int, ...], hidden: tuple[int, ...], classes: int, dropout: float = 0.0) -> Any:
    """Return the layout of `nnlib.models.mlp`."""
    layers: list[Any] = [nn.Flatten()]
    width = torch.Size(input_shape).numel()
    for units in hidden:
        layers += [nn.Linear(width, units), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
        width = units
    return nn.Sequential(*layers, nn.Linear(width, classes))


def small_cnn(input_shape: tuple[int, int, int], classes: int, dropout: float = 0.5) -> Any:
    """Return the layout of `nnlib.models.small_cnn`."""
    height, width, channels = input_shape
    layers: list[Any] = []
    for before, filters in ((channels, 16), (16, 32)):
        layers += [nn.Conv2d(before, filters, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    features = (height // 4) * (width // 4) * 32
    layers += [nn.Flatten(), nn.Dropout(dropout), nn.Linear(features, 1024), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(1024, classes))


def face_cnn(input_shape: tuple[int, int, int], classes: int) -> Any:
    """Return the layout of `nnlib.models.face_cnn`."""
    layers: list[Any] = []
    channels = input_shape[2]
    for filters, drop in ((32, 0.1), (64, 0.1), (128, 0.2), (256, 0.0)):
        for before in (channels, filters):
            layers += [_conv(3, before, filters), nn.BatchNorm2d(filters), nn.ReLU()]
        channels = filters
        layers += [nn.MaxPool2d(2), nn.Dropout(drop)] if drop else []
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.4), nn.Linear(channels, classes)]
    return nn.Sequential(*layers)


def resnet(input_shape: tuple[int, int, int], classes: int, depth: int, version: int, width: int = 64) -> Any:
    """Return torchvision's ResNet, rectifiers in place as there. Raises ValueError for another version than 1."""
    if version != 1:
        raise ValueError(f"bench: expected version 1 of ResNet, got {version}")
    layers = [_conv(7, input_shape[2], width, 2), nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    before = width
    for stage, blocks in enumerate(STAGES[depth]):
        for number in range(blocks):
            layers.append(Bottleneck(before, width << stage, 2 if stage and not number else 1))
            before = EXPANSION * (width << stage)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


class Bottleneck(nn.Module):  # type: ignore[misc]
    """A block of version 1: 1x1, 3x3 and 1x1 convolutions, each with its norm, and the shortcut."""

    def __init__(self, before: int, middle: int, stride: int) -> None:
        super().__init__()
        out = EXPANSION * middle
        self.conv1, self.bn1 = _conv(1, before, middle), nn.BatchNorm2d(middle)
        self.conv2, self.bn2 = _conv(3, middle, middle, stride), nn.BatchNorm2d(middle)
        self.conv3, self.bn3 = _conv(1, middle, out), nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride > 1 or before != out:
            self.downsample = nn.Sequential(_conv(1, before, out, stride), nn.BatchNorm2d(out))

    def forward(self, x: Any) -> Any:
        """Return the block's output for x (N, C, H, W)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


def _conv(size: int, before: int, filters: int, stride: int = 1) -> Any:
    return nn.Conv2d(before, filters, size, stride=stride, padding=size // 2, bias=False)


MODELS: dict[str, Callable[..., Any]] = {"mlp": mlp, "small_cnn": small_cnn, "face_cnn": face_cnn, "resnet": resnet}
