"""The bars that show how far something is."""

import os
from typing import Any

from tqdm.auto import tqdm


def bar(total: int, unit: str, *, done: int = 0, leave: bool = False) -> Any:
    """Return a bar from ``done`` to ``total``. It is hidden where $TQDM_DISABLE is set, other than to 0."""
    # Handed over, because the bar that tqdm draws in notebooks does not look at TQDM_DISABLE itself.
    silent = os.environ.get("TQDM_DISABLE", "") not in ("", "0")
    return tqdm(total=total, unit=unit, initial=done, leave=leave, disable=silent)
