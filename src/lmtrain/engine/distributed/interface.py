"""Through which network interface processes on several machines exchange what they have.

Gloo takes the interface of the address that the machine's own name stands for. On many machines that is 127.0.0.1 or
127.0.1.1 (Debian writes it into /etc/hosts), where no other machine finds it, or a network that the others are not on.
The interface that leads to ``MASTER_ADDR`` is one on which they do meet. NCCL looks for itself.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping

import psutil

from lmtrain.core.console import Say, say

VARIABLE = "GLOO_SOCKET_IFNAME"
_ANY_PORT = 9  # nothing is sent there


def choose_interface(say: Say = say) -> None:
    """Set ``GLOO_SOCKET_IFNAME`` on one of several machines, where it can be told and is not set.

    Call it before there is a group of processes. Says what to do where only the user can know.
    """
    if os.environ.get(VARIABLE) or not _on_several_machines(os.environ):
        return
    master = os.environ["MASTER_ADDR"]
    own = _address_towards(master)
    if own is None:
        return
    if ipaddress.ip_address(own.split("%")[0]).is_loopback:
        if "LOCAL_WORLD_SIZE" in os.environ and master not in ("localhost", own):  # else all may be on this machine
            say(
                "attention",
                f"{master} stands for {own} here, where other machines do not find this one; if they cannot connect, "
                f"name the network interface that leads to them: {VARIABLE}=eth0",
            )
        return
    names = [name for name, held in psutil.net_if_addrs().items() if any(a.address == own for a in held)]
    if len(names) == 1:
        os.environ[VARIABLE] = names[0]


def _on_several_machines(environment: Mapping[str, str]) -> bool:
    """As far as the launcher says it."""
    return environment.get("LOCAL_WORLD_SIZE") != environment.get("WORLD_SIZE")


def _address_towards(host: str) -> str | None:
    """This machine's address on the way to ``host``; None without a way. Nothing is sent."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, _ANY_PORT, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError:
        return None
