"""Run jobs on an engine: processes of this machine, this process, Slurm through submitit, or a Ray cluster.

All jobs share a folder on a common file system. Its files show which jobs are done, and stopped jobs continue by
main.py's --resume auto.
"""
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from iqa_runtime.errors import needed, one_line
from iqa_runtime.files import ROOT
from iqa_studies.inline import here
from iqa_studies.jobs import Job, Runner, gpus, slots


@dataclass(frozen=True)
class Resources:
    """Limits and resources of the jobs of an engine.

    Attributes:
        at_once: largest number of jobs that run at once; None: one on this machine, no limit on Slurm and Ray.
        gpus: GPUs of each job; None: one if available.
        minutes: time limit of a Slurm job, after which it is queued again and continues.
        partition: Slurm partition.
    """

    at_once: int | None = None
    gpus: int | None = None
    minutes: int = 24 * 60
    partition: str | None = None


def local(jobs: Sequence[Job], folder: Path, resources: Resources) -> list[str]:
    """Run jobs as processes of this machine, each on its own GPU if available; return the failures."""
    return Runner(slots(resources.at_once or 1, [] if resources.gpus == 0 else gpus())).run(jobs)


def inline(jobs: Sequence[Job], folder: Path, resources: Resources) -> list[str]:
    """Run jobs one after another in this process, which imports the packages once; return the failures.

    A run that ends the process, as one that is out of memory, ends them all; the same command continues from there.
    """
    return [failure for i, job in enumerate(jobs, 1) if (failure := here(job, f'[{i}/{len(jobs)}]'))]


@dataclass(frozen=True)
class Queued:
    """The function that a Slurm job calls; it is queued again if it is preempted or runs out of time."""

    place: str = '.'

    def __call__(self, job: Job) -> str | None:
        """Run a job in the folder where the study was started; return its failure."""
        os.chdir(self.place)
        return job.alone()

    def checkpoint(self, job: Job):
        """Return the submission that submitit queues again."""
        from submitit.helpers import DelayedSubmission
        return DelayedSubmission(self, job)


def slurm(jobs: Sequence[Job], folder: Path, resources: Resources, cluster: str = 'slurm') -> list[str]:
    """Run jobs as a Slurm array and wait for them; return the failures. `cluster`: name of a submitit executor."""
    submitit = needed('submitit', 'submitit', '--engine slurm')
    # the jobs inherit this variable, by which they find the toolkit
    os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, dict.fromkeys([str(ROOT), os.environ.get('PYTHONPATH')])))
    executor = submitit.AutoExecutor(folder / 'slurm', cluster)
    more = {'slurm_partition': resources.partition} if resources.partition else {}
    executor.update_parameters(timeout_min=resources.minutes, gpus_per_node=1 if resources.gpus is None else
                               resources.gpus, slurm_array_parallelism=resources.at_once or len(jobs), name='study',
                               slurm_additional_parameters={'requeue': True}, **more)
    handles = executor.map_array(Queued(os.getcwd()), jobs)
    try:
        return [failure for job, handle in zip(jobs, handles, strict=True)
                if (failure := result_of(handle.result, job))]
    except BaseException:
        for handle in handles:
            handle.cancel()
        raise


def ray(jobs: Sequence[Job], folder: Path, resources: Resources) -> list[str]:
    """Run a task per job on the Ray cluster at RAY_ADDRESS, or a local one without it; return the failures.

    A task whose machine is lost is run again on another one.
    """
    ray = needed('ray', 'ray', '--engine ray')
    ray.init(ignore_reinit_error=True, runtime_env={'env_vars': {'PYTHONPATH': str(ROOT)}})
    share = resources.gpus if resources.gpus is not None else int('GPU' in ray.cluster_resources())
    place = os.getcwd()

    @ray.remote(num_cpus=1, num_gpus=share, max_retries=-1)
    def task(job: Job) -> str | None:
        return Queued(place)(job)

    waiting, running, failures = list(jobs), {}, []
    while waiting or running:
        while waiting and len(running) < (resources.at_once or len(jobs)):
            job = waiting.pop(0)
            running[task.remote(job)] = job
        (done, *_), _ = ray.wait(list(running), num_returns=1)
        if failure := result_of(lambda done=done: ray.get(done), running.pop(done)):
            failures.append(failure)
    return failures


def result_of(result: Callable[[], str | None], job: Job) -> str | None:
    """Return the failure of a job, or the error of its engine; None if it succeeded."""
    try:
        return result()
    except Exception as error:  # each engine has its own kinds
        return f'{type(error).__name__}: {one_line(str(error))[-300:]} (log: {job.log})'


ENGINES: dict[str, Callable[[Sequence[Job], Path, Resources], list[str]]] = {
    'local': local, 'inline': inline, 'slurm': slurm, 'ray': ray}
