from fastapi import APIRouter
from pydantic import BaseModel

import app
from app.api.deps import SettingsDep

router = APIRouter(tags=["home"])


class Home(BaseModel):
    name: str
    version: str
    docs: str | None


@router.get("/")
async def read_home(settings: SettingsDep) -> Home:
    """What this service is, and where it is documented."""
    return Home(
        name=app.TITLE,
        version=app.VERSION,
        docs="/docs" if settings.docs_are_on else None,
    )
