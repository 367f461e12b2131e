"""Steps as methods. `@operation` and `@listing` stand in classes that know no I/O; each of these has two heirs, one
with `Sync` and one with `Async`, in which every such method is a function of its own that runs the steps."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from vectordb_client._core import Session, Steps
from vectordb_client._runners import AsyncRunner, Runner
from vectordb_client.types import Page

S = TypeVar("S")
T = TypeVar("T")
P = ParamSpec("P")

# From the cursor of a page, None for the first, to the page.
Pages = Callable[[str | None], Steps[Page[T]]]


class Sync:
    """Methods that return."""

    _runner: Runner

    def __init_subclass__(cls) -> None:
        _bind(cls, _sync_operation, _sync_listing)


class Async:
    """Methods that are awaited."""

    _runner: AsyncRunner

    def __init_subclass__(cls) -> None:
        _bind(cls, _async_operation, _async_listing)


class Resource:
    """What can be called; `_runner` is the client's."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    @property
    def _session(self) -> Session:
        session: Session = self._runner.session
        return session


class operation(Generic[S, P, T]):  # noqa: N801
    """A method, stated as the steps of one call."""

    def __init__(self, function: Callable[Concatenate[S, P], Steps[T]]) -> None:
        self.function = function
        _show_result(function, "Steps[", "")

    @overload
    def __get__(self, instance: Sync, owner: Any = None) -> Callable[P, T]: ...
    @overload
    def __get__(self, instance: Async, owner: Any = None) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, instance: Any, owner: Any = None) -> Callable[P, Steps[T]]: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self.function, instance)


class listing(Generic[S, P, T]):  # noqa: N801
    """A method that lists: it returns the steps that read a page, and its users iterate over what is in the pages."""

    def __init__(self, function: Callable[Concatenate[S, P], Pages[T]]) -> None:
        self.function = function
        _show_result(function, "Pages[", "Listing[")

    @overload
    def __get__(self, instance: Sync, owner: Any = None) -> Callable[P, Listing[T]]: ...
    @overload
    def __get__(self, instance: Async, owner: Any = None) -> Callable[P, AsyncListing[T]]: ...
    @overload
    def __get__(self, instance: Any, owner: Any = None) -> Callable[P, Pages[T]]: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self.function, instance)


class Listing(Generic[T]):
    """Items that are read page by page while they are iterated over; each iteration begins again."""

    def __init__(self, run: Callable[[Steps[Page[T]]], Page[T]], pages: Pages[T]) -> None:
        self._run, self._pages = run, pages

    def __iter__(self) -> Iterator[T]:
        cursor: str | None = None
        while True:
            page = self._run(self._pages(cursor))
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def __repr__(self) -> str:
        return "<Listing: iterate over it, or call all() or first_page()>"

    def all(self) -> list[T]:
        """All items."""
        return list(self)

    def first_page(self) -> Page[T]:
        """The first page, and the cursor of the next one."""
        return self._run(self._pages(None))


class AsyncListing(Generic[T]):
    """As Listing, for `async for`."""

    def __init__(self, run: Callable[[Steps[Page[T]]], Coroutine[Any, Any, Page[T]]], pages: Pages[T]) -> None:
        self._run, self._pages = run, pages

    async def __aiter__(self) -> AsyncIterator[T]:
        cursor: str | None = None
        while True:
            page = await self._run(self._pages(cursor))
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return

    def __repr__(self) -> str:
        return "<AsyncListing: iterate over it by async for, or await all() or first_page()>"

    async def all(self) -> list[T]:
        """All items."""
        return [item async for item in self]

    async def first_page(self) -> Page[T]:
        """The first page, and the cursor of the next one."""
        return await self._run(self._pages(None))


def _show_result(function: Callable[..., Any], steps: str, result: str) -> None:
    """Have `help` show what users get, instead of the steps that lead there, and errors of calls the method's name
    alone, instead of a class that users do not meet."""
    function.__qualname__ = function.__name__
    said: str = function.__annotations__["return"].removeprefix(steps)
    inner = {"J": "Job", "L": "Library"}.get(said[:-1], said[:-1])
    function.__annotations__["return"] = f"{result}{inner}]" if result else inner


def _bind(cls: type, bind_operation: Callable[[Any], Any], bind_listing: Callable[[Any], Any]) -> None:
    for base in cls.__mro__:
        for name, member in list(vars(base).items()):
            if name in vars(cls):
                continue
            if isinstance(member, operation):
                setattr(cls, name, bind_operation(member.function))
            elif isinstance(member, listing):
                setattr(cls, name, bind_listing(member.function))


def _sync_operation(function: Callable[..., Generator[Any, Any, Any]]) -> Any:
    @functools.wraps(function)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._runner.run(function(self, *args, **kwargs))

    return method


def _async_operation(function: Callable[..., Generator[Any, Any, Any]]) -> Any:
    @functools.wraps(function)
    async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return await self._runner.run(function(self, *args, **kwargs))

    return method


def _sync_listing(function: Callable[..., Any]) -> Any:
    @functools.wraps(function)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return Listing(self._runner.run, function(self, *args, **kwargs))

    return method


def _async_listing(function: Callable[..., Any]) -> Any:
    @functools.wraps(function)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return AsyncListing(self._runner.run, function(self, *args, **kwargs))

    return method
