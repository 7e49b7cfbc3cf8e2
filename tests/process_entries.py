"""Functions that the process tests call in a child."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass

from edgekit.errors import DataError, UnsupportedError
from edgekit.process import emit


@dataclass(frozen=True)
class Ask:
    number: int
    text: str = ""


@dataclass(frozen=True)
class Answer:
    doubled: int


def double(request: Ask) -> Answer:
    print("chatter of a library")
    emit({"type": "progress", "step": 1})
    return Answer(request.number * 2)


def refuse(request: Ask) -> Answer:
    raise DataError(f"expected an even number, received {request.number}")


def unsupported(request: Ask) -> Answer:
    raise UnsupportedError("this", reason="that", instead="the other")


def stumble(request: Ask) -> Answer:
    raise KeyError("missing")


def abort(request: Ask) -> Answer:
    os.abort()


def leave(request: Ask) -> Answer:
    os._exit(7)


def hang(request: Ask) -> Answer:
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(request.text, "w") as file:  # noqa: PTH123
        file.write(f"{os.getpid()} {grandchild.pid}")
    time.sleep(600)
    return Answer(0)


def library_fails(request: Ask) -> object:
    return object()  # which no JSON can hold: the serializer fails, after this function
