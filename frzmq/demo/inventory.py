"""``python -m frzmq.demo.inventory DATABASE``"""

from __future__ import annotations

import sqlite3
import sys

import frzmq
from frzmq.demo.http import serve

ITEMS = ("apple", "pear", "plum")


def create(database: str) -> None:
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("create table stock (item text primary key, amount integer)")
    connection.executemany("insert into stock values (?, 100000)", [(item,) for item in ITEMS])
    connection.close()


def main(database: str) -> None:
    frzmq.start(service="inventory")
    create(database)

    def reserve(item: str) -> object:
        connection = sqlite3.connect(database, timeout=30, isolation_level=None)
        try:
            with frzmq.span("update stock", item=item):
                row = connection.execute(
                    "update stock set amount = amount - 1 where item = ? returning amount", (item,)
                ).fetchone()
            frzmq.gauge(f"stock.{item}", row[0])
            return row[0]
        finally:
            connection.close()

    serve("reserve", reserve)


if __name__ == "__main__":
    main(sys.argv[1])
