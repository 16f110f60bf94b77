"""What ROME can do, as SQLAlchemy's suite asks it: each capability open, or closed with why.

SQLite is the measure: what its dialect can, ROME can, but for temporary tables and files
that are attached as schemas.  What isn't named here is open in SQLAlchemy's own class.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements


def _open(what: str) -> Any:
    """A capability that ROME has."""
    return property(lambda _self: exclusions.open(), doc=what)  # type: ignore[no-untyped-call]


def _closed(why: str) -> Any:
    """One that it doesn't have."""
    return property(lambda _self: exclusions.closed(), doc=why)  # type: ignore[no-untyped-call]


class Requirements(SuiteRequirements):
    """The capabilities."""

    # ------------------------------------------------------------ queries

    boolean_col_expressions = _open("x IN (...) among the columns")
    nullsordering = _open("NULLS FIRST, NULLS LAST")
    intersect = _open("INTERSECT")
    except_ = _open("EXCEPT")
    window_functions = _open("OVER")
    ctes = _open("WITH")
    ctes_with_update_delete = _open("WITH before UPDATE and DELETE")
    ctes_on_dml = _closed("SQLite has no INSERT, UPDATE or DELETE within WITH")
    ctes_with_values = _closed("as table_value_constructor")
    table_value_constructor = _closed("SQLite can't name the columns of VALUES")
    tuple_in = _open("(a, b) IN ((1, 2), ...)")
    update_from = _open("UPDATE ... FROM")
    delete_from = _closed("SQLite has no DELETE ... USING")
    mod_operator_as_percent_sign = _open("a % b")
    order_by_label_with_expression = _open("ORDER BY label + 1")
    regexp_match = _open("REGEXP")
    regexp_replace = _closed("SQLite has none")
    supports_bitwise_or = _open("a | b")
    supports_bitwise_and = _open("a & b")
    supports_bitwise_not = _open("~a")
    supports_bitwise_xor = _closed("SQLite has none")
    supports_bitwise_shift = _open("a << b")
    supports_distinct_on = _closed("PostgreSQL's")
    fetch_first = _closed("SQLite has LIMIT")
    parens_in_union_contained_select_w_limit_offset = _closed("SQLite takes no brackets there")
    parens_in_union_contained_select_wo_limit_offset = _closed("SQLite takes no brackets there")
    dbapi_lastrowid = _open("cursor.lastrowid")
    sequences = _closed("SQLite has none; row numbers are the store's")

    def get_order_by_collation(self, config: Any) -> str:
        """A collation for ORDER BY."""
        return "BINARY"

    # ------------------------------------------------------------ schemas

    table_ddl_if_exists = _open("CREATE TABLE IF NOT EXISTS")
    index_ddl_if_exists = _open("CREATE INDEX IF NOT EXISTS")
    views = _open("CREATE VIEW")
    materialized_views = _closed("SQLite has none")
    temporary_tables = _closed("a connection's own tables would have nowhere to be in a store")
    temporary_views = _closed("as temporary_tables")
    temp_table_reflection = _closed("as temporary_tables")
    schemas = _closed("SQLite's schemas are files that are attached; ROME has no files")
    schema_create_delete = _closed("as schemas")
    cross_schema_fk_reflection = _closed("as schemas")
    implicit_default_schema = _open("`main`")
    default_schema_name_switch = _closed("as schemas")
    server_defaults = _open("DEFAULT")
    expression_server_defaults = _open("DEFAULT (expression)")
    computed_columns = _closed("GENERATED ALWAYS: rows would have to hold what can't be written")
    computed_columns_virtual = _closed("as computed_columns")
    computed_columns_stored = _closed("as computed_columns")
    identity_columns = _closed("SQLite has none")
    deferrable_fks = _closed("foreign keys are tested at each statement, and again at commit")
    repeated_column_foreign_keys = _open("one column in two foreign keys")
    unicode_ddl = _open("names with any letters")
    percent_schema_names = _open("names with per cent signs")
    indexes_with_expressions = _open("CREATE INDEX ... (lower(x)): kept, not used")

    # ------------------------------------------------------------ reflection

    reflects_pk_names = _open("names of primary keys")
    foreign_key_constraint_name_reflection = _open("names of foreign keys")
    foreign_key_constraint_option_reflection_ondelete = _open("ON DELETE")
    fk_constraint_option_reflection_ondelete_restrict = _open("RESTRICT")
    fk_constraint_option_reflection_ondelete_noaction = _open("NO ACTION")
    foreign_key_constraint_option_reflection_onupdate = _open("ON UPDATE")
    fk_constraint_option_reflection_onupdate_restrict = _open("RESTRICT")
    check_constraint_reflection = _open("CHECK")
    inline_check_constraint_reflection = _open("CHECK at a column")
    implicitly_named_constraints = _closed("keys get names, but CHECKs don't")
    foreign_keys_reflect_as_index = _closed("SQLite makes no indexes for them")
    unique_constraints_reflect_as_index = _closed("they are reflected as constraints only")
    unique_index_reflect_as_unique_constraints = _closed("they are reflected as indexes only")
    index_reflects_included_columns = _closed("SQLite has none")
    reflect_indexes_with_expressions = _closed("SQLite's dialect leaves them out")
    reflect_table_options = _open("what SQLite's dialect knows")
    comment_reflection = _closed("SQLite has no comments")
    column_collation_reflection = _closed("SQLite's dialect doesn't tell it")

    # ------------------------------------------------------------ types

    uuid_data_type = _open("Uuid")
    json_type = _open("JSON")
    legacy_unconditional_json_extract = _open("json_extract of any value")
    array_type = _closed("SQLite has none")
    timestamp_microseconds = _open("TIMESTAMP")
    datetime_historic = _open("years before 1970")
    date_historic = _open("years before 1970")
    datetime_timezone = _closed("SQLite's types keep no zone")
    time_timezone = _closed("SQLite's types keep no zone")
    datetime_literals = _closed("SQLite has no literals of dates; SQLAlchemy writes them as text")
    datetime_interval = _closed("SQLite has none")
    precision_numerics_enotation_small = _open("Decimal('1E-10')")
    precision_numerics_many_significant_digits = _closed(
        "decimals are kept as doubles; one that would lose digits is refused"
    )
    precision_numerics_retains_significant_digits = _open("Decimal('1.000') as it was")
    infinity_floats = _open("inf, -inf")
    float_or_double_precision_behaves_generically = _open("FLOAT(n), DOUBLE PRECISION")

    # ------------------------------------------------------------ transactions

    savepoints = _open("SAVEPOINT")
    two_phase_transactions = _closed("SQLite has none")
    autocommit = _open("isolation level AUTOCOMMIT")
    skip_autocommit_rollback = _open("the driver knows whether it commits by itself")
    isolation_level = _open("isolation levels")

    def get_isolation_levels(self, config: Any) -> dict[str, Any]:
        """Levels, and the one that is the default."""
        dialect = config.db.dialect
        return {
            "default": "READ COMMITTED",
            "supported": list(dialect.get_isolation_level_values(None)),
        }
