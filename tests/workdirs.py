"""What the tests of experiments know about their folders."""

FILES = {"config.json", "metrics.jsonl", "report.html", "results.json", "starts.jsonl", "table.md"}
"""What an experiment without checkpoints leaves in its folder, besides its figures."""
