"""What of the machine a process may use."""

from __future__ import annotations

import os

import pytest

from subjectiveqe import machine


def test_cores_are_those_of_the_affinity_and_the_quota(tmp_path):
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert machine.cpu_count(tmp_path) == mine
    group = tmp_path / "sys/fs/cgroup"
    (group / "cpu").mkdir(parents=True)
    (group / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    (group / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert machine.cpu_count(tmp_path) == mine
    (group / "cpu/cpu.cfs_quota_us").write_text("50000\n")
    assert machine.cpu_count(tmp_path) == 1
    (group / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    (group / "cpu.max").write_text("max 100000\n")
    assert machine.cpu_count(tmp_path) == mine
    (group / "cpu.max").write_text("100000 100000\n")
    assert machine.cpu_count(tmp_path) == 1


@pytest.mark.parametrize("limited", ["system.slice", "system.slice/job"])
@pytest.mark.parametrize(
    ("said", "apart", "of_cpus", "of_memory"),
    [
        ("0::/system.slice/job", False, {"cpu.max": "50000 100000"}, {"memory.max": "900", "memory.current": "200"}),
        (
            "5:cpu,cpuacct:/system.slice/job\n4:memory:/system.slice/job",
            True,
            {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"},
            {"memory.limit_in_bytes": "900", "memory.usage_in_bytes": "200"},
        ),
    ],
)
def test_the_groups_of_a_service_or_a_job_limit_it_and_those_that_they_are_part_of(
    tmp_path, said, apart, of_cpus, of_memory, limited
):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"{said}\n1:name=systemd:/init.scope\n")
    for controller, values in (("cpu", of_cpus), ("memory", of_memory)):
        folder = tmp_path / "sys/fs/cgroup" / (controller if apart else "") / limited
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in values.items():
            (folder / name).write_text(f"{value}\n")
    assert machine.cpu_count(tmp_path) == 1
    assert machine.memory_bytes(tmp_path) == 700


@pytest.mark.parametrize(
    "said", [b"0::/\n", b"0::/docker/4f1c\n", b"\n0::/gone\n", b"no group\n", b"0::/caf\xe9\n", "0::/a\x85b\n".encode()]
)
def test_a_container_sees_its_own_group_at_the_top_whatever_it_is_called(tmp_path, said):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_bytes(said)
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    for name, value in {"cpu.max": "50000 100000", "memory.max": "900", "memory.current": "200"}.items():
        (tmp_path / "sys/fs/cgroup" / name).write_text(f"{value}\n")
    assert machine.cpu_count(tmp_path) == 1
    assert machine.memory_bytes(tmp_path) == 700


def test_memory_is_what_the_machine_and_the_control_group_leave(tmp_path):
    (tmp_path / "proc").mkdir()
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    assert machine.memory_bytes(tmp_path) is None
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    assert machine.memory_bytes(tmp_path) == 5000 * 1024
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("70000\n")
    assert machine.memory_bytes(tmp_path) == 5000 * 1024
    (group / "memory.max").write_text("100000\n")
    assert machine.memory_bytes(tmp_path) == 30000
    (group / "memory.stat").write_text("anon 20000\ninactive_file 30000\nactive_file 15000\n")
    assert machine.memory_bytes(tmp_path) == 75000
    (group / "memory.max").write_text("max\n")
    (group / "memory").mkdir()
    (group / "memory/memory.limit_in_bytes").write_text("90000\n")
    (group / "memory/memory.usage_in_bytes").write_text("80000\n")
    (group / "memory/memory.stat").write_text(
        "cache 1\nactive_file 1\ntotal_cache 40000\ntotal_inactive_file 30000\ntotal_active_file 9000\n"
    )
    assert machine.memory_bytes(tmp_path) == 49000
    assert machine.memory_bytes() > 2**20


def test_what_linux_says_of_the_cpu(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(
        "processor : 0\nmodel name\t: A: CPU\nflags\t\t: fpu avx2\n\nprocessor : 1\n"
    )
    assert [machine.cpu_info(name, tmp_path) for name in ("model name", "flags", "voltage")] == [
        "A: CPU",
        "fpu avx2",
        "",
    ]
    assert machine.cpu_info("flags", tmp_path / "gone") == ""
