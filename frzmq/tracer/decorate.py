"""A context manager around each call of a function, whatever kind of function it is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from functools import update_wrapper, wraps
from types import FunctionType
from typing import Any, Final, TypeVar

from frzmq.tracer.context import OperationState, current, set_current

F = TypeVar("F", bound=Callable[..., Any])

# co_flags; `inspect` takes long to import
_GENERATOR: Final = 0x20
_COROUTINE: Final = 0x80
_ITERABLE_COROUTINE: Final = 0x100
_ASYNC_GENERATOR: Final = 0x200


def decorated(function: F, enter: Callable[[], Any], *, operation: bool, plain: Callable[[F], F] | None = None) -> F:
    """``function`` inside of ``with enter():``. Of a generator the whole iteration is; the current operation, which the context
    manager sets when it is an ``operation``, then is current only while the generator's own code runs, not the consumer's.
    ``plain``: the same of a plain function, when there is something faster."""
    flags = getattr(getattr(function, "__code__", None), "co_flags", 0)

    if flags & (_COROUTINE | _ITERABLE_COROUTINE):

        @wraps(function)
        async def call_coroutine(*args: Any, **kwargs: Any) -> Any:
            with enter():
                return await function(*args, **kwargs)

        return call_coroutine  # type: ignore[return-value]  # wraps() keeps the signature, mypy does not see that it is F
    if flags & _ASYNC_GENERATOR:

        @wraps(function)
        async def iterate_async(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            iteration = _AsyncSteps(function(*args, **kwargs), enter(), operation)
            sent: Any = None
            thrown: BaseException | None = None
            while True:
                try:
                    item = await iteration.step(sent, thrown)
                except StopAsyncIteration:
                    return
                sent = thrown = None
                try:
                    sent = yield item
                except BaseException as error:  # noqa: BLE001  # goes into the generator, which is where the consumer threw it
                    thrown = error

        return iterate_async  # type: ignore[return-value]
    if flags & _GENERATOR:

        @wraps(function)
        def iterate(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            return (yield from _steps(function(*args, **kwargs), enter(), operation))

        return iterate  # type: ignore[return-value]

    if plain is not None and isinstance(function, FunctionType):
        update_wrapper(made := plain(function), function)
        return made

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with enter():
            return function(*args, **kwargs)

    return call  # type: ignore[return-value]


class _Swap:
    """Around one step of an iteration: the current operation is the iteration's inside, and the consumer's again outside."""

    __slots__ = ("inner", "operation", "outer")

    def __init__(self, operation: bool) -> None:
        self.operation = operation
        self.inner: OperationState | None = None
        self.outer: OperationState | None = None

    def into(self) -> None:
        if self.operation:
            self.outer = current.get()
            set_current(self.inner)

    def out(self) -> None:
        if self.operation:
            self.inner = current.get()
            set_current(self.outer)


def _steps(iteration: Generator[Any, Any, Any], manager: Any, operation: bool) -> Generator[Any, Any, Any]:
    swap = _Swap(operation)
    if operation:
        swap.inner = current.get()
    sent: Any = None
    thrown: BaseException | None = None
    swap.into()
    try:
        with manager:
            while True:
                try:
                    item = iteration.send(sent) if thrown is None else iteration.throw(thrown)
                except StopIteration as stop:
                    return stop.value
                swap.out()
                sent = thrown = None
                try:
                    sent = yield item
                except BaseException as error:  # noqa: BLE001  # goes into the generator, which is where the consumer threw it
                    thrown = error
                swap.into()
    finally:
        swap.out()


class _AsyncSteps:
    __slots__ = ("entered", "iteration", "manager", "swap")

    def __init__(self, iteration: AsyncGenerator[Any, Any], manager: Any, operation: bool) -> None:
        self.iteration = iteration
        self.manager = manager
        self.swap = _Swap(operation)
        if operation:
            self.swap.inner = current.get()
        self.entered = False

    async def step(self, sent: Any, thrown: BaseException | None) -> Any:
        self.swap.into()
        try:
            if not self.entered:
                self.entered = True
                self.manager.__enter__()
            try:
                return await (self.iteration.asend(sent) if thrown is None else self.iteration.athrow(thrown))
            except StopAsyncIteration:
                self.manager.__exit__(None, None, None)
                raise
            except BaseException as error:
                self.manager.__exit__(type(error), error, error.__traceback__)
                raise
        finally:
            self.swap.out()
