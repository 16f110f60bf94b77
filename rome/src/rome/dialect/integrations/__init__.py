"""What other libraries look for by a dialect's name: registered where they are in use."""

from __future__ import annotations

import importlib
import importlib.util
import threading

_lock = threading.Lock()
_registered: set[str] = set()


def register() -> None:
    """Tell Alembic and oslo.db about ROME, if they are installed; once."""
    with _lock:
        for library, module in (("alembic", "alembic_impl"), ("oslo_db", "oslo_filters")):
            if library not in _registered and importlib.util.find_spec(library):
                importlib.import_module(f"rome.dialect.integrations.{module}")
                _registered.add(library)
