"""``python -m frzmq.demo.gateway ORDERS_PORT``: what customers talk to; Starlette under uvicorn."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import frzmq
from frzmq.asgi import Middleware
from frzmq.demo.http import end_with_parent, get

log = logging.getLogger("gateway")


def make_app(orders_port: int) -> Starlette:
    async def checkout(request: Request) -> JSONResponse:
        item = request.path_params["item"]
        log.debug("checkout of %s", item)
        with frzmq.span("ask orders", item=item):
            order = await asyncio.to_thread(get, orders_port, f"/orders/{item}")
        return JSONResponse(order)

    app = Starlette(routes=[Route("/checkout/{item}", checkout)])
    app.add_middleware(Middleware)
    return app


def main(orders_port: int) -> None:
    frzmq.start(service="gateway", triggers="slow 800ms operation='GET /checkout*'", debug_on_failure=True)
    end_with_parent()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(listening.getsockname()[1], flush=True)
        uvicorn.Server(uvicorn.Config(make_app(orders_port), log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main(int(sys.argv[1]))
