"""For whoever runs the app: a process manager asks `live`, a load balancer asks `ready`."""

import logging
from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from app.api.deps import SessionDep
from app.db.revision import migration_state
from app.errors import ServiceUnavailable

router = APIRouter(prefix="/health", tags=["health"])
logger = logging.getLogger(__name__)


class Health(BaseModel):
    status: Literal["ok"] = "ok"


@router.get("/live")
async def read_liveness() -> Health:
    """The process answers. Never touches the database: a restart would not mend that."""
    return Health()


@router.get(
    "/ready",
    responses={HTTPStatus.SERVICE_UNAVAILABLE: {"description": "Not ready for requests"}},
)
async def read_readiness(session: SessionDep) -> Health:
    """The database answers and has the migrations of this code."""
    try:
        state = await migration_state(session)
    except SQLAlchemyError as error:
        logger.error("Not ready: %s", error)
        raise ServiceUnavailable("The database does not answer.") from None
    if not state.at_head:
        logger.error("Not ready: %s", state)
        raise ServiceUnavailable("The database is not at the revision of this release.")
    return Health()
