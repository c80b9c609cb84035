import signal
import threading

import pytest

from experiments.common.interrupts import catch_interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_sets_the_flag_and_handlers_come_back(number, capsys):
    before = signal.getsignal(number)
    with catch_interrupts() as interrupts:
        assert interrupts.signal_name is None
        signal.raise_signal(number)
        assert interrupts.signal_name == number.name
    assert signal.getsignal(number) is before
    assert "once more stops at once" in capsys.readouterr().err


def test_second_signal_acts_as_usual():
    # A process that a shell has started in the background ignores Ctrl-C: "as usual" is set here.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), catch_interrupts():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_nothing_is_caught():
    seen = []

    def use():
        with catch_interrupts() as interrupts:
            seen.append(interrupts.signal_name)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert seen == [None]
