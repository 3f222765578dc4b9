"""The interface of an address, as this machine has it."""

from __future__ import annotations

import psutil
import pytest

from configs import ConfigError
from configs.interfaces import collective_environment, interface_of


def test_the_loopback_has_its_address() -> None:
    name = interface_of("127.0.0.1")
    assert "127.0.0.1" in {each.address for each in psutil.net_if_addrs()[name]}
    assert collective_environment("127.0.0.1") == {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"}


def test_every_address_of_this_machine_is_found_on_its_interface() -> None:
    for name, addresses in psutil.net_if_addrs().items():
        for each in addresses:
            if each.family != psutil.AF_LINK:
                assert interface_of(each.address.partition("%")[0]) == name


def test_an_address_of_nobody_is_refused_with_the_cure() -> None:
    with pytest.raises(ConfigError, match=r"address 203\.0\.113\.9 \(it has .*--node-ip-address"):
        interface_of("203.0.113.9")
