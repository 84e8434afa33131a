"""Personal data in a text: addresses and numbers whose form and check digits are right.

Sources: RFC 5322 for e-mail; libphonenumber (`phonenumbers`) for telephone numbers; ISO/IEC 7812 for card numbers; ISO
13616 for IBAN; `python-stdnum` for IBAN, card numbers and national numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

KINDS = ("email", "phone", "card", "iban")
# An address, or a token with enough digits to be one of the others.
MAY_BE_PERSONAL = r"@[A-Za-z0-9]|[0-9](?:[ ./()-]{0,2}[0-9A-Z]){5}"

# Every repetition has an end, so that no text takes longer than its length times a constant. A local part has at most
# 64 octets, a label 63 (RFC 5321 section 4.5.3.1).
_EMAIL = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-][A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{0,63}"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,63}\b"
)
_CARD = re.compile(r"(?<![\w.-])[0-9](?:[ -]?[0-9]){12,18}(?![\w-])")
# The first digits of the large networks, ISO/IEC 7812-1: one number in ten has the right check digit by chance.
_NETWORKS = re.compile(r"4|5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)|3[47]|3(?:0[0-5]|[689])|6(?:011|4[4-9]|5)|35|62")
_IBAN = re.compile(r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_NATIONAL = re.compile(r"(?<![\w.])[A-Z]{0,4}[0-9](?:[ ./-]?[0-9A-Z]){4,20}(?![\w])")


def personal(text: str, given: Mapping[str, Any]) -> bool:
    """Say whether more than `maximum` (0) pieces of the `kinds` of personal data stand in the text."""
    most = given.get("maximum", 0)
    count = 0
    for kind in given.get("kinds", KINDS):
        for _ in found(text, kind, given.get("region")):
            count += 1
            if count > most:
                return True
    return False


def found(text: str, kind: str, region: str | None = None) -> Iterator[str]:
    """Yield the pieces of one kind; `region` (ISO 3166) reads telephone numbers without a country code."""
    match kind:
        case "email":
            for match in _EMAIL.finditer(text):
                local = match.group().rpartition("@")[0]
                if ".." not in local and not local.endswith("."):
                    yield match.group()
        case "phone":
            import phonenumbers

            yield from (number.raw_string for number in phonenumbers.PhoneNumberMatcher(text, region))
        case "card":
            for match in _CARD.finditer(text):
                digits = re.sub(r"\D", "", match.group())
                if _NETWORKS.match(digits) and _luhn(digits) and len(set(digits)) > 1:
                    yield match.group()
        case "iban":
            from stdnum import iban

            yield from (match.group() for match in _IBAN.finditer(text) if iban.is_valid(match.group()))
        case name:
            is_valid = validator(name)
            if is_valid is not None:
                yield from (match.group() for match in _NATIONAL.finditer(text) if is_valid(match.group()))


@lru_cache(maxsize=128)
def validator(name: str) -> Callable[[str], bool] | None:
    """Return the check of a national number by its name in python-stdnum (`se.personnummer`), or None."""
    if not re.fullmatch(r"[a-z]{2}\.[a-z0-9_]+", name):
        return None
    from stdnum.util import get_cc_module

    try:
        module = get_cc_module(*name.split("."))
    except ImportError:
        return None
    return getattr(module, "is_valid", None)


def _luhn(digits: str) -> bool:
    total = 0
    for position, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (1 + position % 2)
        total += doubled - 9 * (doubled > 9)
    return total % 10 == 0
