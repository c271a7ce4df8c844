"""``python -m frzmq.demo.inventory DATABASE``: what is in stock, in SQLite; Flask."""

from __future__ import annotations

import sqlite3
import sys

from flask import Flask

import frzmq
from frzmq.demo.http import serve_flask
from frzmq.wsgi import Middleware

ITEMS = ("apple", "pear", "plum")


def create(database: str) -> None:
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("create table stock (item text primary key, amount integer)")
    connection.executemany("insert into stock values (?, 100000)", [(item,) for item in ITEMS])
    connection.close()


def make_app(database: str) -> Flask:
    app = Flask("inventory")

    @app.get("/reserve/<item>")
    def reserve(item: str) -> dict[str, int]:
        app.logger.debug("reserve one %s", item)
        connection = sqlite3.connect(database, timeout=30, isolation_level=None)
        try:
            with frzmq.span("update stock", item=item):
                [left] = connection.execute(
                    "update stock set amount = amount - 1 where item = ? returning amount", (item,)
                ).fetchone()
            frzmq.gauge(f"stock.{item}", left)
            return {"left": left}
        finally:
            connection.close()

    app.wsgi_app = Middleware(app.wsgi_app)  # type: ignore[method-assign]  # as Flask's documentation has it
    return app


def main(database: str) -> None:
    frzmq.start(service="inventory", debug_on_failure=True)
    create(database)
    serve_flask(make_app(database))


if __name__ == "__main__":
    main(sys.argv[1])
