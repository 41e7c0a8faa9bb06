"""The process that executes a problem to see which operators it applies. Only this module of the room imports torch.

Run as `python -P -m tilesmith.superopt.tracing`: the request is JSON on standard input, the answer JSON on standard
output, and what the problem prints goes to standard error.

    request   source, constants (list of [name, value]), dtype ("fp16", ... or null)
    answer    inputs: [{name, origin, dims, dtype}], rows: [{target, arguments, place, results}], outputs: [reference]
              or {"fault": one sentence}

An argument or output that is the result of a row is {"row": number}, an input {"input": number}.
Nothing is computed: tensors are fake and have no memory.
"""

from __future__ import annotations

import ast
import inspect
import json
import math
import os
import re
import sys
import tempfile
import traceback
import types
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Fault(Exception):
    """The problem cannot be traced; the message is a sentence for its author."""


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    json.dump(answer(json.load(sys.stdin)), answers)
    answers.close()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request, whatever the problem does, as long as the process lives."""
    with tempfile.TemporaryDirectory(prefix="tilesmith-trace-") as folder:
        path = Path(folder, "problem.py")
        try:
            return trace(request["source"], request["constants"], request["dtype"], path)
        except Fault as fault:
            return {"fault": str(fault)}
        except Exception as error:  # the problem's code, and torch's opinion of it, may raise anything
            return {"fault": _told(error, path)}


def trace(source: str, constants: Sequence[tuple[str, Any]], dtype: str | None, path: Path) -> dict[str, Any]:
    """Execute the problem and list what its model applies to its inputs."""
    path.write_text(source, encoding="utf-8")
    module = types.ModuleType("problem")
    module.__file__ = str(path)
    sys.modules["problem"] = module
    tree = ast.parse(source, str(path))
    _override(tree.body, {name: tuple(v) if isinstance(v, list) else v for name, v in constants})
    exec(compile(ast.fix_missing_locations(tree), str(path), "exec"), module.__dict__)
    torch.manual_seed(0)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = module.Model(*module.get_init_inputs())
        inputs = tuple(module.get_inputs())
        if dtype is not None:
            inputs = tuple(_cast(value, DTYPES[dtype]) for value in inputs)
            _cast_state(model, DTYPES[dtype])
    with torch.no_grad():
        # Without a table nothing is taken apart: operators stay as large as the problem wrote them.
        program = torch.export.export(model, inputs).run_decompositions({})
    return listed(program, path, list(inspect.signature(model.forward).parameters))


def _override(body: list[ast.stmt], constants: dict[str, Any]) -> None:
    """After each top-level assignment to a constant one of its new value, so that what follows from it follows."""
    for place in range(len(body) - 1, -1, -1):
        statement = body[place]
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for field in ("body", "handlers", "orelse", "finalbody", "cases"):
            for inner in getattr(statement, field, ()):
                if isinstance(inner, ast.ExceptHandler | ast.match_case):
                    _override(inner.body, constants)
            if field != "handlers" and field != "cases" and getattr(statement, field, None):
                _override(getattr(statement, field), constants)
        if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
            assigned = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)
                        and isinstance(node.ctx, ast.Store)}  # fmt: skip
            for name in sorted(assigned & constants.keys()):
                target = ast.Name(name, ast.Store())
                value = ast.parse(repr(constants[name]), mode="eval").body
                body.insert(place + 1, ast.copy_location(ast.Assign([target], value), statement))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.to(dtype) if floating else value


def _cast_state(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Parameters and buffers in another dtype; `Module.to` cannot change fake ones. Ties stay ties."""
    made: dict[int, Any] = {}
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is not None and tensor.is_floating_point():
                    if id(tensor) not in made:
                        new = tensor.detach().to(dtype)
                        made[id(tensor)] = torch.nn.Parameter(new, False) if table is module._parameters else new
                    table[name] = made[id(tensor)]


# The exported program as rows ----------------------------------------------------------------------------------------


def listed(program: Any, path: Path, parameters: Sequence[str]) -> dict[str, Any]:
    """An exported program as an answer; a row for each node that is a call, in order. Raises `Fault`."""
    known: dict[Any, dict[str, int]] = {}
    inputs: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    outputs: list[Any] = []
    origins = _origins(program.graph_signature)
    for node in program.graph.nodes:
        if node.op == "placeholder":
            value = node.meta["val"]
            if isinstance(value, torch.Tensor):
                known[node] = {"input": len(inputs)}
                origin = origins.get(node.name, "constant")
                kind, _, which = origin.partition(" ")
                # The names of the problem: those of forward's parameters, and of the module's own.
                name = (
                    parameters[int(which)] if kind == "input" and int(which) < len(parameters) else which or node.name
                )
                taken = any(other["name"] == name for other in inputs)
                inputs.append({"name": node.name if taken else name, "origin": origin, **_tensor(value)})
        elif node.op == "output":
            leaves = torch.utils._pytree.tree_leaves(node.args[0])
            buffers = len(program.graph_signature.buffers_to_mutate) + len(
                program.graph_signature.user_inputs_to_mutate
            )
            if buffers:
                raise Fault("The model changes its inputs or buffers; write it without operators in place on them.")
            outputs = [_argument(leaf, known) for leaf in leaves]
        elif node.op == "call_function":
            known[node] = {"row": len(rows)}
            rows.append(_row(node, known, path))
        else:
            raise Fault(f"The model calls {node.target}, which is no operator.")
    return {"inputs": inputs, "rows": rows, "outputs": outputs}


def _origins(signature: Any) -> dict[str, str]:
    """Where an input comes from: "input 0", "parameter query.weight", "buffer mask", "constant"."""
    made = {name: f"input {place}" for place, name in enumerate(signature.user_inputs) if isinstance(name, str)}
    made |= {name: f"parameter {path}" for name, path in signature.inputs_to_parameters.items()}
    made |= {name: f"buffer {path}" for name, path in signature.inputs_to_buffers.items()}
    return made | dict.fromkeys(signature.inputs_to_lifted_tensor_constants, "constant")


def _row(node: Any, known: dict[Any, dict[str, int]], path: Path) -> dict[str, Any]:
    value = node.meta.get("val")
    results = [value] if isinstance(value, torch.Tensor) else value if isinstance(value, (list, tuple)) else []
    schema = getattr(node.target, "_schema", None)
    arguments: dict[str, Any] = {}
    if schema is None:
        arguments = {str(place): _argument(value, known) for place, value in enumerate(node.args)}
    else:
        for place, argument in enumerate(schema.arguments):
            given = (
                node.args[place] if place < len(node.args) else node.kwargs.get(argument.name, argument.default_value)
            )
            arguments[argument.name] = _argument(given, known)
    return {
        "target": str(node.target) if schema is not None else getattr(node.target, "__name__", str(node.target)),
        "arguments": arguments,
        "place": _place(node.meta.get("stack_trace"), path),
        "results": [_tensor(result) if isinstance(result, torch.Tensor) else None for result in results],
    }


def _argument(value: Any, known: dict[Any, dict[str, int]]) -> Any:
    """JSON for an argument: numbers, text, lists, references; dtypes by name; what is anything else as its text."""
    if isinstance(value, torch.fx.Node):
        if value not in known:
            raise Fault(f"The input {value.name!r} is no tensor; a traced model takes tensors only.")
        return known[value]
    if isinstance(value, (list, tuple)):
        return [_argument(entry, known) for entry in value]
    if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        raise Fault("The model has shapes that depend on data; a µGraph's extents are fixed.")
    if isinstance(value, torch.dtype):
        return {"dtype": NAMES.get(value, str(value).removeprefix("torch."))}
    if isinstance(value, float) and not math.isfinite(value):
        return {"text": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return {"text": str(value)}


def _tensor(value: Any) -> dict[str, Any]:
    if any(isinstance(extent, torch.SymInt) for extent in value.shape):
        raise Fault("The model has shapes that depend on data; a µGraph's extents are fixed.")
    return {"dims": list(value.shape), "dtype": NAMES.get(value.dtype, str(value.dtype).removeprefix("torch."))}


def _place(stack: str | None, path: Path) -> str:
    """The last line of the problem on the way to an operator."""
    lines = re.findall(rf'File "{re.escape(str(path))}", line (\d+)', stack or "")
    return f"problem.py, line {lines[-1]}" if lines else "problem.py"


def _told(error: Exception, path: Path) -> str:
    text = (str(error).strip().splitlines() or ["no message"])[0].strip()
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"GuardOnDataDependentSymNode", "DynamicOutputShapeException", "DataDependentOutputException"}:
        reason = "It has shapes or branches that depend on data, and a µGraph's are fixed"
    else:
        reason = f"{type(error).__name__}: {text[:400].rstrip('.')}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    place = f" (problem.py, line {frames[-1].lineno})" if frames else ""
    return f"The model cannot be traced{place}. {reason}."


if __name__ == "__main__":
    main()
