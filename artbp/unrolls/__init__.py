"""The gate, the gated unroll, and the kernels that run one segment at a time.

gate       identity forward, factor backward
unroll     `lax.scan` with gates: the oracle
dynamic    one program for every segment length; block: one block of it, with the recursion
chained    scans of static length, chained: `exact` and `pow2`
batching   what `jax.vmap` does with a segment kernel
policies   which of them to use
"""

from artbp.unrolls.gate import gate
from artbp.unrolls.policies import Policy
from artbp.unrolls.unroll import unroll

__all__ = [
    "Policy",
    "gate",
    "unroll",
]
