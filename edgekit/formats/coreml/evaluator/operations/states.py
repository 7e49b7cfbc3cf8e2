"""States (``iOS18/states.py``, ``coreml_dialect/ops.py``)."""

from __future__ import annotations

from torch import Tensor

from edgekit.formats.coreml.evaluator.registry import Call, State, operation


def _state(call: Call, name: str) -> State:
    found = call.value(name)
    if not isinstance(found, State):
        raise call.refuse(f"a state for {name!r}", type(found).__name__)
    return found


@operation("read_state", since=18, exact=True)
def read_state(call: Call) -> Tensor:
    """``iOS18.read_state``: a copy of what the state holds."""
    return _state(call, "input").value.clone()


@operation("write_state", since=18, exact=True)
def write_state(call: Call) -> tuple[Tensor, ...]:
    """``write_state``: what coremltools writes for ``coreml_update_state``, followed by ``read_state``.

    It has no outputs, and no entry in coremltools' registry.
    """
    state, data = _state(call, "input"), call.tensor("data")
    if data.shape != state.value.shape:
        raise call.refuse(f"data of the state's shape {list(state.value.shape)}", list(data.shape))
    state.value = data.to(state.value.dtype).clone()
    return ()


@operation("coreml_update_state", since=18, exact=True)
def coreml_update_state(call: Call) -> Tensor:
    """``coreml_dialect.coreml_update_state``: writes the state and gives the value."""
    state, value = _state(call, "state"), call.tensor("value")
    state.value = value.to(state.value.dtype).clone()
    return value
