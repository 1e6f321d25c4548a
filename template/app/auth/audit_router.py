"""The audit trail over HTTP."""

from typing import Annotated

from fastapi import Query
from pydantic import Field

from app.auth import audit
from app.auth.dependencies import SessionDep, require
from app.auth.models import AuditEvent
from app.auth.schemas import AuditEventRead
from app.core.pagination import Page, PageDep, page_before, paginate
from app.core.routing import Router
from app.core.types import Id, ShortText, Timestamp

router = Router(prefix="/audit", tags=["audit"])


_TargetType = Annotated[ShortText, Field(max_length=64)]


@router.get("", response_model=Page[AuditEventRead], dependencies=[require("audit:read")])
async def list_events(
    page: PageDep,
    session: SessionDep,
    actor_id: Annotated[Id | None, Query(description="The id of the user who did it.")] = None,
    target_id: Annotated[Id | None, Query(description="The id of what was changed.")] = None,
    target_type: Annotated[_TargetType, Query(description="The table of `target_id`.")] = "users",
    since: Annotated[Timestamp | None, Query(description="Only from this time on.")] = None,
    until: Annotated[Timestamp | None, Query(description="Only before this time.")] = None,
) -> Page[AuditEvent]:
    """List who changed which user, permission or login session, newest first."""
    statement = audit.filter_events(actor_id, target_type, target_id, since)
    if until is not None:
        page = page_before(page, AuditEvent.created_at, until)
    return await paginate(session, statement, page, order="-created_at")
