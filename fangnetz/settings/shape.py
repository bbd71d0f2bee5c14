"""Hold a tree against the schema and say in sentences what does not fit. Never looks beyond the tree."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from fangnetz.settings.faults import KeyPath
from fangnetz.settings.schema import ClusterShape, known_keys
from fangnetz.settings.tree import Tree, unknown_key

_INLINE = ("password", "passwd", "pass", "secret", "token", "key")
INLINE_RULE = "must not stand in this file: secrets come by password_file or password_env"

_RULES = {
    "missing": "is required",
    "string_type": "must be text (put it in quotes if it looks like a number, true, false or nothing)",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a number, not infinity or NaN",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be a group of keys",
    "model_type": "must be a group of keys",
    "model_attributes_type": "must be a group of keys",
    "rule": "{rule}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length} characters long",
    "too_short": "must hold at least one",
    "enum": "must be one of {expected}",
    "literal_error": "must be one of {expected}",
}
"""pydantic's error types as rules; the braces are filled from the error's context."""


def check_shape(tree: Tree) -> ClusterShape | None:
    """Return the file in its shape, or None after noting every fault in the tree."""
    if tree.data is None:
        tree.breaks((), "must hold the settings of a cluster, but is empty", shown="", line=1)
        return None
    try:
        return ClusterShape.model_validate(tree.data)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            _note(tree, _path(detail["loc"], detail["type"]), detail["type"], detail.get("ctx", {}))
        return None


def _path(loc: tuple[str | int, ...], kind: str) -> KeyPath:
    if len(loc) > 2 and loc[0] == "vms" and loc[2] in ("xml", "short"):
        loc = (*loc[:2], *loc[3:])  # the name of the form that was tried is not part of the file
    return loc[:-1] if kind != "extra_forbidden" and loc[-1:] == ("[key]",) else loc


def _note(tree: Tree, path: KeyPath, kind: str, context: dict[str, Any]) -> None:
    if kind == "extra_forbidden":
        if str(path[-1]).lower() in _INLINE:
            tree.breaks(path, INLINE_RULE)
        else:
            unknown_key(tree, path, known_keys(path[:-1], has_xml=tree.get((*path[:-1], "xml_file")) is not None))
        return
    rule = _RULES.get(kind)
    if rule is None:
        sentence = f"must be valid ({kind.replace('_', ' ')})"
    else:
        sentence = rule.format(**{name: str(value).replace("'", "") for name, value in context.items()})
    # A missing key is no reason to be silent about what else is said of it: only values are marked as broken.
    if kind == "missing":
        tree.fault(path, sentence)
    else:
        tree.breaks(path, sentence)
