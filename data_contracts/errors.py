"""The one exception tree of Causeway.

    CausewayError
    ├── ContractError    a contract or its terms cannot be read: file:line: field: what, and the fix
    ├── DataRefused      data cannot be used: a missing or unreadable source, a partition its rules refuse
    ├── PolicyRefused    the terms of a data set do not permit what was asked
    ├── StoreError       an object is missing, damaged, already there, or its store cannot be reached
    └── RoundError       a plan, contribution, commit or chain breaks a rule of the protocol

Every message is for the person who must act: what was wrong, where, and what to do.
"""

from __future__ import annotations

__all__ = [
    "CausewayError",
    "ContractError",
    "DataRefused",
    "PolicyRefused",
    "RoundError",
    "StoreError",
]


class CausewayError(Exception):
    """Base of every error Causeway raises on purpose; the CLI prints it without a traceback."""


class ContractError(CausewayError):
    """A contract, or its `trainingTerms`, is not what ODCS or our schema allows."""


class DataRefused(CausewayError):
    """Data cannot be taken in: the source is missing or unreadable, or a rule refuses it."""


class PolicyRefused(CausewayError):
    """The terms in force do not permit this use at this place; the message holds each reason."""


class StoreError(CausewayError):
    """An object store cannot do what was asked; the message names the object."""


class ObjectExists(StoreError):
    """A create-only put found an object under the key: somebody was first."""


class ObjectMissing(StoreError):
    """No object lies under the key."""


class RoundError(CausewayError):
    """A plan, contribution, commit or ledger breaks a rule; the message names the object and the rule."""
