"""One process of a tiny run in several, which the tests start, kill and resume.

    python several_processes.py FOLDER SIGNAL HOST:PORT N I

trains in FOLDER/whole to the end, then in FOLDER/stopped, where process 1 gets the signal while all
begin to save for the third time. A run that stops by the signal is resumed. Without the other
arguments it is one process: it trains in FOLDER/one on one device, and resumes FOLDER/stopped.
"""

import os
import signal
import sys
from pathlib import Path

import jax
import tiny_run

from experiments.common import processes
from experiments.common.errors import TrainingInterruptedError

tiny_run.BATCH = 8


def train(path, num_devices, *, resume=False):
    result = tiny_run.run(path, num_devices=num_devices, resume=resume, num_epochs=1)
    print(path.name, result.progress.updates, flush=True)


def signal_in_process_1(number):
    whole, calls = processes.whole, 0

    def whole_and_signal(tree):
        nonlocal calls
        calls += 1
        if calls == 3 and jax.process_index() == 1:
            os.kill(os.getpid(), number)
        return whole(tree)

    processes.whole = whole_and_signal


def main(folder, name, address=None, count=None, number=None):
    with processes.ends_with_the_others():
        processes.start(address, count and int(count), number and int(number))
        everywhere = jax.device_count()
        if jax.process_count() == 1:
            train(folder / "one", 1)
            train(folder / "stopped", everywhere, resume=True)
            return
        train(folder / "whole", everywhere)
        signal_in_process_1(signal.Signals[name])
        try:
            train(folder / "stopped", everywhere)
        except TrainingInterruptedError as error:
            print(error, flush=True)
            train(folder / "stopped", everywhere, resume=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
