"""What pydantic finds wrong in any of our files, in words of ours: place, value, remedy."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from discovery_xp.inputs.fields import Entry, alternatives, unknown
from discovery_xp.inputs.yamlfile import YamlFile
from discovery_xp.text import short


def report_shape(parsed: YamlFile, error: ValidationError, model: type[Entry], docs: str) -> None:
    """Report all that is wrong with the shape of a file, which should be a `model`.

    `docs` says where the format is described.
    """
    for detail in error.errors(include_url=False):
        _report(parsed, detail, model, docs)


def _report(parsed: YamlFile, detail: ErrorDetails, model: type[Entry], docs: str) -> None:
    path, kind = parsed.written(detail["loc"]), detail["type"]
    context = detail.get("ctx", {})
    shown = f"'{short(detail['input'])}'"
    if kind in ("quantity", "name"):
        item = context.get("item")
        place = path if item is None else (*path, item)
        parsed.report(place, str(context["reason"]), str(context["remedy"]))
    elif kind == "missing":
        key = short(detail["loc"][-1])
        words = _words_at(model, detail["loc"])
        choice = f", one of {alternatives(words)}" if words else ""
        parsed.report(path, f"'{key}' is missing", f"add '{key}: ...'{choice}")
    elif kind == "extra_forbidden":
        options = sorted(_at(model, detail["loc"][:-1]).get("properties", {}))
        close = difflib.get_close_matches(str(path[-1])[:100], options, 1)
        remedy = f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(options)}"
        parsed.report(path, "unknown key", remedy)
    elif kind in ("literal_error", "union_tag_invalid"):
        expected = str(context.get("expected", context.get("expected_tags", "")))
        if "__key__" in str(detail["loc"][-1]) or str(detail["loc"][-1]) == "[key]":
            parsed.report(path, "unknown key", f"known here: {expected}")
        else:
            value = context.get("tag", detail["input"])
            parsed.report(path, *unknown(value, re.findall(r"'([^']*)'", expected)))
    elif kind == "union_tag_not_found":
        parsed.report(path, "'type' is missing", "add e.g. 'type: local', 'static' or 'g5k'")
    elif kind in ("greater_than_equal", "less_than_equal", "greater_than"):
        bound = context.get("ge", context.get("le", context.get("gt")))
        relation = {"greater_than_equal": "at least", "less_than_equal": "at most"}.get(
            kind, "over"
        )
        parsed.report(path, f"{shown} is out of range", f"write {relation} {bound}")
    elif kind in ("too_short", "too_long"):
        few = "few" if kind == "too_short" else "many"
        limit = context.get("min_length", context.get("max_length"))
        parsed.report(
            path,
            f"has too {few} items ({context.get('actual_length')})",
            f"write {'at least' if few == 'few' else 'at most'} {limit}",
        )
    elif kind in _TYPES:
        message, remedy = _TYPES[kind]
        parsed.report(path, f"{shown} is not {message}", remedy.format(docs=docs))
    else:
        parsed.report(path, f"{shown}: {detail['msg']}", docs)


_WHOLE = ("a whole number", "write e.g. 3")
_NUMBER = ("a number", "write e.g. 0.5")
_MAPPING = ("a mapping", "write 'key: value' pairs, {docs}")
# What a value isn't, and what to write, by pydantic's kind of error.
_TYPES = {
    "int_type": _WHOLE,
    "int_from_float": _WHOLE,
    "int_parsing": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "model_type": _MAPPING,
    "dict_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "list_type": ("a list", "write '- ' items"),
    "string_type": ("text", "write a word, in quotes if need be"),
}


@functools.cache
def _schema(model: type[Entry]) -> dict[str, Any]:
    return model.model_json_schema(by_alias=True)


def _words_at(model: type[Entry], path: Sequence[str | int]) -> list[str]:
    """Return the words that may stand at `path`, where the schema lists them."""
    return [str(word) for word in _at(model, path).get("enum", [])]


def _at(model: type[Entry], path: Sequence[str | int]) -> dict[str, Any]:
    """Return the schema of what stands at `path`."""
    schema = _schema(model)

    def follow(node: dict[str, Any]) -> dict[str, Any]:
        for key in ("anyOf", "oneOf"):
            inner = [part for part in node.get(key, []) if part.get("type") != "null"]
            if inner and "discriminator" not in node:
                node = next((part for part in inner if "$ref" in part), inner[0])
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].split("/")[-1]]
        return node

    node: dict[str, Any] = schema
    for part in path:
        if "discriminator" in node:
            node = follow({"$ref": node["discriminator"]["mapping"].get(part, "#/x/LocalEntry")})
        elif isinstance(part, int):
            node = follow(node.get("items", {}))
        elif part in node.get("properties", {}):
            node = follow(node["properties"][part])
        elif isinstance(node.get("additionalProperties"), dict):
            node = follow(node["additionalProperties"])
    return node
