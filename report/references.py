"""Labels, and what refers to them: checked before typesetting, so that an error names the notebook and the label."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import nbformat

OPTION = re.compile(r"^#\|\s*([\w-]+)\s*:\s*(.*?)\s*$")
LABEL = re.compile(r"\{#((?:fig|tbl|eq|sec)-[\w-]+)|\\label\{([^}]+)\}")
REFERENCE = re.compile(r"(?<![\w.\\])@([A-Za-z][\w-]*)|\\(?:eqref|ref|cite)\{([^}]+)\}")
CODE = re.compile(
    r"^[ \t]*(?P<fence>```+|~~~+).*?^[ \t]*(?P=fence)[ \t]*$|(?<!`)(?P<tick>`+)(?!`).+?(?<!`)(?P=tick)(?!`)",
    re.MULTILINE | re.DOTALL,
)
KINDS = {"fig": "Figure", "tbl": "Table", "eq": "Equation", "sec": "Section"}
PREFIXES = tuple(f"{kind}-" for kind in KINDS)


class Part(NamedTuple):
    """A cell's Markdown and where it stands, for messages."""

    place: str
    text: str


def options_of(source: str) -> tuple[dict[str, str], str]:
    """Return a code cell's options and its source without them."""
    lines = source.splitlines()
    options = {}
    while lines and (match := OPTION.match(lines[0])):
        options[match[1]] = match[2].strip("\"'")
        lines.pop(0)
    return options, "\n".join(lines).strip("\n")


def check(parts: Iterable[Part], keys: set[str]) -> bool:
    """Return whether the text cites a work; ``keys`` are those of the bibliography.

    Raises ValueError that lists, each with its notebook, labels defined twice and references to what is not there.
    """
    plain = [Part(part.place, CODE.sub("", part.text)) for part in parts]
    labels = Counter(name for part in plain for name in _labels(part.text))
    problems = []
    cites = False
    for place, text in plain:
        twice = [name for name in _labels(text) if labels[name] > 1]
        problems += [f"{place}: label {name} is defined {labels[name]} times" for name in twice]
        for name in _references(text):
            is_label = name.startswith(PREFIXES)
            if is_label and name not in labels:
                problems.append(f"{place}: @{name} refers to a label that is nowhere defined (was its cell run?)")
            elif not is_label and name not in keys:
                problems.append(f"{place}: @{name} is not in report/references.bib")
            cites |= not is_label
    if problems:
        raise ValueError("; ".join(problems))
    return cites


def name_elsewhere(parts: list[Part], notebooks: Iterable[Path], here: Iterable[str] = ()) -> list[Part]:
    """Return the parts with each reference to a label of another notebook as words that say where it is.

    For a notebook that is typeset alone. ``here`` are labels of the title, which loses its number.
    """
    wanted = {name for part in parts for name in _references(CODE.sub("", part.text))}
    wanted -= {name for part in parts for name in _labels(part.text)}
    words = dict.fromkeys(here, "this notebook")
    if any(name.startswith(PREFIXES) for name in wanted):
        for path in notebooks:
            words = {**_where(path), **words}
    words = {name: text for name, text in words.items() if name in wanted}
    if not words:
        return parts
    pattern = re.compile(rf"\\(?:eq)?ref\{{({'|'.join(words)})\}}|@({'|'.join(words)})(?![\w-])")
    return [Part(part.place, pattern.sub(lambda m: words[m[1] or m[2]], part.text)) for part in parts]


def _where(path: Path) -> dict[str, str]:
    """Return for each label of a notebook the words that refer to it from outside."""
    words = {}
    for cell in nbformat.read(path, as_version=4).cells:
        is_code = cell.cell_type == "code"
        for name in [options_of(cell.source)[0].get("label", "")] if is_code else _labels(cell.source):
            title = re.search(rf"^#+ (.*?)\s*(?:<!--\s*)?\{{#{re.escape(name)}", cell.source, re.MULTILINE)
            named = f'"{title[1]}"' if title else f"`{name}`"
            words[name] = f"{KINDS.get(name.split('-')[0], 'Label')} {named} of `{path.stem}`"
    return {name: text for name, text in words.items() if name}


def _labels(text: str) -> list[str]:
    return [match[1] or match[2] for match in LABEL.finditer(text)]


def _references(text: str) -> list[str]:
    found = (match[1] or match[2] for match in REFERENCE.finditer(text))
    return list(dict.fromkeys(name.strip() for names in found for name in names.split(",")))
