"""A real ssh server of this machine, on a port of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekit.targets.ssh.spec import SshDevice

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


@dataclass(frozen=True)
class SshServer:
    """``sshd`` with a host key, a key that it lets in, and a client configuration that knows both.

    Attributes:
        scratch: Where the processes behind it put temporary files.
    """

    folder: Path
    port: int
    scratch: Path

    @property
    def config(self) -> Path:
        return self.folder / "client_config"

    def device(self, **fields: object) -> SshDevice:
        """A device behind it, whose Python is the one that runs the tests."""
        given = {
            "schema_version": 1,
            "name": "box",
            "kind": "ssh",
            "description": "this machine over ssh",
            "address": "box",
            "ssh_config": str(self.config),
            "python": sys.executable,
            "connect_timeout_s": 5,
            "timeout_s": 120,
        }
        return SshDevice.model_validate({**given, **fields})

    def left_behind(self) -> list[str]:
        """What lies in the temporary folder of the other side."""
        return sorted(str(path.relative_to(self.scratch)) for path in self.scratch.iterdir())


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_server(folder: Path, scratch: Path) -> Iterator[SshServer]:
    """Run it. The test skips, with the reason, where there is no ``sshd``.

    Args:
        folder: For its keys and configuration.
        scratch: Where the processes behind it put temporary files.
    """
    if not Path(SSHD).exists() or shutil.which("ssh") is None:
        pytest.skip("needs openssh-server and openssh-client (apt-get install openssh-server)")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd locks itself up when root starts it
    folder.chmod(0o700)
    server = SshServer(folder, free_port(), scratch)
    host, client = make_key(folder / "host"), make_key(folder / "client")
    (folder / "authorized_keys").write_text(client.with_suffix(".pub").read_text())
    chatty = folder / "shell"  # as a login shell whose start files print something
    chatty.write_text('#!/bin/sh\necho "Welcome to the box"\nexec /bin/sh -c "$SSH_ORIGINAL_COMMAND"\n')
    chatty.chmod(0o755)
    (folder / "sshd_config").write_text(
        textwrap.dedent(f"""\
            ListenAddress 127.0.0.1:{server.port}
            HostKey {host}
            AuthorizedKeysFile {folder}/authorized_keys
            PidFile none
            StrictModes no
            UsePAM no
            PasswordAuthentication no
            KbdInteractiveAuthentication no
            PermitRootLogin prohibit-password
            SetEnv TMPDIR={server.scratch}
            ForceCommand {chatty}
            """)
    )
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {host.with_suffix('.pub').read_text()}")
    server.config.write_text(
        textwrap.dedent(f"""\
            Host box
              HostName 127.0.0.1
              Port {server.port}
              User {getpass.getuser()}
            Host *
              IdentityFile {client}
              IdentitiesOnly yes
              UserKnownHostsFile {folder}/known_hosts
              StrictHostKeyChecking yes
            """)
    )
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
        try:
            wait_until_listening(server.port)
            yield server
        finally:
            process.terminate()
            process.wait(10)


def wait_until_listening(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"sshd does not listen on port {port}")
