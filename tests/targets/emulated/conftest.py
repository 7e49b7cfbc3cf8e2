from __future__ import annotations

import pytest
from guest_programs import GuestCompiler, build_plugin_tools

from edgekit.errors import UnsupportedError
from edgekit.targets.emulated.setup import Toolchain, toolchain


@pytest.fixture(scope="session")
def emulated_toolchain() -> Toolchain:
    """The tools that emulation needs; tests skip, with the reason, where they are not set up."""
    try:
        return toolchain()
    except UnsupportedError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def plugin_tools(tmp_path_factory: pytest.TempPathFactory) -> Toolchain:
    """Just qemu and a plugin that is built now: enough to count, without any runtime being set up."""
    return build_plugin_tools(tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="session")
def compile_guest(tmp_path_factory: pytest.TempPathFactory) -> GuestCompiler:
    """Compile C for the guest; skips where there is no cross compiler."""
    return GuestCompiler(tmp_path_factory.mktemp("guest"))
