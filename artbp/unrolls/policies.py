"""The choice among the segment kernels."""

from typing import Literal, get_args

import jax

Policy = Literal["dynamic", "pow2", "exact"]
"""How a segment of random length is compiled:

- `"dynamic"` compiles one program for every length. jit, vmap and scan work around it. In a segment
  of more than block_size steps, the forward pass of every block but the last is run twice.
- `"pow2"` runs a chain of power-of-two scans, driven from the host. There are at most
  2·(⌊log2 longest⌋ + 1) programs. The forward pass of every scan but the last, the longest, is
  run twice: at most half of the steps in segments of up to 2 · block_size steps, and more in longer
  ones (block_size rounded down to a power of two).
- `"exact"` compiles one program per length, driven from the host. No step is run twice up to
  block_size steps. A longer segment is a chain of blocks and a rest.
"""

_POLICIES = get_args(Policy)


def check_policy(policy: str | None) -> None:
    """Raises ValueError for an unknown policy."""
    if policy is not None and policy not in _POLICIES:
        raise ValueError(
            f"policy={policy!r} is unknown; expected one of {', '.join(map(repr, _POLICIES))}, or "
            "None to follow the backend."
        )


def resolve_policy(policy: Policy | None, traced: bool) -> Policy:
    """Returns the policy to use for one call.

    Args:
      policy: as given by the user; None picks `dynamic` under tracing and on CPU, where a loop of
        unknown length costs nothing extra, and `pow2` elsewhere, where it may cost a host
        round trip per step.
      traced: whether the call is being traced by jit, vmap, scan, ...

    Raises:
      ValueError: a host-driven policy under tracing.
    """
    if policy is None:
        return "dynamic" if traced or jax.default_backend() == "cpu" else "pow2"
    if traced and policy != "dynamic":
        raise ValueError(
            f"policy={policy!r} plans segment lengths on the host, so estimate cannot be traced by "
            "jit, vmap, scan or grad. Call estimate outside of them, or use policy='dynamic'."
        )
    return policy
