import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from experiments.common.interrupts import catch_interrupts, exit_on_ctrl_c, raise_on_ctrl_c


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


def test_before_the_experiment_ctrl_c_ends_the_process_in_one_line():
    """As `python -m experiments.NAME`, whose modules load while argv[0] is "-m"."""
    script = (
        "import signal, sys; sys.argv[0] = '-m'\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import experiments\n"
        "signal.raise_signal(signal.SIGINT)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert finished.returncode == 130
    expected = "Stopped by Ctrl-C before a run began.\n"
    assert finished.stderr == expected


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.default_int_handler])
def test_then_it_acts_as_usual(handler):
    """A process that a shell has started in the background goes on ignoring it."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        exit_on_ctrl_c()
        assert (signal.getsignal(signal.SIGINT) is handler) == (handler is signal.SIG_IGN)
        raise_on_ctrl_c()
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
