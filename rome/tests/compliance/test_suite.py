"""SQLAlchemy's tests; those that are left out stand in requirements.py and conftest.py."""

from sqlalchemy.testing.suite import *  # noqa: F403
