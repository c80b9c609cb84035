"""Measures what a learned critic saves unbiased TBPTT in variance, and where it saves nothing."""
