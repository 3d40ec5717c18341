"""DuckDB, held in: memory and threads bounded, no network, no extensions, no file but one folder's.

Loaded when first needed; every call blocks, so nothing here runs on an event loop.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ...protocol.errors import LocalError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY_MIB = 640
"""What DuckDB may hold before it spills to the folder; Python's own sums come on top."""
THREADS = 2


@contextmanager
def duck(
    folder: Path, *, threads: int = THREADS, memory_mib: int = MEMORY_MIB
) -> Generator[DuckDBPyConnection]:
    """Open a database in memory that sees only ``folder`` and spills into it.

    Raises:
        LocalError: ``columns`` where a query failed: for want of room, or because a file is damaged.

    """
    import duckdb

    db = duckdb.connect(
        ":memory:",
        config={
            "threads": threads,
            "memory_limit": f"{memory_mib}MiB",
            "temp_directory": str(folder / "spill"),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "preserve_insertion_order": False,
        },
    )
    try:
        db.execute(f"SET allowed_directories = [{quoted(folder)}]")
        db.execute("SET parquet_metadata_cache = true")  # a pass asks the same files many times
        db.execute("SET enable_external_access = false")
        db.execute("SET lock_configuration = true")
        yield db
    except duckdb.Error as error:
        message = (
            f"the columns in {folder} cannot be used: {_first_line(error)}; "
            "make room, or delete the folder: they are made again"
        )
        raise LocalError(message, reason="columns") from error
    finally:
        db.close()


def quoted(path: Path) -> str:
    """Return a path as an SQL text."""
    return "'" + str(path).replace("'", "''") + "'"


def parquet(paths: Iterable[Path]) -> str:
    """Return SQL that reads files of the same columns as one table."""
    return f"read_parquet([{', '.join(quoted(path) for path in paths)}])"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
