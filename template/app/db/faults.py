"""Which database errors are an outage, over with time, which a conflict, and which a mistake."""

import sqlite3

from sqlalchemy.exc import DBAPIError, OperationalError

# The file, the disk or another writer stands in the way (sqlite.org/rescode.html).
SQLITE_OUTAGES = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOTADB,
}
# A value that is taken, or a reference to a row that is not there. A missing or unfit value is
# not among them: the schema of the request should have refused it.
SQLITE_CONFLICTS = {
    sqlite3.SQLITE_CONSTRAINT_UNIQUE,
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY,
}
# PostgreSQL, appendix A: restrict, foreign_key, unique and exclusion violation.
POSTGRESQL_CONFLICTS = {"23001", "23503", "23505", "23P01"}
# read_only_sql_transaction: a standby, after the server that could write has failed.
POSTGRESQL_OUTAGES = {"25006"}


def is_outage(error: DBAPIError, *, only_reads: bool) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is None:
        sqlstate = getattr(error.orig, "sqlstate", None)
        return isinstance(error, OperationalError) or sqlstate in POSTGRESQL_OUTAGES
    if only_reads and code == sqlite3.SQLITE_READONLY:
        # A write in a GET: its connection is read-only by our own choice.
        return False
    # An extended result code carries the primary one in its low byte.
    return code & 0xFF in SQLITE_OUTAGES


def is_conflict(error: DBAPIError) -> bool:
    if getattr(error.orig, "sqlite_errorcode", None) in SQLITE_CONFLICTS:
        return True
    # ON DELETE RESTRICT has the code of a trigger.
    if str(error.orig) == "FOREIGN KEY constraint failed":
        return True
    return getattr(error.orig, "sqlstate", None) in POSTGRESQL_CONFLICTS
