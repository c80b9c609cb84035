"""Jobs in threads: their order, how many at a time, and what ends them early."""

import signal
import threading

import pytest

from experiments.common.errors import ConfigError, TrainingInterruptedError
from experiments.common.pool import Processes, in_threads


def test_results_come_in_the_order_of_the_jobs_and_not_more_run_at_a_time():
    """The first job ends after the second: two threads at least; never three at once."""
    second_is_done = threading.Event()
    lock, running, most = threading.Lock(), 0, 0

    def function(job):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if job == 0:
            assert second_is_done.wait(10)
        if job == 1:
            second_is_done.set()
        with lock:
            running -= 1
        return 10 * job

    assert list(in_threads(function, range(6), 2)) == [0, 10, 20, 30, 40, 50]
    assert most == 2


@pytest.fixture
def pressed():
    """Set by the first Ctrl-C; further ones do nothing."""
    pressed = threading.Event()

    def handle(number, frame):
        if not pressed.is_set():
            pressed.set()
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handle)
    yield pressed
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("how", ["ctrl_c", "error"])
def test_what_has_not_started_never_does_and_nobody_waits(how, pressed):
    started, may_end = [], threading.Event()
    main, threads = threading.main_thread(), set(threading.enumerate())

    def function(job):
        started.append(job)
        if job == 0:
            return
        if job == 1 and how == "error":
            raise ZeroDivisionError
        while job == 1 and not pressed.wait(0.02):
            signal.pthread_kill(main.ident, signal.SIGINT)
        assert may_end.wait(10)

    expected = TrainingInterruptedError if how == "ctrl_c" else ZeroDivisionError
    try:
        with pytest.raises(expected) as caught:
            list(in_threads(function, range(5), 2))
        assert any(thread.is_alive() for thread in set(threading.enumerate()) - threads)
    finally:
        may_end.set()
    for thread in set(threading.enumerate()) - threads:
        thread.join()
    assert 4 not in started
    if how == "ctrl_c":
        assert caught.value.exit_code == 130
        assert "without results" in str(caught.value)


def test_no_jobs_at_a_time_are_refused():
    with pytest.raises(ConfigError, match="--jobs is 0: expected 1 or more"):
        Processes(0)
