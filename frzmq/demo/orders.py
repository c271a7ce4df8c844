"""``python -m frzmq.demo.orders INVENTORY_PORT DATABASE``: prices an order in a pool of processes, and now and then audits the stock; Flask."""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import sqlite3
import sys
import threading
import time

from flask import Flask

import frzmq
from frzmq.demo.http import get, serve_flask
from frzmq.wsgi import Middleware

AUDIT_EVERY_S = 1.8
AUDIT_S = 1.0


def price(item: str, traceparent: str | None) -> float:
    """In a process of the pool: some honest work."""
    with frzmq.operation("price", traceparent=traceparent, item=item):
        total = 0
        for step in range(20_000):
            total = (total * 31 + step) % 9973
        return 1 + total % 500 / 100


def audit(database: str) -> int:
    """In a process of the pool: counts the stock in one transaction, and holds the database for as long as that takes."""
    with frzmq.operation("nightly audit"):
        connection = sqlite3.connect(database, timeout=30, isolation_level=None)
        try:
            with frzmq.span("transaction"):
                connection.execute("begin immediate")
                with frzmq.span("count stock"):
                    count = connection.execute("select sum(amount) from stock").fetchone()[0]
                    time.sleep(AUDIT_S)
                connection.execute("commit")
            return int(count)
        finally:
            connection.close()


def make_app(pool: multiprocessing.pool.Pool, inventory_port: int) -> Flask:
    app = Flask("orders")

    @app.get("/orders/<item>")
    def order(item: str) -> dict[str, object]:
        with frzmq.span("price order"):
            cost = pool.apply(price, (item, frzmq.inject()))
        frzmq.gauge("order.price", cost)
        app.logger.debug("%s costs %.2f", item, cost)
        with frzmq.span("reserve goods", item=item):
            left = get(inventory_port, f"/reserve/{item}")["left"]
        return {"item": item, "price": cost, "left": left}

    app.wsgi_app = Middleware(app.wsgi_app)  # type: ignore[method-assign]  # as Flask's documentation has it
    return app


def main(inventory_port: int, database: str) -> None:
    frzmq.start(service="orders", debug_on_failure=True)
    pool = multiprocessing.get_context("spawn").Pool(2)
    # until its processes run the first order would be the slow one
    pool.starmap(price, [("apple", None)] * 4, chunksize=1)

    def audit_forever() -> None:
        while True:
            time.sleep(AUDIT_EVERY_S)
            pool.apply(audit, (database,))

    threading.Thread(target=audit_forever, name="audit timer", daemon=True).start()
    serve_flask(make_app(pool, inventory_port))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
