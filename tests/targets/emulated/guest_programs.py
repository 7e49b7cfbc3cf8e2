"""Small guest programs whose instructions are known, and the tools to run them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgekit.targets.devices import packaged_targets
from edgekit.targets.emulated.build import plugin_build
from edgekit.targets.emulated.persona import Persona
from edgekit.targets.emulated.setup import Toolchain
from edgekit.targets.emulated.tools import find_qemu, find_sysroot

NATIVE = packaged_targets() / "native"

KERNEL = """
#include <stdlib.h>
#include "marker.h"
/* three instructions a round */
__attribute__((noinline)) long kernel(long rounds) {
    long sum;
    __asm__ volatile("mov %0, #0\\n1: add %0, %0, #1\\n subs %1, %1, #1\\n b.ne 1b\\n" : "=r"(sum), "+r"(rounds));
    return sum;
}
"""
COUNTED = (
    KERNEL
    + """
int main(int count, char **values) {
    const long rounds = count > 1 ? atol(values[1]) : 1000;
    edgekit_mark(EDGEKIT_LOAD_BEGIN, 0, 0);
    kernel(10 * rounds);
    edgekit_mark(EDGEKIT_LOAD_END, 0, 0);
    kernel(7);
    edgekit_mark(EDGEKIT_STEADY_BEGIN, 0, 0);
    kernel(rounds);
    edgekit_mark(EDGEKIT_SEGMENT, 42, 0);
    kernel(2 * rounds);
    edgekit_mark(EDGEKIT_STEADY_END, 0, 0);
    edgekit_mark(EDGEKIT_STEADY_BEGIN, 0, 0);
    kernel(100 * rounds);
    edgekit_mark(EDGEKIT_STEADY_END, 0, 0);
    return count > 2 ? atoi(values[2]) : 0;
}
"""
)


class GuestCompiler:
    """Compiles C for the guest, each text once."""

    def __init__(self, folder: Path) -> None:
        found = shutil.which("aarch64-linux-gnu-gcc")
        if found is None:
            pytest.skip("no cross compiler: aarch64-linux-gnu-gcc is not installed")
        self._compiler, self._folder = found, folder

    def __call__(self, name: str, source: str, *flags: str) -> Path:
        output, text = self._folder / name, self._folder / f"{name}.c"
        if not output.exists():
            text.write_text(source)
            command = [self._compiler, "-O1", "-pthread", f"-I{NATIVE}", *flags, "-o", str(output), str(text)]
            subprocess.run(command, check=True)
        return output


def build_plugin_tools(folder: Path) -> Toolchain:
    qemu, sysroot, compiler = find_qemu(), find_sysroot(), shutil.which("gcc")
    if qemu.path is None or sysroot.path is None or compiler is None:
        pytest.skip(qemu.problem or sysroot.problem or "no gcc on this machine")
    plugin = folder / "counting_plugin.so"
    build = plugin_build()
    subprocess.run([*build.command((compiler,), plugin), "-Werror"], check=True)
    return Toolchain(
        qemu=qemu.path,
        qemu_version=qemu.version,
        sysroot=sysroot.path,
        plugin=plugin,
        coresim=folder / "none",
        runners={},
        libraries={},
        versions={},
    )


def bare_persona(tools: Toolchain) -> Persona:
    """A guest with the sysroot's libraries and this machine's processor files."""
    return Persona(core="cortex-a76", qemu_cpu="cortex-a76", root=tools.sysroot, key="bare")
