"""Which network interface processes talk over: the one of an address, and no other.

Collective libraries look for themselves otherwise: gloo takes whatever the host's name resolves to, NCCL the first
interface that is not the loopback, and both then listen there without asking anybody who they are.
"""

from __future__ import annotations

import ipaddress
from typing import Any

import psutil

from configs.errors import ConfigError

LOOPBACK = "127.0.0.1"


def interface_of(address: str) -> str:
    """The name of the interface of this machine that has this address, such as `lo` for 127.0.0.1.

    Raises:
        ConfigError: no interface has it.
    """
    wanted = ipaddress.ip_address(address)
    found: dict[str, list[Any]] = psutil.net_if_addrs()
    for name, addresses in found.items():
        # An address of IPv6 carries the interface behind a percent sign.
        if any(_parsed(each.address.partition("%")[0]) == wanted for each in addresses):
            return name
    raise ConfigError(
        f"no network interface of this machine has the address {address} (it has {', '.join(sorted(found))}): "
        "start its Ray node with --node-ip-address and one of this machine's own addresses"
    )


def collective_environment(address: str) -> dict[str, str]:
    """Environment variables that keep gloo and NCCL on the interface of `address`.

    Raises:
        ConfigError: see `interface_of`.
    """
    name = interface_of(address)
    # The sign tells NCCL that it is the whole name and not its beginning.
    return {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"}


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        return None  # a hardware address
