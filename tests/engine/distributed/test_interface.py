"""Which network interface gloo is told to use."""

from __future__ import annotations

import os

import psutil
import pytest

from lmtrain.engine.distributed.interface import VARIABLE, choose_interface

lines: list[str] = []


def say(topic: str, text: str) -> None:
    lines.append(text)


@pytest.fixture(autouse=True)
def several_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    lines.clear()
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.delenv(VARIABLE, raising=False)


def own_addresses() -> list[tuple[str, str]]:
    """This machine's interfaces with their IPv4 addresses, but for the loopback."""
    held = psutil.net_if_addrs().items()
    found = [(name, a.address) for name, addresses in held for a in addresses if a.family.name == "AF_INET"]
    return [(name, address) for name, address in found if not address.startswith("127.")]


def chosen() -> str | None:
    choose_interface(say)
    return os.environ.pop(VARIABLE, None)  # monkeypatch would take what was chosen for what was there before


def test_the_one_that_leads_to_the_master(monkeypatch: pytest.MonkeyPatch) -> None:
    held = own_addresses()
    if not held:
        pytest.skip("this machine has no network")
    name, address = held[0]
    monkeypatch.setenv("MASTER_ADDR", address)
    assert chosen() == name and not lines


def test_nothing_on_one_machine_or_where_the_user_has_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    for _, address in own_addresses()[:1]:
        monkeypatch.setenv("MASTER_ADDR", address)
    monkeypatch.setenv(VARIABLE, "mine")
    assert chosen() == "mine"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert chosen() is None and not lines


def test_a_name_that_stands_for_the_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Debian's /etc/hosts has it of a machine's own name; an address of the loopback is meant as such."""
    assert chosen() is None and not lines
    monkeypatch.setattr("lmtrain.engine.distributed.interface._address_towards", lambda host: "127.0.1.1")
    monkeypatch.setenv("MASTER_ADDR", "node7")
    assert chosen() is None
    assert "node7 stands for 127.0.1.1 here" in lines[0] and f"{VARIABLE}=eth0" in lines[0]


def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "no-such-host.invalid")
    assert chosen() is None and not lines
