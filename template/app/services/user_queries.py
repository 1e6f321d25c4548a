"""Users with their permissions, in one statement: for a list that is read all the time.

`select(User).options(selectinload(User.permissions))` is shorter and says the same with two, at
twice the time: the better beginning for lists of your own.
"""

from sqlalchemy import Select, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import NotFound
from app.models.user import Permission, User, user_permissions
from app.schemas.user import PermissionRead, UserRead


async def list_users(
    session: AsyncSession, page: Select[User], search: str | None
) -> list[UserRead]:
    """The users of a page, with their permissions, in one statement."""
    if search:
        page = page.where(
            or_(
                User.username.contains(search, autoescape=True),
                User.email.contains(search, autoescape=True),
            )
        )
    user = page.subquery()
    statement = (
        select(
            user.c.id,
            user.c.username,
            user.c.email,
            user.c.is_active,
            Permission.id,
            Permission.name,
            Permission.description,
        )
        .select_from(user)
        .outerjoin(user_permissions, user_permissions.c.user_id == user.c.id)
        .outerjoin(Permission, Permission.id == user_permissions.c.permission_id)
    )
    # A row for each permission of a user, or one without. Sorted here, which costs no index.
    users: dict[int, UserRead] = {}
    for number, username, email, is_active, held, name, description in await session.execute(
        statement
    ):
        if number not in users:
            users[number] = UserRead(
                id=number, username=username, email=email, is_active=is_active, permissions=[]
            )
        if held is not None:
            permission = PermissionRead(id=held, name=name, description=description)
            users[number].permissions.append(permission)
    for listed in users.values():
        listed.permissions.sort(key=lambda permission: permission.name)
    return sorted(users.values(), key=lambda listed: listed.id)


async def read_user(session: AsyncSession, user_id: int) -> UserRead:
    found = await list_users(session, select(User).where(User.id == user_id), None)
    if not found:
        raise NotFound(f"There is no user {user_id}.")
    return found[0]
