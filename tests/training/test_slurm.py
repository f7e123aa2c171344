"""Tests how training finds its processes in a cluster with Slurm, from the environment variables that srun sets."""

from __future__ import annotations

import pytest

from lowlevel_simclr.training.slurm import SlurmError, choose_first_port, expand_counts, expand_hosts, read_addresses

STEP = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_NODELIST": "node[01-02]",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
    "SLURM_PROCID": "2",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_DISTRIBUTION": "block",
}


@pytest.mark.parametrize(
    ("listed", "hosts"),
    [
        ("node1", ["node1"]),
        ("node[01-03,7]", ["node01", "node02", "node03", "node7"]),
        ("node[08-11]", ["node08", "node09", "node10", "node11"]),
        ("node[3]", ["node3"]),
        ("a,b[2-3],c", ["a", "b2", "b3", "c"]),
        ("gpu[1-2]-ib,login.example.org", ["gpu1-ib", "gpu2-ib", "login.example.org"]),
        ("rack[1-2]n[3-4]", ["rack1n3", "rack1n4", "rack2n3", "rack2n4"]),
    ],
)
def test_a_list_of_hosts_is_expanded(listed: str, hosts: list[str]) -> None:
    assert expand_hosts(listed) == hosts


@pytest.mark.parametrize(
    "listed",
    ["", ",", "a,", "a,,b", "a b", "n[", "n]", "n[]", "n[a]", "n[1-]", "n[-1]", "n[3-1]", "n[1-2],n2", "n[1[2]]"],
)
def test_another_list_of_hosts_is_refused(listed: str) -> None:
    with pytest.raises(SlurmError):
        expand_hosts(listed)


def test_numbers_of_tasks_are_expanded() -> None:
    assert expand_counts("1") == [1]
    assert expand_counts("2(x3),1") == [2, 2, 2, 1]
    for listed in ("", "a", "2(3)", "2(x3", "2,,1", "-1"):
        with pytest.raises(SlurmError, match="SLURM_STEP_TASKS_PER_NODE"):
            expand_counts(listed)


def test_each_task_gets_an_address_on_its_host() -> None:
    found = read_addresses(STEP)
    port = choose_first_port(STEP)
    assert found == ((f"node01:{port}", f"node01:{port + 1}", f"node02:{port}"), 2)


def test_tasks_that_are_dealt_out_in_turn_have_other_addresses() -> None:
    cyclic = {**STEP, "SLURM_DISTRIBUTION": "cyclic:block", "SLURM_NODEID": "0", "SLURM_LOCALID": "1"}
    port = choose_first_port(STEP)
    assert read_addresses(cyclic) == ((f"node01:{port}", f"node02:{port}", f"node01:{port + 1}"), 2)


def test_one_task_is_alone_and_so_is_a_program_that_srun_did_not_start() -> None:
    one = {**STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NODELIST": "node01", "SLURM_PROCID": "0"}
    of_batch = {name: value for name, value in STEP.items() if "STEP" not in name} | {"SLURM_NTASKS": "3"}
    assert read_addresses(one) is None
    assert read_addresses({**of_batch, "SLURM_PROCID": "0"}) is None
    assert read_addresses({}) is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"SLURM_PROCID": "3"}, "SLURM_PROCID is 3, but there are 3 tasks"),
        ({"SLURM_PROCID": ""}, "SLURM_PROCID is not set"),
        ({"SLURM_PROCID": "two"}, "SLURM_PROCID is 'two'"),
        ({"SLURM_STEP_NUM_TASKS": "-1"}, "SLURM_STEP_NUM_TASKS is '-1'"),
        ({"SLURM_STEP_NODELIST": ""}, "SLURM_STEP_NODELIST is not set"),
        ({"SLURM_STEP_NODELIST": "node01"}, r"3 tasks .* and 1 hosts"),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x2)"}, r"SLURM_STEP_TASKS_PER_NODE is 2\(x2\)"),
        ({"SLURM_STEP_NODELIST": "node[01,01]"}, "names a host twice"),
        ({"SLURM_NODEID": "0"}, "SLURM_NODEID of task 2 is 0, but by the other variables it is 1"),
        ({"SLURM_LOCALID": "1"}, "SLURM_LOCALID of task 2 is 1, but by the other variables it is 0"),
        ({"SLURM_DISTRIBUTION": "plane=2"}, "is plane=2, not block or cyclic"),
    ],
)
def test_variables_that_contradict_one_another_are_refused(changed: dict[str, str], said: str) -> None:
    with pytest.raises(SlurmError, match=said):
        read_addresses({**STEP, **changed})


def test_jobs_and_steps_have_ports_of_their_own() -> None:
    """Test that two jobs on one host get different ports, below those that Linux uses for outgoing connections."""
    ports = {choose_first_port({"SLURM_JOB_ID": str(job), "SLURM_STEP_ID": "0"}) for job in range(100, 120)}
    ports |= {choose_first_port({"SLURM_JOB_ID": "100", "SLURM_STEP_ID": "1"})}
    ports |= {choose_first_port({"SLURM_JOB_ID": "100", "SLURM_STEP_ID": "2"})}
    assert len(ports) == 22 and min(ports) >= 10_000 and max(ports) + 16 < 32_768
