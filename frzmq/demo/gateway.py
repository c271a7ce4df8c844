"""``python -m frzmq.demo.gateway ORDERS_PORT``"""

from __future__ import annotations

import logging
import sys
import time

import frzmq
from frzmq.demo.http import get, serve

log = logging.getLogger("gateway")


def main(orders_port: int) -> None:
    frzmq.start(service="gateway")
    # what is logged is recorded: here nobody needs to read it
    log.addHandler(logging.NullHandler())

    def checkout(item: str) -> object:
        begin = time.monotonic()
        with frzmq.span("ask orders", item=item):
            answer = get(orders_port, item)
        took = time.monotonic() - begin
        if took > 0.2:
            log.warning("checkout of %s took %.0f ms", item, took * 1e3)
        return answer

    serve("checkout", checkout)


if __name__ == "__main__":
    main(int(sys.argv[1]))
