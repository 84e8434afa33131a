"""An ODCS document as YAML: plain values, the line of every field, and the faults that the standard's schema finds."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from data_contracts.errors import ContractError
from data_contracts.schema_check import SchemaCheck

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

FieldPath = tuple[str | int, ...]

# Contracts are a few hundred values; aliases that unfold into more are an attack or an accident.
_MOST_VALUES = 100_000


@dataclass(frozen=True)
class Fault:
    """One fault of a contract: the path of the field, and a sentence that says what is wrong and what to do."""

    path: FieldPath
    sentence: str


@dataclass(frozen=True)
class Source:
    """A parsed YAML file: `plain` holds JSON values (dates as their text); `marked` knows the lines."""

    path: Path
    plain: dict[str, Any]
    marked: CommentedMap

    def line(self, path: FieldPath) -> int:
        """Return the 1-based line of a field, or of the nearest thing around it that stands in the file."""
        return self.place(path)[0]

    def place(self, path: FieldPath) -> tuple[int, int]:
        """Return the 1-based line and column of a field, or of the nearest thing around it that stands in the file."""
        node: Any = self.marked
        line, column = node.lc.line, node.lc.col
        for part in path:
            if isinstance(node, CommentedMap) and part in node:
                # A key that a merge ('<<') brought in has no place of its own.
                line, column = node.lc.key(part) if part in (node.lc.data or ()) else (line, column)
            elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
                line, column = node.lc.item(part)
            else:
                break
            node = node[part]
        return line + 1, column + 1

    def words(self, path: FieldPath) -> str:
        """Return a field's path as a person reads it: list entries by their name where they have one."""
        node: Any = self.plain
        text = ""
        for part in path:
            node = _child(node, part)
            if isinstance(part, int):
                names = [node.get(key) for key in ("name", "property", "metric")] if isinstance(node, dict) else []
                text += f"[{next((name for name in names if isinstance(name, str)), part)}]"
            else:
                text += f".{part}" if text else part
        return text or "(root)"

    def error(self, faults: Iterable[Fault]) -> ContractError:
        """Return the error that lists the faults by line."""
        return ContractError("\n".join(self.sentences(faults)))

    def sentences(self, faults: Iterable[Fault]) -> list[str]:
        """Return each fault as `file:line:column: field: what`, by line; none twice."""
        lines = sorted((self.place(f.path), f"{self.words(f.path)}: {f.sentence}") for f in faults)
        return list(dict.fromkeys(f"{self.path}:{line}:{column}: {text}" for (line, column), text in lines))


def _child(node: Any, part: str | int) -> Any:
    try:
        return node[part]
    except (KeyError, IndexError, TypeError):
        return None


class _TextDates(RoundTripConstructor):
    """Leaves dates as the text that was written: the schemas check them, and know the line when one is wrong."""


_TextDates.add_constructor("tag:yaml.org,2002:timestamp", lambda constructor, node: constructor.construct_scalar(node))


def read_yaml(path: Path) -> Source:
    """Read one YAML 1.2 document whose root is a mapping.

    Raises:
        ContractError: the file is missing, not YAML, or holds what JSON cannot (NaN, keys that are no text, cycles).
    """
    try:
        yaml = YAML(typ="rt")
        yaml.Constructor = _TextDates
        marked = yaml.load(path.read_text("utf-8"))
    except OSError as error:
        raise ContractError(f"{path}: cannot be read: {error.strerror}; give the path of a contract") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = " ".join(str(error.problem or error.context or error).split())
        raise ContractError(f"{path}:{line}:{column}: (root): not YAML: {problem}; correct the syntax") from error
    except RecursionError as error:
        raise ContractError(f"{path}:1:1: (root): nested too deeply; a contract has a dozen levels") from error
    except (YAMLError, ValueError, KeyError) as error:  # KeyError: a %YAML directive of a version that does not exist
        raise ContractError(f"{path}:1:1: (root): not YAML in UTF-8: {error}; correct the file") from error
    if not isinstance(marked, CommentedMap):
        raise ContractError(
            f"{path}:1:1: (root): a contract is a mapping (version, apiVersion, kind, id ...); write one"
        )
    source = Source(path, {}, marked)
    faults: list[Fault] = []
    try:
        plain = _plain(marked, (), faults, [0], set())
    except OverflowError as error:
        raise ContractError(f"{path}:1:1: (root): {error}; write the values out") from error
    if faults:
        raise source.error(faults)
    return Source(path, plain, marked)


def _plain(value: Any, path: FieldPath, faults: list[Fault], count: list[int], inside: set[int]) -> Any:
    count[0] += 1
    if count[0] > _MOST_VALUES or id(value) in inside:
        raise OverflowError("aliases repeat without end or unfold into more than 100,000 values")
    tag = getattr(value, "tag", None)
    if isinstance(value, (CommentedMap, CommentedSeq)) and tag is not None and tag.value:
        faults.append(Fault(path, f"the tag {tag.value} is not allowed; remove it"))
    if isinstance(value, Mapping):
        inside = inside | {id(value)}
        for key in value:
            if not isinstance(key, str):
                faults.append(Fault(path, f"the key {key!r} is no text; put it in quotes"))
        items = ((_text(str(key), path, faults), item) for key, item in value.items())
        return {key: _plain(item, (*path, key), faults, count, inside) for key, item in items}
    if isinstance(value, (list, tuple)):
        inside = inside | {id(value)}
        return [_plain(item, (*path, index), faults, count, inside) for index, item in enumerate(value)]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            faults.append(Fault(path, f"{value} is not a finite number; give one"))
        return float(value)
    if isinstance(value, str):
        return _text(value, path, faults)
    faults.append(Fault(path, f"a value of type {type(value).__name__} is not allowed; write text, a number or a list"))
    return None


def _text(value: str, path: FieldPath, faults: list[Fault]) -> str:
    """Join what JSON writes as two escapes: YAML takes each for a character, and UTF-8 has neither."""
    try:
        value.encode()
    except UnicodeEncodeError:
        try:
            return value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            faults.append(Fault(path, "an escape is half of a character; write the character itself"))
            return ""
    return str(value)


@cache
def _odcs_schema(minor: int = 2) -> dict[str, Any]:
    """The standard's schema of v3.2, as the package ships it, or what of it differs in v3.0 and v3.1.

    Compared with the schemas of v3.0.2 and v3.1.0: both require `status`; v3.0 writes exclusive bounds as booleans and
    names a library rule by `rule`. What later versions add is read in older documents too: the standard's own examples
    do so. Fields that none of them has are refused in all of them, as by the strict schema of v3.0.2.
    """
    text = resources.files("open_data_contract_standard").joinpath("schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    if minor < 2:
        schema["required"] = [*schema["required"], "status"]
    if minor < 1:
        _allow_booleans(schema)
        library = schema["$defs"]["DataQualityLibrary"]
        library["anyOf"] = [{"required": library.pop("required")}, {"required": ["rule"]}]
    return schema


def _allow_booleans(node: Any) -> None:
    if isinstance(node, dict):
        for name, inner in node.items():
            if name in ("exclusiveMinimum", "exclusiveMaximum") and isinstance(inner, dict) and "type" in inner:
                inner["type"] = [inner["type"], "boolean"]
            else:
                _allow_booleans(inner)
    elif isinstance(node, list):
        for inner in node:
            _allow_booleans(inner)


def minor_version(document: Mapping[str, Any]) -> int:
    """Return 0, 1 or 2 of a document of v3.0, v3.1 or v3.2; what says neither is checked as v3.2."""
    stated = re.match(r"v3\.([01])(\.|$)", str(document.get("apiVersion", "")))
    return int(stated.group(1)) if stated else 2


@cache
def _odcs_names() -> tuple[str, ...]:
    return tuple(sorted(set(_names(_odcs_schema()))))


def _names(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("properties"), dict):
            yield from node["properties"]
        for item in node.values():
            yield from _names(item)
    elif isinstance(node, list):
        for item in node:
            yield from _names(item)


def odcs_faults(document: Mapping[str, Any]) -> list[Fault]:
    """Check a document against the ODCS schema of its version (JSON Schema draft 2019-09)."""
    if str(document.get("apiVersion", "")).startswith("v2"):
        return [Fault(("apiVersion",), f"{document['apiVersion']} is not read; write the contract in v3.0 to v3.2")]
    return schema_faults(_odcs_check(minor_version(document)), document, (), _odcs_names)


@cache
def _odcs_check(minor: int) -> SchemaCheck:
    return SchemaCheck(_odcs_schema(minor))


def schema_faults(
    check: SchemaCheck, document: Any, base: FieldPath, names_of: Callable[[], Sequence[str]]
) -> list[Fault]:
    """Return a JSON schema's faults as sentences; `names_of` gives the field names that may have been meant."""
    errors = [leaf for error in check.errors(document) for leaf in _leaves(error)]
    names = names_of() if errors else ()
    faults: list[Fault] = []
    for error in errors:
        path = (*base, *error.absolute_path)
        if error.validator in ("additionalProperties", "unevaluatedProperties"):
            unknown = [name for name in _found(error) if re.search(rf"'{re.escape(name)}'", error.message)]
            # A fault below makes every sibling 'unevaluated'; then only names that the schema has nowhere count.
            if any(e is not error and _below(e, error) for e in errors):
                unknown = [name for name in unknown if name not in names]
            faults.extend(Fault((*path, name), _unknown(name, names)) for name in unknown)
        else:
            faults.append(Fault(path, _sentence(error)))
    return faults


def _value(error: ValidationError) -> Any:
    return error.validator_value  # the stubs type it as possibly unset, which a validator's own error never is


def _found(error: ValidationError) -> Any:
    return error.instance


def _below(error: ValidationError, above: ValidationError) -> bool:
    if error.validator in ("additionalProperties", "unevaluatedProperties") and error.path == above.path:
        return False
    return list(error.absolute_path)[: len(above.absolute_path)] == list(above.absolute_path)


def _leaves(error: ValidationError) -> list[ValidationError]:
    context = list(error.context or ())
    if error.validator not in ("oneOf", "anyOf") or not context:
        return [error]
    deepest = max(len(inner.absolute_path) for inner in context)
    if deepest > len(error.absolute_path):
        return [leaf for inner in context if len(inner.absolute_path) == deepest for leaf in _leaves(inner)][:1]
    return [error]


def _sentence(error: ValidationError) -> str:
    found = _short(_found(error))
    match error.validator:
        case "enum":
            allowed = list(_value(error))
            listed = ", ".join(map(str, allowed[:20])) + (" ..." if len(allowed) > 20 else "")
            return f"{found} is not allowed; use one of {listed}{nearest(_found(error), allowed)}"
        case "required":
            missing = [name for name in _value(error) if name not in _found(error)]
            return f"{', '.join(missing)} is missing; add it"
        case "type":
            return f"{found} is not of type {_value(error)}; correct it"
        case "oneOf" | "anyOf":
            keys = [key for inner in error.context or () if inner.validator == "required" for key in _value(inner)]
            if keys:
                return f"none of these is given, or none completely: {', '.join(dict.fromkeys(keys))}; give exactly one"
            if isinstance(_found(error), dict):
                keys = [k for branch in _value(error) for k in branch.get("required", ()) if k in _found(error)]
                return f"{', '.join(dict.fromkeys(keys)) or found} exclude one another; keep exactly one"
            return f"{found} fits none of the allowed forms; correct it"
        case "format" | "pattern":
            return f"{found} is not of the form {_value(error)}; correct it"
        case _:
            return f"{error.message[:300]}; correct it"


def _unknown(name: str, names: Sequence[str]) -> str:
    return f"there is no such field{nearest(name, names)}; correct or remove it"


def nearest(word: Any, allowed: Iterable[Any]) -> str:
    """Return ' (perhaps X?)' for the allowed word that is nearest to a mistyped one, or nothing."""
    close = difflib.get_close_matches(str(word), [str(entry) for entry in allowed], n=1)
    return f" (perhaps {close[0]}?)" if close else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
