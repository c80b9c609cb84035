"""Compiled programs kept on disk, so that the second run of an experiment starts at once."""

from pathlib import Path

import jax
import pooch


def enable_compilation_cache() -> None:
    """Turns JAX's persistent compilation cache on, in the user's cache folder.

    A folder that the user has set (JAX_COMPILATION_CACHE_DIR) is left as it is.
    """
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        path = Path(pooch.os_cache("artbp")) / "compiled"
        jax.config.update("jax_compilation_cache_dir", str(path))
