"""Types that SQLite would not keep without loss."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from sqlalchemy import types

DECLARED = "DECIMAL_TEXT"  # its affinity is TEXT: digits are kept as they are


class RomeNumeric(types.Numeric[Any]):
    """Decimals as text, all digits kept; compared and ordered as numbers by a collation.

    Arithmetic and sums over them are SQLite's, in double precision.
    """

    def bind_processor(self, dialect: Any) -> Callable[[Any], Any]:
        def process(value: Any) -> Any:
            if value is None:
                return None
            number = value if isinstance(value, Decimal) else Decimal(str(value))
            return format(number, "f") if number.is_finite() else str(number)

        return process

    def result_processor(self, dialect: Any, coltype: Any) -> Callable[[Any], Any]:
        scale = self._effective_decimal_return_scale

        def process(value: Any) -> Any:
            if value is None:
                return None
            if not self.asdecimal:
                return float(value)
            # Results of arithmetic come as numbers; a column's own values as text.
            return Decimal(value) if isinstance(value, str) else Decimal(f"{value:.{scale}f}")

        return process
