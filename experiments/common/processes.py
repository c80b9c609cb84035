"""Several processes of one run: how they start, what they agree on, and how one of them is missed.

Each process trains the rows of its own devices. Process 0 alone reads and writes the workdir. What
it finds there is sent to the others, so all processes do the same. With a single process, the
functions below only call or return what they are given.
"""

import contextlib
import faulthandler
import functools
import os
import pickle
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.common.errors import ConfigError, ExperimentError, one_line

Result = TypeVar("Result")

# JAX ends the other processes when one has given no sign of life for so long.
HEARTBEAT_SECONDS = 30
_CONNECTIONS: list[socket.socket] = []  # of process 0, with each other process; else with process 0
_ENDING = threading.Lock()


class LostProcessError(ExperimentError):
    """Another process of the run has ended or cannot be reached."""

    exit_code = 4


def start(address: str | None, count: int | None, number: int | None) -> None:
    """Joins the processes that the flags of these names give; does nothing if all are None.

    It must come before JAX is used. Raises ConfigError for values that do not fit together, and for
    an environment without a cluster.
    """
    if address is None and count is None and number is None:
        return
    automatic = address == "auto" and count is None and number is None
    complete = address is not None and count is not None and number is not None
    if not automatic and not (
        complete and re.fullmatch(r".+:\d+", address) and 0 <= number < count
    ):
        raise ConfigError(
            f"--coordinator is {address!r}, --num_processes {count}, --process_id {number}: "
            "expected HOST:PORT, the number of processes and one from 0 to below it, or 'auto' "
            "without the other two."
        )
    # JAX ends a process that waits for a lost one by an abort. Its stack in Python says nothing.
    faulthandler.disable()
    # The service would take SIGTERM from `interrupts`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            *(None if automatic else address, count, number),
            # By hand, every process sees all devices of its machine, in a Slurm job too.
            cluster_detection_method=None if automatic else "deactivate",
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"--coordinator is {address!r}, but JAX cannot start the processes: {one_line(error)}."
        ) from error
    # The first sum connects the processes. Later, one that compiles for long would be too late.
    largest(0)
    host = from_first(socket.gethostname) if automatic else str(address).rpartition(":")[0]
    if jax.process_count() > 1:
        try:
            _connect(host)
        except OSError as error:
            raise ConfigError(
                f"--coordinator is {address!r}, but the processes cannot connect to process 0 on "
                f"{host!r}: {one_line(error)}."
            ) from error


def is_first() -> bool:
    """Whether this is the process that reads and writes the workdir, and prints."""
    return jax.process_index() == 0


def largest(*numbers: int) -> tuple[int, ...]:
    """The largest of all processes, for each of the numbers, 0 or more. All processes call it."""
    if jax.process_count() == 1:
        return tuple(map(int, numbers))
    of_each = np.zeros((jax.process_count(), len(numbers)), np.int32)
    of_each[jax.process_index()] = numbers
    return tuple(map(int, _total(of_each).max(axis=0)))


def from_first(function: Callable[[], Result]) -> Result:
    """Calls the function in process 0, and returns its result in all processes.

    If it raises an ExperimentError or an error of the system, all processes stop.
    """
    if jax.process_count() == 1:
        return function()
    error = result = None
    if is_first():
        try:
            result = function()
        except (ExperimentError, OSError) as raised:
            error = raised
    exit_code = None if error is None else getattr(error, "exit_code", ExperimentError.exit_code)
    sent = pickle.dumps((result, str(error), exit_code)) if is_first() else b""
    size = largest(len(sent))[0]
    values = np.zeros(size, np.uint8)
    values[: len(sent)] = np.frombuffer(sent, np.uint8)
    result, message, exit_code = pickle.loads(_total(values).tobytes())
    if error is not None:
        raise error
    if exit_code is not None:
        raise _with_code(f"Process 0 has stopped the run: {message}", exit_code)
    return result


def everywhere(function: Callable[[], Result]) -> Result:
    """Calls the function in every process; if it raises an ExperimentError in one, all stop."""
    error = result = None
    try:
        result = function()
    except ExperimentError as raised:
        error = raised
    # Process numbers from 1, and the exit code: the largest names one process that failed.
    number = 0 if error is None else 256 * (jax.process_index() + 1) + error.exit_code
    (worst,) = largest(number)
    if error is not None:
        raise error
    if worst:
        raise _with_code(
            f"Process {worst // 256 - 1} of {jax.process_count()} has stopped the run: see its "
            "message.",
            worst % 256,
        )
    return result  # type: ignore[return-value]


def check_same(what: str, value: Any) -> None:
    """Raises ConfigError in all processes where one has another value than process 0."""
    here = repr(value)

    def compare(of_first: str) -> None:
        if here != of_first:
            raise ConfigError(
                f"Process {jax.process_index()} has another {what} than process 0: start all "
                "processes with the same command, code and data."
            )

    of_first = from_first(lambda: here)
    everywhere(lambda: compare(of_first))


def whole(tree: Any) -> Any:
    """The tree, with arrays that are split over processes as whole arrays of this process.

    Keys stay keys. All processes call it.
    """

    def of_leaf(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return multihost_utils.process_allgather(leaf, tiled=True)
        data = multihost_utils.process_allgather(jax.random.key_data(leaf), tiled=True)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))

    return jax.tree.map(of_leaf, tree)


@contextlib.contextmanager
def ends_with_the_others() -> Iterator[None]:
    """Within the block, the loss of another process ends this one at once, with one line.

    Each process has a connection to process 0, which the system closes when one of the two ends. A
    machine that is switched off closes none: JAX misses it after HEARTBEAT_SECONDS, and ends this
    process with messages of its own.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if jax.process_count() == 1 or not re.search("gloo|nccl", str(error), re.IGNORECASE):
            raise
        _end(one_line(error))
    except ExperimentError:
        _say_goodbye()
        raise
    _say_goodbye()


def _connect(host: str) -> None:
    """Connects this process with process 0, on `host`, and watches the connection."""
    server = socket.create_server(("", 0)) if is_first() else None
    port = from_first(lambda: server.getsockname()[1] if server else None)
    if server is None:
        _CONNECTIONS.append(socket.create_connection((host, port), timeout=HEARTBEAT_SECONDS))
        _CONNECTIONS[0].settimeout(None)
    else:
        server.settimeout(HEARTBEAT_SECONDS)
        _CONNECTIONS.extend(server.accept()[0] for _ in range(jax.process_count() - 1))
        server.close()
    for connection in _CONNECTIONS:
        threading.Thread(target=_watch, args=(connection,), daemon=True).start()


def _watch(connection: socket.socket) -> None:
    """Waits for the other end to say goodbye; without it, the process there is lost."""
    try:
        goodbye = connection.recv(1)
    except OSError:
        goodbye = b""
    if not goodbye:
        _end("connection closed")


def _say_goodbye() -> None:
    for connection in _CONNECTIONS:
        with contextlib.suppress(OSError):
            connection.send(b".")


def _end(reason: str) -> NoReturn:
    with _ENDING:
        print(
            f"{LostProcessError.__name__}: process {jax.process_index()} of {jax.process_count()} "
            "has lost the connection to another one, which has ended or cannot be reached. See its "
            "messages. Start all processes again with --resume: the run goes on from its last "
            f"checkpoint. ({reason})",
            file=sys.stderr,
            flush=True,
        )
        for connection in _CONNECTIONS:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        # The others lose the service of process 0 with it, and would print its error.
        time.sleep(2 if is_first() else 0)
        # An exit in the usual way would wait for the process that is lost.
        os._exit(LostProcessError.exit_code)


def _with_code(message: str, exit_code: int) -> ExperimentError:
    error = ExperimentError(message)
    error.exit_code = exit_code
    return error


def _total(values: np.ndarray) -> np.ndarray:
    """The sum of the processes' arrays of integers."""
    rows = np.zeros((jax.local_device_count(), *values.shape), values.dtype)
    rows[0] = values
    split, add = _sum_over_devices()
    total = add(jax.make_array_from_process_local_data(split, rows))
    return np.asarray(total.block_until_ready())


@functools.cache
def _sum_over_devices() -> tuple[NamedSharding, Callable[[jax.Array], jax.Array]]:
    """How rows are split over all devices, and their sum, compiled once for each shape."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("devices",))
    on_every_device = NamedSharding(mesh, P())
    add = jax.jit(lambda rows: rows.sum(0, dtype=rows.dtype), out_shardings=on_every_device)
    return NamedSharding(mesh, P("devices")), add
