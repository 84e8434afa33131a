"""What is tried again: faults that pass by themselves. A refusal is final, and repeating it would only hide it."""

from __future__ import annotations

from typing import Any

from data_contracts.errors import ContractError, DataRefused, PolicyRefused, RoundError

FINAL = (ContractError, DataRefused, PolicyRefused, RoundError)


async def is_transient(_task: Any, _run: Any, state: Any) -> bool:
    """Prefect's `retry_condition_fn`: True unless the task was refused."""
    try:
        await state.aresult(raise_on_failure=True)
    except FINAL:
        return False
    except Exception:
        return True
    return True
