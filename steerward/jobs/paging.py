"""Pages of a table, as lists on the wire are cut: behind a position, up to a limit."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, Table, select


def page(
    connection: Connection,
    table: Table,
    *conditions: Any,
    order: str,
    position: int | None,
    limit: int,
    newest_first: bool,
) -> tuple[list[Row[Any]], bool]:
    """Return the rows behind a position in an order, and whether there are more.

    Args:
        connection: Of the transaction.
        table: Read from.
        conditions: Of the rows.
        order: Column that is counted up.
        position: Value in that column behind which the page begins; None: at the start.
        limit: Most rows.
        newest_first: Whether the order is from the highest down.
    """
    column = table.c[order]
    query = select(table).where(*conditions).limit(limit + 1)
    if position is not None:
        query = query.where(column < position if newest_first else column > position)
    query = query.order_by(column.desc() if newest_first else column)
    rows = list(connection.execute(query))
    return rows[:limit], len(rows) > limit
