"""The first signal is a wish, the second an order; what others made of signals stays theirs."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from mmif.train.stop import Stop

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def _handlers_stay():
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_passed_on_with_words(number: signal.Signals, capsys):
    came = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append("the handler of before"))
    try:
        with Stop() as stop:
            assert stop.signal is None
            os.kill(os.getpid(), number)
            assert stop.signal is number
        assert capsys.readouterr().err == "\nstopping after this step; once more ends at once\n"
        if number is signal.SIGTERM:
            stop.pass_on("words")
        else:
            with pytest.raises(KeyboardInterrupt) as interrupt:
                stop.pass_on("words")
            assert interrupt.value.__notes__ == ["words"]
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == ["the handler of before"] * (number is signal.SIGTERM)


def test_without_a_signal_nothing_is_passed_on():
    before = [signal.getsignal(number) for number in SIGNALS]
    with Stop() as stop:
        assert all(signal.getsignal(number) == stop._note for number in SIGNALS)
    assert [signal.getsignal(number) for number in SIGNALS] == before
    stop.pass_on("words")
    assert stop.signal is None


def test_a_second_signal_does_what_it_did_before():
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.signal is signal.SIGINT


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_ask_for_no_signal():
    stops = []

    def body() -> None:
        with Stop() as stop:
            stops.append((stop, dict(stop._before)))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert stops[0][1] == {}
