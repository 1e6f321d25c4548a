"""The API keys of the caller."""

from http import HTTPStatus

from app.auth import api_keys
from app.auth.dependencies import LoggedInUser, RecentLogin, SessionDep
from app.auth.models import ApiKey
from app.auth.schemas import ApiKeyCreate, ApiKeyRead, NewApiKeyRead
from app.core.routing import IdPath, Router

router = Router(prefix="/auth/keys", tags=["auth"], max_body_size=128 * 1024)


@router.get("", response_model=list[ApiKeyRead])
async def list_api_keys(user: LoggedInUser, session: SessionDep) -> list[ApiKey]:
    """List your API keys, including those that have expired."""
    return await api_keys.list_keys(session, user.user_id)


@router.post("", status_code=HTTPStatus.CREATED)
async def create_api_key(
    data: ApiKeyCreate, user: RecentLogin, session: SessionDep
) -> NewApiKeyRead:
    """Create an API key, to be sent as `Authorization: Bearer <key>`. Needs a recent login.

    A request can use only those of its scopes that you still hold. It cannot change your
    account.
    """
    created, token = await api_keys.create_key(session, user, data)
    read = ApiKeyRead.model_validate(created)
    return NewApiKeyRead(**read.model_dump(), key=token)


@router.delete("/{key_id:id}", status_code=HTTPStatus.NO_CONTENT)
async def delete_api_key(key_id: IdPath, user: RecentLogin, session: SessionDep) -> None:
    """Delete an API key, which ends its use at once. Needs a recent login."""
    await api_keys.delete_key(session, user, key_id)
