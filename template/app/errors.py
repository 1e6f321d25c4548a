"""The errors that routes raise. Yours go here: a status and a sentence, such as

from http import HTTPStatus

class Gone(AppError):
    status_code = HTTPStatus.GONE
    detail = "This book was sold."
"""

from app.core.errors import AppError as AppError
from app.core.errors import Conflict as Conflict
from app.core.errors import FieldError as FieldError
from app.core.errors import Invalid as Invalid
from app.core.errors import NotFound as NotFound
from app.core.errors import PermissionDenied as PermissionDenied
from app.core.errors import ServiceUnavailable as ServiceUnavailable
from app.core.errors import Unauthenticated as Unauthenticated
