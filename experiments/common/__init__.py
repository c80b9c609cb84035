"""Modules that the experiments share. To write a new experiment, copy `experiments/memory`.

    experiments/NAME/__init__.py   the question, and one line per file
    experiments/NAME/__main__.py   run(config, say) -> Report, and STUDY = Study(NAME, FIELDS, run)
    experiments/NAME/config.py     FIELDS: default, meaning and checks of each field
    experiments/NAME/training.py   the science: what is trained and measured
    experiments/NAME/report.py     rows, columns, notes, and the figure
    configs/NAME/default.py        command, time and expected result; the fields that differ
    tests/experiments/NAME/        a tiny run from end to end, and the science by hand-worked cases

Name estimators by arms, never by words of your own: `config.arms = ("artbp(16, alpha=4)", ...)`.
Choose rates by `tuning.choose_rate`, on runs that are not reported. Write no files: return a
`Report`.

An experiment of minutes: study (the frame), fields (its configuration), arms (estimators),
arm_checks (arms that it cannot run as named), tuning (the choice of a rate), whole_run (a training
in one program), pool (jobs in threads or processes), devices (runs split over devices), report
(table and rows), figures (style, colours, labels beside curves).

A training of hours, with checkpoints: loop (start with its docstring), loop_options, session,
chunks, checkpoints, checkpoint_series, array_trees, divergence (numbers that are not finite),
interrupts, devices (rows split over devices), processes (several of one run), slurm (many runs as
jobs of a cluster).

Both: cli (flags), dry_run (what --dry_run prints), catalogue (the list of experiments), config
(files and --set), workdir (a folder for one run), provenance (command, commit, machine, versions),
metrics (JSON Lines and progress bars), optimizers (by name), errors. The HTML report of a folder is
in `experiments.report`.
"""
