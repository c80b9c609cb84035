"""The gate, the gated unroll, and the kernels that run one segment at a time.

gate            identity in the forward pass, a factor in the backward pass
scan            `lax.scan` with gates, for code that uses `lax.scan`
unroll          the same for a cell, with resets and lengths: the oracle of the tests
                (checkpointing: its memory like √T)
recursion       the recursion of the backward pass: its only implementation
recurrence      the interface of a cell at given parameters; autodiff_recurrence: that of any cell
fused           `unroll` with a hand-written backward pass
chunk           forward and backward passes over a few steps of a segment
dynamic         one program for segments of every length
window          forward and backward passes over a window of fixed length
look_back       the gradient of a window's losses through a number of older windows
static_lengths  programs for fixed lengths: `exact` and `pow2`
batching        the batching rule of `jax.vmap` for segment kernels
policies        which of them to use
"""

from artbp.unrolls.fused import fused_unroll
from artbp.unrolls.gate import gate
from artbp.unrolls.policies import Policy
from artbp.unrolls.scan import scan
from artbp.unrolls.unroll import unroll

__all__ = [
    "Policy",
    "fused_unroll",
    "gate",
    "scan",
    "unroll",
]
