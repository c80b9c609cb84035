"""Defines sequence tasks to compare truncated gradients on, each with known reference losses.

    task = TASKS["copy_memory"](lag=50)
    for chunk in itertools.islice(task.chunks(seed=0, batch_size=32, chunk_length=100), 1000):
        chunk.stream      # xs, targets, resets, mask, [100, 32, ...] each
        chunk.continues   # whether to keep the carry for the next chunk

name                       memory needed                         counts     without memory
copy_memory                ten symbols over lag + 10 steps       all        10 ln 8 / (lag + 20)
copy_memory_variable_lag   the same, lag drawn anew              all        the same, mean lag
adding                     two real numbers                      last step  1/6
anbn                       a count                               all        entropy given one symbol
brackets                   one symbol, in a text without end     closings   ln 4
temporal_order             two symbols and their order           last step  ln 4
switching_tables           a rule that changes: quick updates    all        ln 8
mackey_glass               17 units of a real-valued series      all        1
digits                     an image, shown pixel by pixel        last step  about ln 10

base      the types Task, Chunk and Piece, and how rows become chunks
losses    cross-entropy and squared error with a linear readout
One module for each task.
"""

from experiments.tasks.adding import adding
from experiments.tasks.anbn import anbn
from experiments.tasks.base import Chunk, Task
from experiments.tasks.brackets import brackets
from experiments.tasks.copy_memory import copy_memory, copy_memory_variable_lag
from experiments.tasks.digits import digits
from experiments.tasks.mackey_glass import mackey_glass
from experiments.tasks.switching_tables import switching_tables
from experiments.tasks.temporal_order import temporal_order

_BUILDERS = [copy_memory, copy_memory_variable_lag, adding, anbn, brackets, temporal_order]
_BUILDERS += [switching_tables, mackey_glass, digits]
# By name; each has defaults for all its arguments.
TASKS = {builder.__name__: builder for builder in _BUILDERS}

__all__ = ["TASKS", "Chunk", "Task", *TASKS]
