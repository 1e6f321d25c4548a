"""The audit trail over HTTP."""

import re
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query
from pydantic import AwareDatetime, BeforeValidator, Field

from app.auth import audit
from app.auth.dependencies import SessionDep, require
from app.auth.models import AuditEvent
from app.auth.schemas import AuditEventRead
from app.core.pagination import Page, PageDep
from app.core.routing import Router
from app.core.types import MAX_ID, ShortText

router = Router(prefix="/audit", tags=["audit"])


def _reject_number(text: str) -> str:
    # Pydantic would take it for the seconds since 1970.
    if not re.match(r"\d{4}-", text):
        raise ValueError("use a time such as 2026-01-31T12:00:00Z")
    return text


_Id = Annotated[int, Field(ge=1, le=MAX_ID)]
# Times that every database can store, also after they were converted to UTC.
_Time = Annotated[
    AwareDatetime,
    BeforeValidator(_reject_number),
    Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(3000, 1, 1, tzinfo=UTC)),
]
_TargetType = Annotated[ShortText, Field(max_length=64)]


@router.get("", response_model=Page[AuditEventRead], dependencies=[require("audit:read")])
async def list_events(
    page: PageDep,
    session: SessionDep,
    actor_id: Annotated[_Id | None, Query(description="The id of the user who did it.")] = None,
    target_id: Annotated[_Id | None, Query(description="The id of what was changed.")] = None,
    target_type: Annotated[_TargetType, Query(description="The table of `target_id`.")] = "users",
    since: Annotated[_Time | None, Query(description="The earliest time.")] = None,
    until: Annotated[_Time | None, Query(description="The time before which it was.")] = None,
) -> Page[AuditEvent]:
    """List who changed which user, permission or login session. The newest event is first."""
    target = (target_type, target_id) if target_id is not None else None
    wanted = audit.AuditFilter(actor_id, target, since, until)
    return await audit.find_events(session, wanted, page)
