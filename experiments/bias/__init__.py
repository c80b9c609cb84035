"""The bias laboratory: bias and noise of every way to truncate, on four kinds of system.

config     the configuration and its checks
problems   the systems, their params and data
measure    one system: report, intervals on one window, enumeration, online estimators
report     the table
figure     a panel for each system
"""
