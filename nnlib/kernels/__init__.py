"""The functions that layers call: the names and signatures of `nnlib.functional`, compiled where that pays.

Who wants to know how a convolution is made fast reads, in this order: `tile` (the product that stays in registers),
`product` (blocks that stay in the caches), `convolution` (patches that are never copied), `winograd` (kernels of 3 x 3
pixels in fewer multiplications), then `norm`, `pool` and `elementwise` (as few passes over memory as there can be) and
`pcg64` (dropout's draws by all threads). `runtime` says how kernels are compiled and kept, `nnlib.chain` how
neighbouring layers share a pass.

Compiled code needs numba, which takes a moment to import, so that happens at the first call. Without numba, and where
the environment variable NNLIB_KERNELS is "numpy", each name is its NumPy function.
"""

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING, Any

from nnlib import functional

__all__ = functional.__all__

if TYPE_CHECKING:
    from nnlib.functional import *  # noqa: F403


def accelerated() -> bool:
    """Tell whether the names are compiled here. Raises ValueError for an unknown NNLIB_KERNELS."""
    choice = os.environ.get("NNLIB_KERNELS", "numba")
    if choice not in ("numba", "numpy"):
        raise ValueError(f"NNLIB_KERNELS: expected numba or numpy, got {choice!r}")
    return choice == "numba" and importlib.util.find_spec("numba") is not None


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    source = importlib.import_module("nnlib.kernels.compiled") if accelerated() else functional
    globals().update({each: getattr(source, each) for each in __all__})
    return globals()[name]
