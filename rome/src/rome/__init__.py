"""ROME: relational databases on a key/value store, through SQLAlchemy."""

__version__ = "0.1.0"
