"""The gate, the gated unroll, and the kernels that run one segment at a time.

gate       identity forward, factor backward
unroll     `lax.scan` with gates: the oracle; checkpointing: the same in memory like √T
recurrence a cell taken apart, for the kernels below; linearized: that of any cell
fused      `unroll` with a backward pass of its own
dynamic    one program for every segment length; block: one block of it, with the recursion
chained    loops of static length, chained: `exact` and `pow2`
batching   what `jax.vmap` does with a segment kernel
rounds     many rows, each in a segment of its own; side_by_side: one block of them
policies   which of them to use
"""

from artbp.unrolls.fused import fused_unroll
from artbp.unrolls.gate import gate
from artbp.unrolls.policies import Policy
from artbp.unrolls.unroll import unroll

__all__ = [
    "Policy",
    "fused_unroll",
    "gate",
    "unroll",
]
