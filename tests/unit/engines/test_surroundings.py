"""Ports, disk and memory: a refusal names what is wrong and what to do."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from gatebook.engines import preflight, processes
from gatebook.engines.errors import PortTaken, TooLittleSpace
from gatebook.engines.processes import EPHEMERAL_FREE, free_ports, require_free_port


def test_a_taken_port_names_the_process_that_holds_it() -> None:
    """The user learns which process to stop, and which setting avoids it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"{port} .*pid {os.getpid()}") as caught:
            require_free_port(port, "GATEBOOK_KAFKA_PORT")
    assert "GATEBOOK_KAFKA_PORT" in caught.value.next_step
    assert caught.value.exit_code == 3


def test_a_free_port_is_no_obstacle() -> None:
    """What `free_ports` gives can be bound, also by the check."""
    (port,) = free_ports(1)
    require_free_port(port, "GATEBOOK_KAFKA_PORT")
    assert processes.port_holder(port) is None


def test_free_ports_differ_and_stay_out_of_the_outgoing_range() -> None:
    """A client that retries on a dead engine's port must not be given that port itself."""
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(port in EPHEMERAL_FREE for port in ports)


def test_low_disk_is_refused_with_figures(tmp_path: Path) -> None:
    """The message says how much there is, how much is needed, and where."""
    with pytest.raises(TooLittleSpace, match=r"1\.0 GiB .* need 2 GiB") as caught:
        preflight.require_disk(tmp_path, free_bytes=preflight.GIB)
    assert "GATEBOOK_HOME" in caught.value.next_step
    assert caught.value.exit_code == 4
    preflight.require_disk(tmp_path, free_bytes=preflight.REQUIRED_DISK_BYTES)


def test_low_memory_is_refused_with_figures() -> None:
    """Below the need: refused. At the need: fine."""
    with pytest.raises(TooLittleSpace, match=r"1\.0 GiB of memory"):
        preflight.require_memory(available_bytes=preflight.GIB)
    preflight.require_memory(available_bytes=preflight.REQUIRED_MEMORY_BYTES)


def test_the_disk_of_a_home_that_does_not_exist_yet_is_its_parents(tmp_path: Path) -> None:
    """`up` checks the disk before it makes the directory."""
    free = preflight.free_disk_bytes(tmp_path / "not" / "there")
    assert abs(free - preflight.free_disk_bytes(tmp_path)) < preflight.GIB
