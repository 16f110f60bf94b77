"""SQLite's errors as those of PEP 249, with SQLite's own words."""

from __future__ import annotations

import apsw

from rome import errors

_KINDS: tuple[tuple[type[apsw.Error], type[errors.Error]], ...] = (
    (apsw.ConstraintError, errors.IntegrityError),
    (apsw.MismatchError, errors.IntegrityError),
    (apsw.TooBigError, errors.DataError),
    (apsw.RangeError, errors.ProgrammingError),
    (apsw.BindingsError, errors.ProgrammingError),
    (apsw.IncompleteExecutionError, errors.ProgrammingError),
    (apsw.MisuseError, errors.InterfaceError),
    (apsw.InternalError, errors.InternalError),
    (apsw.CorruptError, errors.InternalError),
)


def translated(error: apsw.Error) -> errors.Error:
    """The error to raise in place of SQLite's."""
    for theirs, ours in _KINDS:
        if isinstance(error, theirs):
            return ours(str(error))
    return errors.OperationalError(str(error))
