"""Licences as SPDX expressions: one spelling, a boolean check against a list, and what package metadata means."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cache, lru_cache
from typing import Any

import license_expression
from license_expression import ExpressionError, LicenseWithExceptionSymbol

# SPDX 2.3 clause 7.13: no attempt was made, or nothing is said. Not an expression: nothing may be done under it.
UNSTATED = "NOASSERTION"

_LICENCE_REF = re.compile(r"(DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-[A-Za-z0-9.-]+")

# Free text of the metadata field `License`, folded to lower case and single blanks; only spellings with one meaning.
_SPELLINGS = {
    "mit license": "MIT",
    "the mit license": "MIT",
    "the mit license (mit)": "MIT",
    "mit license (mit)": "MIT",
    "expat": "MIT",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache-2": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache v2": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license v2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache license version 2.0": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0",
    "bsd 2-clause": "BSD-2-Clause",
    "bsd 2-clause license": "BSD-2-Clause",
    "2-clause bsd": "BSD-2-Clause",
    "simplified bsd": "BSD-2-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "bsd-3": "BSD-3-Clause",
    "3-clause bsd": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "new bsd license": "BSD-3-Clause",
    "modified bsd": "BSD-3-Clause",
    "isc license": "ISC",
    "the unlicense": "Unlicense",
    "mozilla public license 2.0": "MPL-2.0",
    "mpl 2.0": "MPL-2.0",
    "gplv3": "GPL-3.0-only",
    "gplv3+": "GPL-3.0-or-later",
    "lgplv3": "LGPL-3.0-only",
    "python software foundation license": "PSF-2.0",
}

# Trove classifiers that name one licence. Others name a family (PEP 639, "Mapping License Classifiers to SPDX
# Identifiers"), so a package that says nothing else has no known licence.
_CLASSIFIERS = {
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "ISC License (ISCL)": "ISC",
    "The Unlicense (Unlicense)": "Unlicense",
    "zlib/libpng License": "Zlib",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "Python Software Foundation License": "PSF-2.0",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
    "CMU License (MIT-CMU)": "MIT-CMU",
    "Zero-Clause BSD (0BSD)": "0BSD",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 (LGPLv2)": "LGPL-2.0-only",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
}
# The families: the text field may say which member it is.
_FAMILIES = {"BSD License": "BSD-", "Apache Software License": "Apache-"}


@cache
def _licensing() -> Any:
    return license_expression.get_spdx_licensing()


@lru_cache(maxsize=4096)
def _parse(text: str) -> Any | None:
    try:
        parsed = _licensing().parse(text)
        if parsed is None or not all(_LICENCE_REF.fullmatch(k) for k in _licensing().unknown_license_keys(parsed)):
            return None
    # The library lets plain errors of its boolean parser through for some malformed texts.
    except (ExpressionError, ValueError, TypeError, AttributeError, IndexError):
        return None
    # 'A WITH B' where A is no licence or B is no exception is no SPDX expression, though it parses.
    for symbol in parsed.symbols:
        if isinstance(symbol, LicenseWithExceptionSymbol):
            if getattr(symbol.license_symbol, "is_exception", False) or not symbol.exception_symbol.is_exception:
                return None
        elif getattr(symbol, "is_exception", False):
            return None
    return parsed


def normalise(text: str | None) -> str | None:
    """Return the text as an SPDX licence expression in its one spelling, or None when it is none.

    Deprecated identifiers become their successors (`GPL-2.0` is `GPL-2.0-only`); `LicenseRef-…` is kept as it is.
    Source: SPDX specification 2.3, annex D.
    """
    parsed = _parse(text.strip()) if text and text.strip() else None
    return None if parsed is None else str(parsed.render())


def permitted(expression: str | None, allowed: Collection[str]) -> bool:
    """Say whether a licence expression can be satisfied with the allowed licences alone.

    `A OR B` needs one branch, `A AND B` both; `A WITH B` must be listed as a whole, because an exception changes
    what its licence asks. Text that is no SPDX expression is not permitted.
    """
    parsed = _parse(expression.strip()) if expression and expression.strip() else None
    if parsed is None:
        return False
    listed = {normalise(entry) or entry for entry in allowed}
    return _satisfied(parsed, listed)


def _satisfied(node: Any, listed: Collection[str]) -> bool:
    if node.isliteral:
        return node.render() in listed
    branches = [_satisfied(branch, listed) for branch in node.args]
    return all(branches) if type(node).__name__ == "AND" else any(branches)


def bars_commercial_use(expression: str | None) -> bool:
    """Say whether no branch of the expression is free of a non-commercial licence (CC BY-NC and the like)."""
    parsed = _parse(expression.strip()) if expression and expression.strip() else None
    if parsed is None:
        return False
    symbols = {str(symbol.render()) for symbol in parsed.symbols}
    free = {name for name in symbols if "NC" not in name.split("-") and "noncommercial" not in name.lower()}
    return not _satisfied(parsed, free)


def from_metadata(license_expression: str | None, classifiers: Sequence[str], license_field: str | None) -> str | None:
    """Return the SPDX expression that a Python package's metadata states, or None when it states no known one.

    `License-Expression` (PEP 639) decides alone. Without it the classifiers and the text field `License` are read,
    and all licences that they name are joined with AND: nothing says that one may choose among them.
    """
    if license_expression and license_expression.strip():
        return normalise(license_expression)
    folded = " ".join((license_field or "").lower().split())
    stated = _SPELLINGS.get(folded) or (normalise(license_field) if len(folded) <= 200 else None)
    parsed = _parse(stated) if stated else None
    symbols = {str(symbol.render()) for symbol in parsed.symbols} if parsed is not None else set()
    found = {f"({stated})"} if stated else set()
    for entry in classifiers:
        end = entry.rsplit(" :: ", 1)[-1]
        if not entry.startswith("License :: ") or end == "OSI Approved":
            continue
        family = _FAMILIES.get(end)
        if family is not None and any(symbol.startswith(family) for symbol in symbols):
            continue
        if end not in _CLASSIFIERS:
            return None
        if _CLASSIFIERS[end] not in symbols:
            found.add(f"({_CLASSIFIERS[end]})")
    return normalise(" AND ".join(sorted(found)))
