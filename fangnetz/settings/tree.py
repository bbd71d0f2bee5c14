"""YAML text to plain values that remember their line. Collects every fault; never guesses.

Reads the part of YAML 1.2 that people use in settings: only `true` and `false` are booleans, so a host may be
called `no`. Tags, aliases and second documents are refused with a sentence; nothing is left to a YAML bomb.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from fangnetz.settings.faults import KeyPath, SettingsFault, did_you_mean, key_text, value_text

DEPTH_MAX = 16
"""No setting lies deeper; a file that goes deeper is not read on."""
DIGITS_MAX = 18
"""A longer whole number fits no setting."""

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_TEXT_TAGS = ("!", "tag:yaml.org,2002:str")


@dataclass(slots=True)
class Tree:
    """What a file holds: `data` (dict, list, str, int, float, bool, None), each path's line, the faults."""

    file: str
    data: object = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    faults: list[SettingsFault] = field(default_factory=list)
    broken: set[KeyPath] = field(default_factory=set)
    """Paths already at fault: nothing more is said about them or what lies under them."""

    def line(self, path: KeyPath) -> int:
        """Return the line of a path, or of the nearest thing above it that stands in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def get(self, path: KeyPath) -> object:
        """Return what stands at a path, or None."""
        here = self.data
        for part in path:
            if isinstance(here, dict) and isinstance(part, str):
                here = here.get(part)
            elif isinstance(here, list) and isinstance(part, int) and 0 <= part < len(here):
                here = here[part]
            else:
                return None
        return here

    def text(self, *path: str | int) -> str | None:
        """Return the text at a path, or None if there is none."""
        value = self.get(path)
        return value if isinstance(value, str) else None

    def number(self, *path: str | int) -> int | None:
        """Return the whole number at a path, or None if there is none."""
        value = self.get(path)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def keys(self, *path: str | int) -> tuple[str, ...]:
        """Return the names of the keys at a path; none if no group stands there."""
        value = self.get(path)
        return tuple(value) if isinstance(value, dict) else ()

    def count(self, *path: str | int) -> int:
        """Return the length of the list at a path; 0 if no list stands there."""
        value = self.get(path)
        return len(value) if isinstance(value, list) else 0

    def fault(self, path: KeyPath, rule: str, *, shown: str | None = None, line: int | None = None) -> None:
        """Note a broken rule, unless this path (or what holds it) is known to be broken already."""
        if any(path[:length] in self.broken for length in range(len(path) + 1)):
            return
        self.faults.append(
            SettingsFault(
                file=self.file,
                line=self.line(path) if line is None else line,
                key=key_text(path),
                value=value_text(path, self.get(path)) if shown is None else shown,
                rule=rule,
            )
        )

    def breaks(self, path: KeyPath, rule: str, *, shown: str | None = None, line: int | None = None) -> None:
        """Note a broken rule and say nothing more about this path."""
        self.fault(path, rule, shown=shown, line=line)
        self.broken.add(path)


class _Stop(Exception):
    """The rest of the file cannot be read; the fault is noted."""


def read_tree(file: str, text: str) -> Tree:
    """Return the tree of a YAML text. Never raises: what is wrong stands in `faults`."""
    tree = Tree(file=file)
    try:
        # SafeLoader only cuts the text into events here; no object is ever constructed from a tag.
        _document(tree, yaml.parse(text, Loader=yaml.SafeLoader))
    except _Stop:
        tree.broken.add(())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        _syntax(tree, mark.line + 1 if mark else 1, error.problem or error.context or "it cannot be read")
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else 1
        _syntax(tree, line, "a character that is not allowed in a text file")
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets ValueError through for escapes such as "\U00110000" and for absurd %YAML versions.
        _syntax(tree, 1, type(error).__name__)
    return tree


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1


def _syntax(tree: Tree, line: int, problem: str) -> None:
    tree.breaks((), f"must be valid YAML: {problem}", shown="", line=line)


def _document(tree: Tree, events: Iterator[yaml.Event]) -> None:
    documents = 0
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                tree.breaks((), "must hold one document only", shown="", line=_line(event))
                raise _Stop
        elif isinstance(event, yaml.NodeEvent):
            tree.data = _node(tree, events, event, ())


def _node(tree: Tree, events: Iterator[yaml.Event], event: yaml.Event, path: KeyPath) -> object:
    line = _line(event)
    tree.lines.setdefault(path, line)
    if len(path) > DEPTH_MAX:
        tree.breaks((), f"must not be nested deeper than {DEPTH_MAX} levels", shown="", line=line)
        raise _Stop
    match event:
        case yaml.ScalarEvent():
            return _scalar(tree, event, path)
        case yaml.SequenceStartEvent():
            _no_tag(tree, event.tag, path)
            return _list(tree, events, path)
        case yaml.MappingStartEvent():
            _no_tag(tree, event.tag, path)
            return _group(tree, events, path)
        case _:
            tree.breaks(path, "must be written out: aliases (*name) are not read here", shown="(an alias)")
            return None


def _list(tree: Tree, events: Iterator[yaml.Event], path: KeyPath) -> list[object]:
    items: list[object] = []
    while not isinstance(event := next(events), yaml.SequenceEndEvent):
        items.append(_node(tree, events, event, (*path, len(items))))
    return items


def _group(tree: Tree, events: Iterator[yaml.Event], path: KeyPath) -> dict[str, object]:
    group: dict[str, object] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        line = _line(event)
        if not isinstance(event, yaml.ScalarEvent):
            # Read past it on a tree of its own: what lies inside a broken key is no news.
            aside = Tree(file=tree.file)
            _node(aside, events, event, path)
            _node(aside, events, next(events), path)
            tree.fault(path, "must have plain words as keys", shown="(a key that is no word)", line=line)
            continue
        key = event.value
        where = (*path, key)
        if not key.isprintable() or not key:
            _node(Tree(file=tree.file), events, next(events), where)
            tree.fault(where, "must be a word of printable characters", shown="", line=line)
        elif key in group:
            _node(Tree(file=tree.file), events, next(events), where)
            tree.fault(where, f"stands twice; the first is on line {tree.lines[where]}", shown="(second)", line=line)
        else:
            tree.lines[where] = line
            group[key] = None
            group[key] = _node(tree, events, next(events), where)
    return group


def _scalar(tree: Tree, event: yaml.ScalarEvent, path: KeyPath) -> object:
    text = event.value
    if event.tag is not None and event.tag not in _TEXT_TAGS:
        _no_tag(tree, event.tag, path)
        return None
    plain = event.implicit[0] and event.tag is None
    if plain and text in ("", "~", "null", "Null", "NULL"):
        return None
    if plain and text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    if plain and _INT.fullmatch(text):
        if len(text) > DIGITS_MAX:
            tree.breaks(path, f"must be a number of at most {DIGITS_MAX} digits", shown=value_text(path, text))
            return None
        return int(text)
    if plain and _FLOAT.fullmatch(text):
        return float(re.sub(r"\.(?=[in])", "", text.lower()))
    if not text.isprintable():
        tree.breaks(path, "must be one line of printable text", shown=value_text(path, text))
        return None
    return text


def _no_tag(tree: Tree, tag: str | None, path: KeyPath) -> None:
    if tag is not None and tag not in ("!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
        tree.breaks(path, "must not carry a YAML tag (!…)", shown="(a tag)")


def unknown_key(tree: Tree, path: KeyPath, known: tuple[str, ...]) -> None:
    """Note a key that nobody reads, with the nearest one that is read."""
    tree.breaks(path, f"is not a known key{did_you_mean(str(path[-1]), known)}")
