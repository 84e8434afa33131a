"""`python -m flows.database`: bring a Prefect server's database to this Prefect's schema, once, before it starts.

Each process of a server does this as it starts; on an empty PostgreSQL they run into each other, one fails, and all
end. The database is that of the environment (PREFECT_SERVER_DATABASE_CONNECTION_URL).
"""

from __future__ import annotations

import asyncio

from prefect.server.database import provide_database_interface
from prefect.server.models.block_registration import run_block_auto_registration


async def prepare() -> None:
    """Make the tables and register the block types that Prefect ships."""
    database = provide_database_interface()
    await database.create_db()
    async with await database.session() as session:
        await run_block_auto_registration(session=session)


if __name__ == "__main__":
    asyncio.run(prepare())
