"""Processes that share a list of work and end with the one that started them, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, TypeVar

T = TypeVar("T")
_ENDING = (signal.SIGINT, signal.SIGTERM)


def share_out(work: Callable[..., T], items: Iterable[tuple[Any, ...]], workers: int, done: Callable[[T], Any]) -> None:
    """Call ``work(*item)`` for every item in ``workers`` processes, and ``done`` here with each result as it comes.

    Any exception, Ctrl-C included, ends the processes at once.

    Raises:
        ChildProcessError: a process was ended from outside.
    """
    # spawn: a forked child may hang in the thread pools that torch has started here
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    # The pipe closes before the pool: when all is done, or when nothing more may be.
    with ProcessPoolExecutor(workers, context, _end_with, (reader,)) as pool, writer:
        try:
            for future in as_completed([pool.submit(work, *item) for item in items]):
                done(future.result())
        except BrokenProcessPool:
            raise ChildProcessError(
                "a worker was killed, probably for lack of memory; what is written is whole: "
                "run the same command again with fewer --workers"
            ) from None


@contextmanager
def signals_held() -> Iterator[None]:
    """Start processes in this context, and Ctrl-C and SIGTERM wait: here until it is left, in the processes for good.

    What a terminal, a batch system or a service manager sends to all processes is their owner's matter: were they ended
    first, it could not finish what it is at. See :func:`obey_owner`.
    """
    # Before: it unblocks both signals when it starts, as it would with the first process.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@cache
def lifeline() -> Connection:
    """A pipe for processes started here, which says nothing and closes with this process, however it ends."""
    reader, writer = multiprocessing.get_context("spawn").Pipe(duplex=False)
    _held.append(writer)
    return reader


_held: list[Connection] = []  # never closed


def obey_owner(pipe: Connection, _worker: int = 0) -> None:
    """In a process started with :func:`signals_held`: end when its owner says so, or is gone.

    ``pipe`` is the owner's :func:`lifeline`: whoever asks for his parent here may be told who took over an orphan.
    """

    def watch() -> None:
        while signal.sigwaitinfo(_ENDING).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    _watch(pipe)


def _end_with(pipe: Connection) -> None:
    """End this process as soon as the other end of ``pipe`` is closed, which only its owner, or its death, does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C here, too; the owner deals with it
    _watch(pipe)


def _watch(pipe: Connection) -> None:
    def watch() -> None:
        pipe.poll(None)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
