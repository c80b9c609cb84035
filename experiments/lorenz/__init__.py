"""Evolution strategies on the parameters of a chaotic system, the task of the NRES paper."""
