"""Measures bias and noise of every way to truncate, on five systems.

config      the fields
systems     what is measured on: cell, loss, params and data
measure     one system: report, intervals on one window, enumeration, online estimators
look_backs  unbiased TBPTT on one system: its noise, and its bias over all look-backs
report      the table and the figure
"""
