"""Writes a report of a run or a study as one HTML file, from what its folder holds.

python -m experiments.report DIR

The file needs no network and no script. It adapts to light and dark themes and to small screens.

charts      line charts of a training, from the rows of metrics.jsonl
page        sections, figures and tables as HTML
folder      which sections a folder has: a training, an experiment of minutes, a study of trainings
"""
