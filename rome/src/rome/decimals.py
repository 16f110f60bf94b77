"""Decimals, which SQLite keeps as integers or doubles: those that would lose digits are refused."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from sqlalchemy import types

from rome.errors import DataError

_DIGITS = 15  # a double gives so many back as they were


class RomeNumeric(types.Numeric[Any]):
    """Decimals as numbers of SQLite's: they compare, sort and add up as such.

    A decimal with more digits than a double keeps is refused with DataError.
    """

    def bind_processor(self, dialect: Any) -> Callable[[Any], Any]:
        def process(value: Any) -> Any:
            if value is None or isinstance(value, int | float):
                return value
            number = value if isinstance(value, Decimal) else Decimal(str(value))
            if number == number.to_integral_value() and abs(number) < 2**63:
                return int(number)
            nearest = float(number)
            if number.is_finite() and Decimal(repr(nearest)) != number:
                raise DataError(
                    f"{number} has more digits than can be kept; round it to {_DIGITS} of them"
                )
            return nearest

        return process

    def result_processor(self, dialect: Any, coltype: Any) -> Callable[[Any], Any]:
        scale = self._effective_decimal_return_scale

        def process(value: Any) -> Any:
            if value is None:
                return None
            if not self.asdecimal:
                return float(value)
            number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
            # More digits come from arithmetic in doubles: 0.1 + 0.2.
            exact = not number.is_finite() or len(number.as_tuple().digits) <= _DIGITS
            return number if exact or isinstance(value, int) else Decimal(f"{value:.{scale}f}")

        return process
