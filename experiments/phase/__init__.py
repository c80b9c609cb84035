"""Which estimator wins, over memory and batch size: predicted in closed form, then trained.

    python -m experiments.phase --config configs/phase/default.py --workdir DIR

system        one parameter that acts at once and, the other way, later on
estimators    what is compared: drift, noise, and the estimator itself
prediction    the excess loss at the end of a training, from bias and variance alone
training      the same trainings, carried out
figure        the map, and predicted against observed
report        the table
config        every field of a configuration
"""
