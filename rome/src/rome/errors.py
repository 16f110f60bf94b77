"""The exceptions of PEP 249, and the conflict that a caller may retry."""

from __future__ import annotations


class Warning(Exception):  # noqa: A001 - the name is PEP 249's
    """Something worth knowing that is no error."""


class Error(Exception):
    """Every error of the driver."""


class InterfaceError(Error):
    """The driver was used wrongly."""


class DatabaseError(Error):
    """The database refused."""


class DataError(DatabaseError):
    """A value can't be kept."""


class OperationalError(DatabaseError):
    """The store can't be reached, or doesn't work."""


class ConflictError(OperationalError):
    """A concurrent transaction changed what this one relied on: it may be tried again."""


class OutcomeUnknown(OperationalError):
    """Whether a commit or a change of the schema was done is not known, nor whether it lasts.

    To do it again may do it twice: look first.
    """


class IntegrityError(DatabaseError):
    """A constraint of the schema doesn't hold."""


class InternalError(DatabaseError):
    """The driver or the stored data is in a state that can't be."""


class ProgrammingError(DatabaseError):
    """The statement is wrong."""


class NotSupportedError(DatabaseError):
    """A construct of SQL that ROME doesn't carry; the message names it."""
