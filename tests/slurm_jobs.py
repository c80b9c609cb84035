"""Stands for submitit and a cluster: an executor that hands out jobs whose end a test decides."""

import pathlib

from experiments.common.slurm import Command


class Job:
    """A job that has ended, or that runs if there is no outcome."""

    def __init__(self, number, outcome=None, state="RUNNING"):
        self.job_id, self.outcome, self.state = str(number), outcome, state
        self.is_cancelled = False

    def done(self):
        return self.outcome is not None

    def result(self):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def cancel(self, check):
        self.is_cancelled = True


class Executor:
    """Gives the jobs one after the other; `there` are those that Slurm has already."""

    def __init__(self, *jobs, there=()):
        self.jobs, self.there, self.commands = list(jobs), {job.job_id: job for job in there}, []
        self.folder = pathlib.Path()

    def submit(self, command):
        assert isinstance(command, Command)
        self.commands.append(command)
        return self.jobs.pop(0)

    def job_class(self, folder, number):
        return self.there.get(number, Job(number, state="UNKNOWN"))
