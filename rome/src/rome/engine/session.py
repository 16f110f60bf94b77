"""What the transactions of one connection work with, and the overlay of the open one."""

from __future__ import annotations

from rome.engine.holds import Holds
from rome.engine.overlay import Overlay
from rome.engine.shared import Options, Shared
from rome.errors import InternalError
from rome.planner.workspace import Workspace
from rome.schema.catalogue import Schema
from rome.schema.tables import Table
from rome.stores.base import Store


class Session:
    """A connection's store, schema and work area, its choices, and the open transaction's overlay.

    It does nothing by itself, and refers to none of those who work with it.
    """

    __slots__ = (
        *("store", "catalogue", "ids", "row_locks", "work", "overlay"),
        *("check_foreign_keys", "serializable", "holds_rows", "holds", "__weakref__"),
    )

    def __init__(self, store: Store, shared: Shared, options: Options) -> None:
        self.store = store
        self.catalogue = shared.catalogue
        self.ids = shared.ids
        self.row_locks = shared.row_locks
        self.work = Workspace()
        self.overlay = Overlay()
        self.check_foreign_keys = options.foreign_keys
        self.serializable = options.serializable
        self.holds_rows = False  # whether `row_locks` has some for it
        self.holds = Holds(store)

    @property
    def schema(self) -> Schema:
        """The schema that the work area has; loaded when first asked for."""
        schema = self.work.schema
        if schema is None:
            schema = self.catalogue.schema
            if not schema.version:
                schema = self.catalogue.load(self.store)
            self.work.use(schema)
        return schema

    def table_of(self, number: int) -> Table:
        """Return the table of a number."""
        table = self.schema.by_number(number)
        if table is None:
            raise InternalError(f"no table has number {number}")
        return table
