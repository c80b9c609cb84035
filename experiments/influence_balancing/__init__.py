"""Trains on a task where short windows give the wrong sign. The main job, `./run`.

system       the linear system, its loss, its long-run behaviour
training     online SGD of many keys and learning rates in one compiled program
outcomes     converged, not yet, wrong direction or diverged: rows and columns
curves       study: loss against step
rates        study: which learning rates work, as a heat map
settling     study: where a biased gradient settles when the loss cannot vanish
predictions  the fixed points of `settling` in closed form
config       the fields
"""
