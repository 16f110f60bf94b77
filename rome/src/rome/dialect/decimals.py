"""Decimals, which SQLite keeps as integers or doubles.

A value that a statement stores is rounded to the scale of its column, half away from zero as
MySQL's DECIMAL does; then it must have no more digits than a double keeps.  Values in
conditions and expressions are never rounded, as that would change what they are compared with.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation
from typing import Any

from sqlalchemy import types

from rome.errors import DataError

_DIGITS = 15  # a double gives so many back as they were
# Its precision is more than a double's range of places before and behind the point.
_CONTEXT = Context(prec=1000, rounding=ROUND_HALF_UP)

Processor = Callable[[Any], Any]


class RomeNumeric(types.Numeric[Any]):
    """Decimals as numbers of SQLite's: they compare, sort and add up as such.

    A decimal with more digits than a double keeps, NaN and infinity are refused with DataError.
    """

    stores = False  # whether it binds values to be stored in a column

    def bind_processor(self, dialect: Any) -> Processor:
        scale = self.scale if self.stores else None
        unit = None if scale is None else Decimal(1).scaleb(-scale)

        def process(value: Any) -> Any:
            if value is None:
                return None
            if unit is None and isinstance(value, int):
                return value
            try:
                number = value if isinstance(value, Decimal) else Decimal(str(value))
                if not number.is_finite():
                    raise DataError(f"{number} is no decimal that can be kept")
                if unit is not None:
                    number = number.quantize(unit, context=_CONTEXT)
            except InvalidOperation:
                raise DataError(f"{value!r} is no decimal that can be kept") from None
            if number == number.to_integral_value() and abs(number) < 2**63:
                return int(number)
            nearest = float(number)
            # A float stands for the decimal that it is written as.
            if not isinstance(value, float) and Decimal(repr(nearest)) != number:
                raise DataError(
                    f"{number} has more digits than can be kept; round it to {_DIGITS} of them"
                )
            return nearest

        return process

    def result_processor(self, dialect: Any, coltype: Any) -> Processor:
        places = self._effective_decimal_return_scale
        unit = None if self.scale is None else Decimal(1).scaleb(-places)

        def process(value: Any) -> Any:
            if value is None:
                return None
            if unit is None and not self.asdecimal:
                return float(value)
            number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
            if number.is_finite():
                number = scaled(number, value)
            return number if self.asdecimal else float(number)

        def scaled(number: Decimal, value: Any) -> Decimal:
            # More digits come from arithmetic in doubles: 0.1 + 0.2.
            exact = not isinstance(value, float) or len(number.as_tuple().digits) <= _DIGITS
            if unit is None:
                return number if exact else Decimal(f"{value:.{places}f}")
            if not exact and _places(number) > places:
                certain = max(places, _DIGITS - 1 - number.adjusted())
                number = Decimal(f"{value:.{certain}f}").normalize(_CONTEXT)
            # Digits beyond the scale are those of a quotient, a mean, a product: they stay.
            return number if _places(number) > places else number.quantize(unit, context=_CONTEXT)

        return process


def _places(number: Decimal) -> int:
    """Return how many digits stand behind the point, perhaps none."""
    exponent = number.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def storing_processor(type_: Any, dialect: Any) -> Processor | None:
    """Return what binds values that are stored in a column of this type, if that is a decimal
    with a scale; None: any other type, which binds all values alike."""
    stored = _storing(type_.dialect_impl(dialect))
    if stored is None:
        return None
    processor: Processor | None = stored.bind_processor(dialect)
    return processor


def _storing(type_: Any) -> Any:
    if isinstance(type_, RomeNumeric):
        if type_.scale is None:
            return None
        storing = copy.copy(type_)
        storing.stores = True
        return storing
    if isinstance(type_, types.TypeDecorator):
        inner = _storing(type_.impl_instance)
        if inner is not None:
            decorated = copy.copy(type_)
            decorated.impl = decorated.impl_instance = inner
            return decorated
    return None
