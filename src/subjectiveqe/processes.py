"""Threads and processes where Python and the libraries leave off: at the end of a program, and after a fork."""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

from .errors import ImageError

P = ParamSpec("P")
T = TypeVar("T")

_kept: weakref.WeakSet[object] = weakref.WeakSet()

_users: dict[str, int] = {}
"""The first process that used a library, by the library's name; one forked from it finds another's number here."""


class ForkedLock:
    """A lock that is a new one in a forked process, where one that another thread held would never be released."""

    def __init__(self) -> None:
        self._renew()
        if hasattr(os, "register_at_fork"):  # not on Windows
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        if self._lock.locked():  # it is not where the process was forked within
            self._lock.release()


def submit(pool: Executor, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """As `pool.submit`; here and now where the pool takes no more work.

    It takes none once the main thread has ended, though Python then waits for other threads, whose work may need it.
    """
    try:
        return pool.submit(call, *args, **kwargs)
    except RuntimeError as error:
        if "interpreter shutdown" not in str(error):
            raise
    done: Future[T] = Future()
    try:
        done.set_result(call(*args, **kwargs))
    except Exception as error:
        done.set_exception(error)
    return done


def keep_after_fork(thing: object) -> None:
    """Lets forked processes never drop a thing whose destructor waits for threads, which only their parent has.

    Args:
        thing: anything that weak references can be had of.
    """
    _kept.add(thing)


def _make_immortal() -> None:
    for thing in _kept:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))  # a reference of Python's would go with the interpreter


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_make_immortal)


def uses(library: str) -> None:
    """Notes that this process uses a library whose threads do not come along when it forks."""
    _users.setdefault(library, os.getpid())


def is_forked_from(library: str) -> bool:
    """Whether this process was forked from one that had used the library."""
    return _users.get(library, os.getpid()) != os.getpid()


def check_vips() -> None:
    """Call before libvips is used, which waits for ever in a process forked from one that has used it.

    Raises:
        ImageError: this is such a process.
    """
    uses("libvips")
    if is_forked_from("libvips"):
        raise ImageError(
            "pictures cannot be read or written in a process forked from one that has done so; start processes by "
            'multiprocessing.get_context("spawn")'
        )
