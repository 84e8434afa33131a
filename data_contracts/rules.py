"""The rules of a contract: row rules send a row to quarantine, batch rules judge a whole partition.

Row rules come from `required`, the logical type, `logicalTypeOptions`, `enum`, `relationships`, and from quality
entries that allow no failing row (`mustBe: 0`, severity error). A threshold, a share or uniqueness is a batch rule,
never a row's verdict. A rule that cannot be run is a fault of the contract. docs/rules.md has them all.

Source: ODCS v3.2, "Data quality" and "Schema".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from data_contracts.errors import ContractError
from data_contracts.odcs import Fault, FieldPath
from data_contracts.rowchecks import FAULT_COLUMN, failing
from data_contracts.ruling.columns import TYPED, column_findings
from data_contracts.ruling.comparison import OPERATORS, holds
from data_contracts.ruling.context import NOTHING, RuleContext
from data_contracts.ruling.kinds import BatchRule, Finding, RowRule
from data_contracts.ruling.quality import quality_findings
from data_contracts.ruling.relations import relation_findings

if TYPE_CHECKING:
    from data_contracts.contract import Contract

__all__ = ["OPERATORS", "BatchRule", "RowRule", "batch_rules", "failing", "holds", "row_rules", "rule_faults"]


def row_rules(contract: Contract, context: RuleContext = NOTHING) -> tuple[RowRule, ...]:
    """Return the row rules in the order of the columns; the first is that the record can be decoded.

    A rule that asks for more than the row (keys of another data set, numbers of tokens) gets it from the context when
    it is first run, and refuses to judge without.

    Raises:
        ContractError: a rule cannot be run.
    """
    rules = [RowRule("record.decodes", FAULT_COLUMN, "decodes", {}, "the record can be decoded")]
    rules += [_bound(rule, contract, context) for rule in _checked(contract) if isinstance(rule, RowRule)]
    terms = contract.terms
    if terms.licence_column is not None:
        allowed = list(terms.licences_allowed)
        what = f"the licence is one of {', '.join(allowed)}"
        arguments = {"allowed": allowed}
        rules.append(RowRule(f"{terms.licence_column}.allowed", terms.licence_column, "licence", arguments, what))
    return tuple(rules)


def batch_rules(contract: Contract, context: RuleContext = NOTHING) -> tuple[BatchRule, ...]:
    """Return the batch rules: those of the columns, then those of the object. `context` is for the row rules in them.

    Raises:
        ContractError: a rule cannot be run.
    """
    found = []
    for rule in _checked(contract):
        if isinstance(rule, BatchRule):
            inner = tuple(_bound(row, contract, context) for row in rule.arguments.get("rules", ()))
            found.append(replace(rule, arguments={**rule.arguments, "rules": inner}) if inner else rule)
    return tuple(found)


def rule_faults(table: Mapping[str, Any], base: FieldPath) -> Iterator[Fault]:
    """Yield the rules of an ODCS schema object that cannot be run; its shape is that of the ODCS schema."""
    for finding in _findings(table, base):
        if isinstance(finding, Fault):
            yield finding


def _checked(contract: Contract) -> list[RowRule | BatchRule]:
    findings = list(_findings(contract.document["schema"][0], ("schema", 0)))
    faults = [f"{'.'.join(map(str, f.path))}: {f.sentence}" for f in findings if isinstance(f, Fault)]
    if faults:
        raise ContractError("\n".join(f"{contract.path}: {line}" for line in faults))
    rules: list[RowRule | BatchRule] = []
    seen: Counter[str] = Counter()
    for rule in findings:
        if isinstance(rule, (RowRule, BatchRule)):
            seen[rule.name] += 1
            rules.append(rule if seen[rule.name] == 1 else replace(rule, name=f"{rule.name}#{seen[rule.name]}"))
    return rules


def _bound(rule: RowRule, contract: Contract, context: RuleContext) -> RowRule:
    given = rule.arguments
    if rule.kind == "foreignKey" and context.references is not None:
        from data_contracts.checks.keys import KnownKeys

        known = KnownKeys(context.references, given["dataset"], given["to"], given["logicalTypes"])
        return replace(rule, arguments={**given, "known": known})
    if rule.kind == "lengthInTokens":
        if context.count_tokens is not None:
            return replace(rule, arguments={**given, "count": context.count_tokens})
        if "tokenizer" in given:
            file = str(contract.path.parent / given["tokenizer"]["file"])
            return replace(rule, arguments={**given, "tokenizer": {**given["tokenizer"], "file": file}})
    return rule


def _findings(table: Mapping[str, Any], base: FieldPath) -> Iterator[Finding]:
    columns = table.get("properties") or []
    types = {column["name"]: column.get("logicalType", "string") for column in columns}
    if not set(types.values()) <= TYPED:
        return  # the contract's own check names the unsupported type
    for index, column in enumerate(columns):
        path = (*base, "properties", index)
        yield from column_findings(column, path)
        for position, entry in enumerate(column.get("relationships") or []):
            yield from relation_findings(entry, column["name"], table, types, (*path, "relationships", position))
        for position, check in enumerate(column.get("quality") or []):
            yield from quality_findings(check, column, types, (*path, "quality", position), table["name"])
    for index, entry in enumerate(table.get("relationships") or []):
        yield from relation_findings(entry, None, table, types, (*base, "relationships", index))
    for index, check in enumerate(table.get("quality") or []):
        yield from quality_findings(check, None, types, (*base, "quality", index), table["name"])
