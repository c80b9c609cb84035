"""Ctrl-C and SIGTERM as a flag that the training loop reads between chunks.

Before the loop, Ctrl-C ends the process with a line of text in place of a traceback.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType


class Interrupts:
    """`signal_name` is None until a signal has come."""

    signal_name: str | None = None


@contextlib.contextmanager
def catch_interrupts(
    action: str = "finishing the chunk, then saving a checkpoint",
) -> Iterator[Interrupts]:
    """Within the block, the first SIGINT or SIGTERM only sets the flag; a second acts as usual.

    `action` is printed: what happens next.
    Outside the main thread Python cannot set handlers, and the flag never changes.
    """
    interrupts = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield interrupts
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        interrupts.signal_name = signal.Signals(number).name
        restore()
        words = f"{action} (once more stops at once)"
        print(f"\n{interrupts.signal_name}: {words}.", file=sys.stderr)

    for number in previous:
        signal.signal(number, handle)
    try:
        yield interrupts
    finally:
        restore()


def exit_on_ctrl_c() -> None:
    """From here on, Ctrl-C ends the process at once: for the seconds in which modules load.

    A KeyboardInterrupt inside an import may end as any other error, or in an endless recursion.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)


def raise_on_ctrl_c() -> None:
    """Undoes `exit_on_ctrl_c`: from here on, Ctrl-C raises KeyboardInterrupt."""
    if signal.getsignal(signal.SIGINT) is _exit:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _exit(number: int, frame: FrameType | None) -> None:
    os.write(2, b"Stopped by Ctrl-C before a run began.\n")
    os._exit(130)
