"""From SQLAlchemy to ROME: the dialect, its compilers, and the analysis of statements."""

from rome.dialect.base import (
    RomeDialect,
    RomeExecutionContext,
    RomeMemoryDialect,
    RomeTLSDialect,
)
from rome.dialect.explain import explain

__all__ = ["RomeDialect", "RomeExecutionContext", "RomeMemoryDialect", "RomeTLSDialect", "explain"]
