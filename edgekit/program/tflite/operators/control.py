"""Control flow, settled while reading: loops unrolled, one branch taken, variables initialised and then constant."""

from __future__ import annotations

from edgekit.program.tflite.call import Call, Translate
from edgekit.program.tflite.emitter import Value
from edgekit.program.tflite.operators.recurrent import MAX_STEPS

_STATE = "a model whose layers start from zero at each run, or whose state is an input and an output"


def while_(call: Call) -> list[Value]:
    """``WHILE``: its condition is evaluated before each step, with what is known while reading."""
    condition, body = call.options.condSubgraphIndex, call.options.bodySubgraphIndex
    values = [call.input(index) for index in range(len(call.inputs))]
    for _ in range(MAX_STEPS + 1):
        goes_on = call.run_graph(condition, values)[0].constant
        if goes_on is None:
            raise call.refusal(
                "how often it runs depends on the model's input, and a program has no loops",
                "sequences of fixed length (unroll=True in Keras), or the TFLite format alone",
            )
        if not bool(goes_on.any()):
            return values
        values = call.run_graph(body, values)
    raise call.refusal(
        f"it runs more than {MAX_STEPS} times, and each time would become operations of its own",
        "shorter sequences, or the TFLite format alone",
    )


def if_(call: Call) -> list[Value]:
    """``IF``: the branch that a constant condition takes."""
    taken = bool(call.constant(0, "the condition of a branch").any())
    graph = call.options.thenSubgraphIndex if taken else call.options.elseSubgraphIndex
    return call.run_graph(graph, [call.input(index) for index in range(1, len(call.inputs))])


def call_once(call: Call) -> list[Value]:
    """``CALL_ONCE``: the graph that gives variables their first values."""
    call.emit.initialising = True
    try:
        call.run_graph(call.options.initSubgraphIndex, [])
    finally:
        call.emit.initialising = False
    return []


def var_handle(call: Call) -> Value:
    """``VAR_HANDLE``: names a variable."""
    made = Value((), call.outputs[0].dtype)
    made.variable = (str(call.options.container), str(call.options.sharedName))
    return made


def assign_variable(call: Call) -> list[Value]:
    """``ASSIGN_VARIABLE``, allowed while variables are initialised only: after that they are constants."""
    variable, value = call.input(0).variable, call.input(1)
    if not call.emit.initialising:
        raise call.refusal("it keeps state between calls, which a program does not", _STATE)
    if variable is None or value.constant is None:
        raise call.refusal("it assigns something that is not a constant to something that is not a variable", _STATE)
    call.emit.variables[variable] = value
    return []


def read_variable(call: Call) -> Value:
    """``READ_VARIABLE``: a constant, set before the first run."""
    variable = call.input(0).variable
    if variable is None or variable not in call.emit.variables:
        raise call.refusal("it reads a variable that nothing has set", _STATE)
    return call.emit.variables[variable]


OPERATORS: dict[str, Translate] = {
    "ASSIGN_VARIABLE": assign_variable,
    "CALL_ONCE": call_once,
    "IF": if_,
    "READ_VARIABLE": read_variable,
    "VAR_HANDLE": var_handle,
    "WHILE": while_,
}
