"""What every experiment needs around the library: configuration, run folder, training loop.

Read `loop` first: its docstring shows how an experiment is put together.

    errors              the errors that a user may meet
    config              ml_collections configurations, checked against an experiment's defaults
    cli                 flags, and a `main` that turns errors into one clear message
    workdir             a folder that holds one run
    metrics             JSON Lines (and TensorBoard), with a cursor to resume at
    checkpoints         the latest state and the best parameters (orbax)
    optimizers          an optax optimiser by name, with optional clipping
    chunks              many segments and updates per call, compiled or driven by the host
    progress            the host's counters of a run, and its progress bar
    interrupts          Ctrl-C and SIGTERM as a flag
    threads             many jobs, a few at a time
    options             how a run is driven
    session             from the start or a checkpoint to the end or an interruption
    loop                `train`, which puts all of it together
    compilation_cache   compiled programs kept on disk
"""
