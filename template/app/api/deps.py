"""What a route can ask for in its signature."""

from typing import Annotated

from fastapi import Depends, Path, Request
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.convertors import Convertor, register_url_convertor

from app.db.base import LARGEST_ID
from app.db.session import Database, get_session
from app.settings import Settings


# Asynchronous, though they wait for nothing: FastAPI runs every other function in a thread.
async def get_settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def get_database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


# Function scope commits before the response leaves: a commit that fails is an error, not a 200.
SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]
# For a look beforehand, `async with database.readers() as session`, that holds no lock while slow
# work (hashing, a call to another service) goes on; then write with SessionDep.
DatabaseDep = Annotated[Database, Depends(get_database)]
SettingsDep = Annotated[Settings, Depends(get_settings)]


class IdConvertor(Convertor[int]):
    """`/{book_id:id}` matches digits alone, so that `/me` beside it stays a path of its own."""

    regex = "[0-9]{1,19}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("id", IdConvertor())

# An id in a path: what the database can hold, so that 2**63 is a 422 and not an error there.
IdPath = Annotated[int, Path(ge=1, le=LARGEST_ID)]
