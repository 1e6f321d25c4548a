from fastapi import Request
from pydantic import BaseModel

import app
from app.api.deps import SettingsDep
from app.core.routing import Router

router = Router(tags=["home"])


class Home(BaseModel):
    name: str
    version: str
    docs: str | None


@router.get("/")
async def read_home(request: Request, settings: SettingsDep) -> Home:
    """The name and version of this service, and the path of its documentation."""
    docs = request.scope.get("root_path", "") + "/docs"
    return Home(
        name=app.TITLE,
        version=app.VERSION,
        docs=docs if settings.docs_are_on else None,
    )
