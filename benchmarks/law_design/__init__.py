"""`python -m benchmarks.law_design`: what a law designed for a lag profile gains."""
