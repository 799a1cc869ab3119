"""Configurations as JSON-able values: they are compared, stored in records and checkpoints, and shown."""

import dataclasses
from typing import Any

import numpy as np


def as_config(value: Any) -> Any:
    """Return dicts, lists, strings, numbers and None for a value; a dataclass becomes {"kind": its name, fields...}.

    Raises TypeError for anything else: what a run depends on is a frozen dataclass, a number, a string or a sequence.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: as_config(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, dict):
        return {str(key): as_config(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_config(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.number):
        return value.item()
    raise TypeError(f"configuration: expected a frozen dataclass, a number, a string or a sequence, got {value!r}")


def differences(stored: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Return a phrase for each entry in which two configurations differ: ``batch_size is 64, not 128``."""
    names = [*wanted, *(name for name in stored if name not in wanted)]
    return [
        f"{name} is {stored.get(name)!r}, not {wanted.get(name)!r}"
        for name in names
        if stored.get(name) != wanted.get(name)
    ]
