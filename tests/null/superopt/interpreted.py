"""A warm child process that runs lowered sources through Triton's interpreter, on CPU tensors."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Interpreter:
    """Runs sources one after another. A context manager."""

    def __enter__(self) -> Interpreter:
        environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(30)

    def run(self, source: str, inputs: Sequence[Array], calls: int = 1) -> list[Array]:
        """What `kernel_function` returns, in float64: in the last of so many calls."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        send(self.process.stdin, (source, list(inputs), calls))
        answer = pickle.load(self.process.stdout)
        if isinstance(answer, str):
            raise AssertionError(f"{answer}\n\n{source}")
        return list(answer)


def send(stream: IO[bytes], message: object) -> None:
    pickle.dump(message, stream)
    stream.flush()


def main() -> None:
    import importlib.util
    import tempfile
    import traceback
    from pathlib import Path

    import torch

    # What is allocated and not filled holds NaN.
    empty = torch.empty
    torch.empty = lambda *args, **kwargs: empty(*args, **kwargs).fill_(float("nan"))  # type: ignore[assignment]
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as folder:
        number = 0
        while True:
            try:
                source, inputs, calls = pickle.load(sys.stdin.buffer)
            except EOFError:
                return
            number += 1
            path = Path(folder, f"lowered{number}.py")
            path.write_text(source, encoding="utf-8")
            try:
                spec = importlib.util.spec_from_file_location(path.stem, path)
                assert spec is not None
                assert spec.loader is not None
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                with np.errstate(all="ignore"):
                    for _ in range(calls):
                        made = module.kernel_function(*(torch.from_numpy(array) for array in inputs))
                made = made if isinstance(made, tuple) else (made,)
                send(channel, [array.double().numpy() for array in made])
            except Exception:  # whatever the source does is the test's answer
                send(channel, traceback.format_exc()[-3000:])


if __name__ == "__main__":
    main()
