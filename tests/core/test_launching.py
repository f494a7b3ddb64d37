"""What srun says in its own words is what torch.distributed reads."""

from __future__ import annotations

import pytest

from lmtrain.core.launching import (
    by_mpi_alone,
    hosts,
    is_first_here,
    launcher,
    processes,
    rank,
    tasks_without_srun,
    under_slurm,
)

TASK = {
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NODELIST": "node[01-03,07]",
}


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("localhost", ["localhost"]),
        ("node[01-03,07]", ["node01", "node02", "node03", "node07"]),
        ("node7,gpu[9-11]", ["node7", "gpu9", "gpu10", "gpu11"]),
        ("a[1-2]b[08,10]", ["a1b08", "a1b10", "a2b08", "a2b10"]),
        ("n[098-101].cluster, login", ["n098.cluster", "n099.cluster", "n100.cluster", "n101.cluster", "login"]),
        ("10.0.0.5,10.0.0.6", ["10.0.0.5", "10.0.0.6"]),
    ],
)
def test_lists_of_nodes(nodes: str, expected: list[str]) -> None:
    assert list(hosts(nodes)) == expected


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, ""),
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}, ""),
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "1"},
         "torchrun --nproc_per_node 4"),
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2",
          "ACCELERATE_DYNAMO_USE_FULLGRAPH": "False"},
         "accelerate launch --num_machines 2 --num_processes 4"),
        ({"RANK": "0", "WORLD_SIZE": "6", "SLURM_PROCID": "0", "SLURM_NNODES": "3"}, "srun --nodes 3 --ntasks 6"),
        ({"RANK": "0", "WORLD_SIZE": "6"}, ""),
    ],
)  # fmt: skip
def test_what_launches_as_many_again(said: dict[str, str], words: str) -> None:
    assert " ".join(launcher(said)) == words


def test_a_task_of_srun() -> None:
    said = under_slurm(TASK)
    assert said == {
        "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "node01", "MASTER_PORT": "19711",
    }  # fmt: skip
    assert (rank(said), processes(said)) == (3, 4)
    assert (rank({}), processes({})) == (0, 1)


def test_all_tasks_agree_where_to_meet_and_two_steps_of_a_job_do_not() -> None:
    others = [under_slurm({**TASK, "SLURM_PROCID": str(n), "SLURM_LOCALID": "0"}) for n in range(3)]
    assert {(each["MASTER_ADDR"], each["MASTER_PORT"]) for each in others} == {("node01", "19711")}
    assert under_slurm({**TASK, "SLURM_STEP_ID": "1"})["MASTER_PORT"] != "19711"
    largest = int(under_slurm({**TASK, "SLURM_JOB_ID": "67108863", "SLURM_STEP_ID": "4095"})["MASTER_PORT"])
    assert 15_000 <= largest < 30_000


def test_the_step_counts_where_it_is_smaller_than_the_job() -> None:
    said = under_slurm({**TASK, "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "node[02-03]"})
    assert (said["WORLD_SIZE"], said["MASTER_ADDR"]) == ("2", "node02")


@pytest.mark.parametrize("visible, local", [("0", "0"), ("0,1,2,3", "1"), ("", "1"), ("GPU-8f,GPU-9a", "1")])
def test_a_gpu_of_ones_own_is_the_first(visible: str, local: str) -> None:
    assert under_slurm({**TASK, "CUDA_VISIBLE_DEVICES": visible})["LOCAL_RANK"] == local


def test_what_is_set_already_stays() -> None:
    said = under_slurm({**TASK, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "SLURM_CPUS_PER_TASK": "8"})
    assert "MASTER_ADDR" not in said and "MASTER_PORT" not in said
    assert said["OMP_NUM_THREADS"] == "8"
    assert under_slurm({**TASK, "RANK": "0", "WORLD_SIZE": "2"}) == {}, "torchrun inside of a job"


@pytest.mark.parametrize("changed", [{"SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_PROCID": ""}, {"SLURM_JOB_NODELIST": ""}])
def test_one_task_is_one_process(changed: dict[str, str]) -> None:
    assert under_slurm({**TASK, **changed}) == {}
    assert under_slurm({}) == {}


def test_the_script_of_a_job_is_one_process_whatever_the_job_has() -> None:
    """``sbatch`` numbers its script as the first task of all, and starts no other: nobody would come to meet it."""
    script = {**TASK, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": ""}
    assert under_slurm(script) == {} and tasks_without_srun(script) == 4
    assert tasks_without_srun({**script, "WORLD_SIZE": "4"}) == tasks_without_srun(TASK) == tasks_without_srun({}) == 0


def test_one_process_of_a_machine_is_its_first() -> None:
    tasks = [
        under_slurm({**TASK, "SLURM_LOCALID": n, "CUDA_VISIBLE_DEVICES": "0"}) | {"SLURM_LOCALID": n} for n in "01"
    ]
    assert [task["LOCAL_RANK"] for task in tasks] == ["0", "0"] and [is_first_here(task) for task in tasks] == [
        True,
        False,
    ]
    of_torchrun = {"RANK": "5", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "SLURM_LOCALID": "0"}  # a task of srun
    assert not is_first_here(of_torchrun) and is_first_here({**of_torchrun, "LOCAL_RANK": "0"})


def test_mpirun_says_nowhere_to_meet() -> None:
    assert by_mpi_alone({"PMI_SIZE": "3"}) == by_mpi_alone({"OMPI_COMM_WORLD_SIZE": "3"}) == 3
    for fine in ({}, {"PMI_SIZE": "1"}, {"OMPI_COMM_WORLD_SIZE": "3", "WORLD_SIZE": "3"}):
        assert by_mpi_alone(fine) == 0
