"""A contract's page: one HTML file that needs nothing else, for the people who give the data and those who use it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from data_contracts.contracting.summary import Summary
from data_contracts.contracting.trial import Trial

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --soft: #5b6b7b; --line: #d5dce3; --back: #ffffff; --head: #f2f5f8;
        --good: #1d7a46; --bad: #b3261e; --warn: #8a5a00 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6ebf0; --soft: #9aa8b5; --line: #35414d; --back: #12181e; --head: #1b232b; --good: #6fcf97;
          --bad: #ff8a80; --warn: #f2c94c } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1.25rem 4rem; background: var(--back); color: var(--ink);
       font: 15px/1.55 system-ui, sans-serif }
h1 { font-size: 1.7rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem } p { margin: .3rem 0 }
.soft { color: var(--soft) } code, .mono { font: 13px/1.5 ui-monospace, monospace; overflow-wrap: anywhere }
.wide { overflow-x: auto } table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .4rem .7rem .4rem 0; border-bottom: 1px solid var(--line) }
th { font-weight: 600; color: var(--soft); font-size: .85rem; border-bottom-width: 2px }
td code { white-space: nowrap } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
.mark { border: 1px solid var(--line); border-radius: .3rem; padding: 0 .35rem; margin-right: .25rem; font-size: .8rem;
        white-space: nowrap }
.good { color: var(--good) } .bad { color: var(--bad) } .warn { color: var(--warn) }
.note { border-left: 3px solid var(--warn); padding: .2rem .8rem; margin: .4rem 0 }
"""
_RULES = (
    '<p class="soft">A record that fails a rule goes to quarantine, with every rule that it fails. A partition'
    " that fails a rule of its own is refused, unless the rule only warns.</p>"
)
# How a clause reads to a person who has never seen the schema.
_CLAUSES = {
    "licence.expression": "Licence of the set",
    "licence.column": "Licence of each row, in column",
    "licence.allowed": "Licences that a row may have",
    "purposes.permitted": "May be used for",
    "purposes.prohibited": "Must not be used for",
    "residency.storage": "May be stored in",
    "residency.processing": "May be processed in",
    "residency.neverIn": "Never in",
    "residency.neverOutside": "Never outside",
    "legalBasis.basis": "Legal basis",
    "legalBasis.reference": "Legal basis on record as",
    "validFrom": "From",
    "validUntil": "Until",
    "retention.period": "Kept for",
    "retention.then": "Then",
    "derivedUpdates": "Model updates",
    "heldOut.share": "Share never trained on",
    "text": "Trained on",
    "template": "Trained on, by the template",
    "attribution": "Credit",
    "revocationContact": "To withdraw data, ask",
}


def page(found: Summary, trial: Trial | None = None, links: Sequence[tuple[str, str]] = ()) -> str:
    """Return the page; `links` are (words, address relative to it). Values from data are escaped, and none is shown."""
    parts = [
        f"<h1>{escape(found.name)}</h1>",
        f'<p class="soft"><span class="mono">{escape(found.id)}</span>, version {escape(found.version)},'
        f" ODCS {escape(found.api_version)}</p>",
        *(f'<p><a href="{escape(address)}">{escape(words)}</a></p>' for words, address in links),
        *(f'<p class="note">{escape(_short(stop))}</p>' for stop in found.stops),
        _table("", ["", ""], [[escape(name), escape(text)] for name, text in found.facts]),
        _section("What may be done with it", ["clause", "says"], _terms(found)),
        _section("Columns", ["column", "type", "is", "allowed", "what it is"], _columns(found)),
        _section("Rules", ["rule", "judges", "what"], _rules(found)),
        _RULES if found.rules else "",
        *(_trial(trial) if trial else ()),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(found.name)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _terms(found: Summary) -> list[list[str]]:
    rows = [
        [escape(_CLAUSES.get(clause, clause)), f"{escape(says)} <span class='soft mono'>{escape(clause)}</span>"]
        for clause, says in found.terms
        if clause not in ("format", "heldOut.key")
    ]
    return rows or [["nothing", "the contract has no terms, so nothing may be done with the data"]]


def _columns(found: Summary) -> list[list[str]]:
    rows = []
    for column in found.columns:
        flags = [flag for flag in (*column.flags.split(", "), column.classification) if flag]
        marks = "".join(f'<span class="mark">{escape(flag)}</span>' for flag in flags)
        name, options = f"<code>{escape(column.name)}</code>", f"<span class='mono'>{escape(column.options)}</span>"
        rows.append([name, escape(column.type), marks, options, escape(column.description)])
    return rows


def _rules(found: Summary) -> list[list[str]]:
    words = {
        "row": "each record",
        "batch, error": "the partition",
        "batch, warning": "the partition, as a warning",
    }
    return [
        [f"<code>{escape(name)}</code>", words.get(kind, escape(kind)), escape(what)]
        for name, kind, what in found.rules
    ]


def _trial(trial: Trial) -> Iterable[str]:
    counts: list[list[str | int]] = [
        [escape(p.partition), _verdict(p.verdict == "accepted", p.verdict), p.rows_in, p.accepted, p.quarantined]
        for p in trial.partitions
    ]
    yield _section("Tried on data", ["partition", "verdict", "records", "accepted", "quarantined"], counts)
    rows: list[list[str | int]] = [
        [f"<code>{escape(v.rule)}</code>", v.failing, escape(v.description)] for v in trial.rows if v.failing
    ]
    if rows:
        yield _section("Records that fail a rule", ["rule", "records", "what"], rows)
    failed = [b for b in trial.batches if not b.passed]
    if failed:
        listed = [
            [escape(b.partition), f"<code>{escape(b.rule)}</code>", _verdict(False, b.severity), escape(b.detail)]
            for b in failed
        ]
        yield _section("Partitions that fail a rule", ["partition", "rule", "severity", "found"], listed)


def _verdict(good: bool, word: str) -> str:
    kind = "good" if good else "warn" if word in ("warning", "empty") else "bad"
    return f'<span class="{kind}">{escape(word)}</span>'


def _section(title: str, heads: list[str], rows: Sequence[Sequence[str | int]]) -> str:
    return _table(f"<h2>{escape(title)}</h2>", heads, rows) if rows else ""


def _table(title: str, heads: list[str], rows: Sequence[Sequence[str | int]]) -> str:
    if not rows:
        return ""
    numeric = [isinstance(value, int) for value in rows[0]]
    head = "".join(
        f'<th class="number">{escape(name)}</th>' if right else f"<th>{escape(name)}</th>"
        for name, right in zip(heads, numeric, strict=True)
    )
    head = head if any(heads) else ""
    lines = [f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows]
    top = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f'{title}<div class="wide"><table>{top}<tbody>{"".join(lines)}</tbody></table></div>'


def _cell(value: str | int) -> str:
    return f'<td class="number">{value:,}</td>' if isinstance(value, int) else f"<td>{value}</td>"


def _short(stop: str) -> str:
    """A fault without the path of the file that it was found in."""
    return stop.split(": ", 1)[-1]
