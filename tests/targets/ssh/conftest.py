from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_mac import FakeMac
from ssh_server import SshServer, running_server

from edgekit.targets.ssh.machine import _known


@pytest.fixture(scope="session")
def ssh_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """A server for all tests; they skip, with the reason, where there is no ``sshd``."""
    with running_server(tmp_path_factory.mktemp("sshd"), tmp_path_factory.mktemp("remote-tmp")) as server:
        yield server


@pytest.fixture(autouse=True)
def _nothing_known() -> None:
    """What a device said in one test is not believed in the next."""
    _known.cache_clear()


@pytest.fixture
def fake_mac(tmp_path: Path) -> FakeMac:
    """A Python that believes to run on a Mac with coremltools."""
    return FakeMac.at(tmp_path / "mac")
