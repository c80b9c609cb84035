"""From a main function to an exit code: one line for the user's errors, a traceback for ours."""

import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from experiments.common.errors import ExperimentError


def run_guarded(main: Callable[[], None]) -> None:
    """Parses the flags, calls `main()`, and exits.

    An `ExperimentError` is printed without a traceback and sets the exit code. The messages of JAX
    and orbax below the level of errors are kept back unless --verbosity asks for them.
    """

    def guarded_main(arguments: Sequence[str]) -> int:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.ERROR)
        try:
            if len(arguments) > 1:
                raise ExperimentError(
                    f"Arguments without a flag were given: {' '.join(arguments[1:])}. "
                    "Every argument here starts with --; see --help."
                )
            main()
        except ExperimentError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return error.exit_code
        return 0

    app.run(guarded_main)
