"""The queue's database: how it is opened, and whether it is sound."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talker.errors import JobError

if TYPE_CHECKING:
    from sqlalchemy import Engine

DATABASE_VARIABLE = "TALKER_DATABASE_URL"

# A server that is gone is noticed within half a minute, instead of when the kernel gives up after a quarter of an
# hour: a worker cut off from it has to stop training before somebody else begins.
_POSTGRES_OPTIONS = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
ABANDONED_S = 30.0
"""Seconds after which the server ends a transaction in which nothing happens."""


def is_sqlite(url: str) -> bool:
    """Whether ``url`` names a file of this machine rather than a server that several hosts share."""
    return url.startswith("sqlite")


def make_engine(url: str, abandoned_s: float = ABANDONED_S) -> Engine:
    """Database engine; SQLite with a rollback journal and full synchronisation.

    Write-ahead logging has a rare corruption race before SQLite 3.51.3, which most distributions are older than, and
    a queue writes a few times a minute.

    Args:
        url: Address of the database.
        abandoned_s: A server ends transactions in which nothing happens for so long. A host that hangs in the middle
            of one answers the network and keeps its locks; without this the others would wait for it for ever.
    """
    from sqlalchemy import create_engine, event, make_url
    from sqlalchemy.pool import NullPool

    parsed = make_url(url)
    if parsed.drivername != "sqlite":
        name = "postgresql+psycopg" if parsed.drivername in ("postgresql", "postgres") else parsed.drivername
        options = {key: value for key, value in _POSTGRES_OPTIONS.items() if key not in parsed.query}
        engine = create_engine(parsed.set(drivername=name), pool_pre_ping=True, connect_args=options)

        @event.listens_for(engine, "connect")
        def limit(connection: Any, _record: object) -> None:
            # Not by an option of the connection, which poolers refuse; not in a transaction, whose end would undo it.
            connection.autocommit = True
            connection.execute(f"SET idle_in_transaction_session_timeout = {int(1000 * abandoned_s)}")
            connection.autocommit = False

        return engine
    # No pool: a database that was set aside must not live on in open connections.
    engine = create_engine(parsed, poolclass=NullPool)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = "IMMEDIATE"
        for pragma in ("busy_timeout=30000", "foreign_keys=ON", "journal_mode=DELETE", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def check_reachable(url: str) -> None:
    """Connect once to a shared database, so that a wrong address is told in words.

    Raises:
        JobError: ``worker.database``. Never quotes the address, which may hold a password.
    """
    from sqlalchemy.exc import ArgumentError, OperationalError

    if is_sqlite(url):
        return
    try:
        try:
            _connect(url)
        except OperationalError:  # DBOS creates a missing database; every server has this one
            from sqlalchemy import make_url

            _connect(make_url(url).set(database="postgres").render_as_string(hide_password=False))
    except (OperationalError, ArgumentError, ImportError) as error:
        raise JobError(
            "worker.database",
            f"The database of the queue cannot be used ({type(error).__name__}).",
            expected=f"{DATABASE_VARIABLE} is postgresql://USER:PASSWORD@HOST/DATABASE, and the server answers.",
            todo="Check address, password and network, then start the worker again. No job is lost meanwhile.",
        ) from None


def _connect(url: str) -> None:
    engine = make_engine(url)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def healthy(database: Path) -> bool:
    """Whether a SQLite file can be opened and passes its own check."""
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection:
            return connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
    except sqlite3.DatabaseError:
        return False


def quiet() -> None:
    """DBOS logs every start and query pool at INFO on the console; warnings suffice."""
    logging.getLogger("dbos").setLevel(logging.WARNING)
