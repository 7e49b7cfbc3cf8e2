"""Addresses and device files of the ssh kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import TargetError
from edgekit.targets import find_device, load_device
from edgekit.targets.ssh.spec import ALL_UNITS, Address, SshDevice, parse_address
from edgekit.targets.ssh.transport import LOADER, ssh_command


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("mac", Address("mac", None, None)),
        ("me@mac.local", Address("mac.local", "me", None)),
        ("me@10.0.0.7:2222", Address("10.0.0.7", "me", 2222)),
        ("me@[::1]:22", Address("::1", "me", 22)),
        ("[fe80::1%en0]", Address("fe80::1%en0", None, None)),
    ],
)
def test_address_is_read(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "me@", "@mac", "-oProxyCommand=x", "-l@mac", "mac:0", "mac:99999", "mac:x", "a b", "mac;ls", "::1", "a@b@c"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected \[user@\]host\[:port\]"):
        parse_address(text)


@settings(deadline=None)  # the first example imports the kinds of target
@given(st.text(max_size=30))
def test_no_address_becomes_an_option_of_ssh(text: str) -> None:
    try:
        device = find_device(f"ssh:{text}")
    except TargetError:
        return
    assert isinstance(device, SshDevice)
    line = ssh_command(device)
    host = line[line.index("--") + 1]
    assert not host.startswith("-")
    assert not set(host) & set(" ;|&$`'\"\\\n")


def test_address_form_needs_no_device_file() -> None:
    device = find_device("ssh:me@mac.local:2222")
    assert isinstance(device, SshDevice)
    assert (device.name, device.address, device.compute_units) == (
        "ssh:me@mac.local:2222",
        "me@mac.local:2222",
        ALL_UNITS,
    )
    assert SshDevice.model_validate(device.model_dump(mode="json")) == device


@pytest.mark.parametrize("name", ["host:here", "nonsense:x", "emulated:x"])
def test_address_form_of_another_kind_is_refused(name: str) -> None:
    with pytest.raises(TargetError, match=r"expected a device's name, or ssh:ADDRESS"):
        find_device(name)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("address: -oProxyCommand=x", "address: expected"),
        ("python: python3; rm -rf", "python"),
        ("compute_units: [all, all]", "expected each choice of compute units once"),
        ("compute_units: [gpuOnly]", "compute_units"),
        ("timeout_s: 0", "timeout_s"),
    ],
)
def test_wrong_device_file_is_refused_with_the_key(line: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mac.yaml"
    given = "" if line.startswith("address") else "address: mac\n"
    file.write_text(f"schema_version: 1\nname: mac\nkind: ssh\ndescription: a Mac\n{given}{line}\n")
    with pytest.raises(TargetError, match=message):
        load_device(file)


def test_loader_survives_every_login_shell() -> None:
    assert not set(LOADER) & set("'\"`$!\\{}<>|&*?#~")
