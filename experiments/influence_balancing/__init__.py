"""The influence balancing experiment: where a truncated gradient has the wrong sign.

    python -m experiments.influence_balancing

Read `system` first, then `training`.

    system       the linear system, its loss, its long-run behaviour
    methods      TBPTT, ARTBP and ARTBP without compensation, by name
    training     online SGD of many keys in one compiled program
    outcomes     converged, not yet, wrong direction, diverged
    config       every field of the configuration
    runs         from a configuration and methods to training runs, two at a time
    curves       study: loss against step (the main job, and the form of persistent_es)
    rates        study: which learning rates work, as a heat map
    settling     study: where a biased gradient settles when the loss cannot vanish
    predictions  the resting places of `settling` in closed form
    figures, heat_map, report    what is written
"""
