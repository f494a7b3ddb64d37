"""What a launcher says in the environment: how many processes there are, which one this is, where they meet.

torchrun and accelerate set what torch.distributed reads (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR``,
``MASTER_PORT``). SLURM's ``srun`` says the same in words of its own, which are put into torch's here, so that the same
command runs under each of them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from itertools import product

_FIRST_PORT, _PORTS = 15_000, 15_000  # below 32,768, where Linux begins to hand out ports to whoever asks for any
_OF_ACCELERATE = "ACCELERATE_DYNAMO_USE_FULLGRAPH"  # which every `accelerate launch` sets, and nothing else does
_STEP_APART = 997  # a prime: two steps of a job seldom meet the port of another job's step


def processes(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes a launcher started for this command; 1 without one."""
    return int(environment.get("WORLD_SIZE") or 1)


def processes_here(environment: Mapping[str, str] = os.environ) -> int:
    """How many of them are on this machine, at most; all where the launcher does not say.

    >>> processes_here({"WORLD_SIZE": "8", "SLURM_PROCID": "3", "SLURM_NNODES": "2"})
    4
    """
    told = environment.get("LOCAL_WORLD_SIZE")
    machines = environment.get("SLURM_STEP_NUM_NODES") or environment.get("SLURM_NNODES") or "1"
    return int(told) if told else -(-processes(environment) // int(machines))


def rank(environment: Mapping[str, str] = os.environ) -> int:
    """The number of this process among them."""
    return int(environment.get("RANK") or 0)


def is_first_here(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether no other process of the run on this machine comes before this one.

    >>> is_first_here({"RANK": "3", "LOCAL_RANK": "0", "SLURM_LOCALID": "1"})  # a task that sees one GPU: its first
    False
    """
    local = environment.get("LOCAL_RANK")
    if not environment.get("LOCAL_WORLD_SIZE"):  # no launcher's within a task of srun
        local = environment.get("SLURM_LOCALID") or local
    return rank(environment) == 0 or int(local or 0) == 0


def launcher(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The words that start as many processes again, as they stand before ``-m lmtrain`` (of ``srun``: ``python -m``);
    empty for one process, and where whatever started these left no sign of its own.

    >>> launcher({"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"})
    ['torchrun', '--nnodes', '2', '--nproc_per_node', '4']
    """
    count = processes(environment)
    if count == 1:
        return []
    if environment.get("TORCHELASTIC_RUN_ID"):
        machines = environment.get("GROUP_WORLD_SIZE") or "1"
        if _OF_ACCELERATE in environment:
            more = ["--num_machines", machines] if machines != "1" else []
            return ["accelerate", "launch", *more, "--num_processes", str(count)]
        more = ["--nnodes", machines] if machines != "1" else []
        return ["torchrun", *more, "--nproc_per_node", environment.get("LOCAL_WORLD_SIZE") or str(count)]
    if environment.get("SLURM_PROCID"):
        machines = environment.get("SLURM_STEP_NUM_NODES") or environment.get("SLURM_NNODES") or "1"
        return ["srun", "--nodes", machines, "--ntasks", str(count)]
    return []


def under_slurm(environment: Mapping[str, str]) -> dict[str, str]:
    """What torch.distributed needs of one of several tasks of ``srun``; empty elsewhere, and where it is there already.

    ``MASTER_ADDR`` is the first host of the step (rank 0 runs there), ``MASTER_PORT`` a function of job and step. A
    task that sees one GPU of its own (``--gpus-per-task``) finds it as the first.

    >>> under_slurm({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "7",
    ...              "SLURM_JOB_NODELIST": "gpu[07-08]"})
    {'RANK': '3', 'WORLD_SIZE': '4', 'LOCAL_RANK': '1', 'MASTER_ADDR': 'gpu07', 'MASTER_PORT': '15007'}
    """
    if environment.get("RANK") or environment.get("WORLD_SIZE"):
        return {}
    # Those of the step, which srun starts. SLURM_NTASKS has the script of a job too, which is one process.
    tasks = environment.get("SLURM_STEP_NUM_TASKS") or "1"
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST")
    number, local = environment.get("SLURM_PROCID"), environment.get("SLURM_LOCALID")
    if not (nodes and number and local and int(tasks) > 1):
        return {}
    found = {
        "RANK": number,
        "WORLD_SIZE": tasks,
        "LOCAL_RANK": _device(int(local), environment.get("CUDA_VISIBLE_DEVICES")),
        "MASTER_ADDR": next(hosts(nodes)),
        "MASTER_PORT": str(_port(environment)),
    }
    if threads := environment.get("SLURM_CPUS_PER_TASK"):
        found["OMP_NUM_THREADS"] = threads
    fixed = ("MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")  # may have been set by hand
    return {name: value for name, value in found.items() if not (name in fixed and environment.get(name))}


def tasks_without_srun(environment: Mapping[str, str] = os.environ) -> int:
    """How many tasks the job has whose script started this process by itself, without ``srun``; 0 for one."""
    if environment.get("WORLD_SIZE") or environment.get("SLURM_STEP_NUM_TASKS") or not environment.get("SLURM_PROCID"):
        return 0
    tasks = int(environment.get("SLURM_NTASKS") or 1)
    return tasks if tasks > 1 else 0


def by_mpi_alone(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes an ``mpirun`` started, of which none is told where they meet; 0 elsewhere.

    >>> by_mpi_alone({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1"})
    4
    """
    if environment.get("WORLD_SIZE"):
        return 0
    count = int(environment.get("OMPI_COMM_WORLD_SIZE") or environment.get("PMI_SIZE") or 1)  # the latter: MPICH, Intel
    return count if count > 1 else 0


def _device(local: int, visible: str | None) -> str:
    """Of this task among those that the task sees."""
    count = len(visible.split(",")) if visible else 0
    return str(local % count if count else local)


def _port(environment: Mapping[str, str]) -> int:
    job = environment.get("SLURM_JOB_ID") or environment.get("SLURM_JOBID") or "0"
    step = environment.get("SLURM_STEP_ID") or environment.get("SLURM_STEPID") or "0"
    number = int(job) + _STEP_APART * int(step) if (job + step).isdigit() else 0
    return _FIRST_PORT + number % _PORTS


def hosts(nodes: str) -> Iterator[str]:
    """The hosts of a list as SLURM writes it, in its order.

    >>> list(hosts("login,rack[1-2]n[08-10,15]"))[:6]
    ['login', 'rack1n08', 'rack1n09', 'rack1n10', 'rack1n15', 'rack2n08']
    """
    for name in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodes):
        parts = re.split(r"\[([^\]]*)\]", name.strip())  # text, range, text, range, …, text
        choices = [_numbers(part) if place % 2 else [part] for place, part in enumerate(parts)]
        for chosen in product(*choices):
            yield "".join(chosen)


def _numbers(ranges: str) -> list[str]:
    """``01-03,07`` written out, with the zeros that it is written with."""
    found = []
    for piece in ranges.split(","):
        first, _, last = piece.partition("-")
        found += [str(n).zfill(len(first)) for n in range(int(first), int(last or first) + 1)]
    return found
