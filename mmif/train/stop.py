"""Ctrl-C and SIGTERM as the wish that a run ends after the step it is in."""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any


class Stop:
    """While it is entered, the first SIGINT or SIGTERM is noted; a second one does what it does without this.

    A signal that is ignored, as a shell ignores Ctrl-C for a command in the background, stays so. Outside the main
    thread, which alone can take signals, nothing is noted.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, _frame: Any) -> None:
        self.signal = signal.Signals(number)
        self.__exit__()
        print("\nstopping after this step; once more ends at once", file=sys.stderr)

    def pass_on(self, words: str) -> None:
        """Let the noted signal, if any, do now what it does without this; ``words`` go with it as a note."""
        if self.signal is None:
            return
        try:
            signal.raise_signal(self.signal)
        except KeyboardInterrupt as stop:
            stop.add_note(words)
            raise
