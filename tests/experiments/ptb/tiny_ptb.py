"""A ptb configuration that runs in seconds, on made-up text."""

from experiments.common.cli import CommandLine

OVERRIDES = (
    "data.source=generated",
    "data.generated_lines=40",
    "model.hidden_size=8",
    "batch=4",
    "arm=artbp(20, alpha=4)",
    "num_epochs=2",
    "optimizer.learning_rate=1e-2",
)


def command_line(workdir, resume=False):
    return CommandLine(workdir=workdir, resume=resume, tensorboard=False, progress_bar=False)
