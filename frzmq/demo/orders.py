"""``python -m frzmq.demo.orders INVENTORY_PORT DATABASE``"""

from __future__ import annotations

import multiprocessing
import sqlite3
import sys
import threading
import time

import frzmq
from frzmq.demo.http import get, serve

AUDIT_EVERY_S = 1.5
AUDIT_S = 0.35


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


def main(inventory_port: int, database: str) -> None:
    frzmq.start(service="orders")
    pool = multiprocessing.get_context("spawn").Pool(2)

    def order(item: str) -> object:
        with frzmq.span("price order"):
            cost = pool.apply(price, (item, frzmq.inject()))
        frzmq.gauge("order.price", cost)
        with frzmq.span("reserve goods", item=item):
            left = get(inventory_port, item)
        return {"item": item, "price": cost, "left": left}

    def audit_forever() -> None:
        while True:
            time.sleep(AUDIT_EVERY_S)
            pool.apply(audit, (database,))

    threading.Thread(target=audit_forever, name="audit timer", daemon=True).start()
    serve("order", order)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
