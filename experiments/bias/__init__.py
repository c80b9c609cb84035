"""Measures bias and noise of every way to truncate, on five systems.

config     the fields
systems    what is measured on: cell, loss, params and data
measure    one system: report, intervals on one window, enumeration, online estimators
report     the table and the figure
"""
