"""What a syntax tree shows: many spellings of each kind of tampering, and what honest kernels write."""

# ruff: noqa: E501  one case a line

from __future__ import annotations

import ast
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilesmith.bench.forbidden import MISCHIEF
from tilesmith.bench.screen import screen

ROOT = Path(__file__).parents[3]
HEAD = "import torch\nimport triton\nimport triton.language as tl\n"

HOSTILE = [
    # what others own: replaced
    "torch.cuda.synchronize = lambda *_: None",
    "torch.Tensor.__matmul__ = lambda a, b: a",
    "tl.dot = None",
    "del torch.allclose",
    "torch.x: int = 1",
    "torch.manual_seed += 1",
    "for torch.equal in [1]: pass",
    "import contextlib\nwith contextlib.nullcontext() as torch.equal: pass",
    "(torch.equal, y) = 1, 2",
    "setattr(torch, 'equal', None)",
    "setattr(torch, 'eq' + 'ual', None)",
    "delattr(torch.cuda, 'synchronize')",
    "name = input_name = 'equal'\nsetattr(torch, name, None)",
    "setattr(*[torch, 'equal', None])",
    "object.__setattr__(torch.cuda, 'synchronize', None)",
    "type(torch).__setattr__(torch, 'equal', None)",
    "put = object.__setattr__\nput(torch, 'equal', None)",
    "for put in map(setattr, [torch], ['equal'], [None]): pass",
    "import functools\nfunctools.partial(setattr, torch)('equal', None)",
    "vars(torch)['equal'] = None",
    "torch.__dict__['equal'] = None",
    "torch.__dict__.update(equal=None)",
    "dict.update(torch.__dict__, equal=None)",
    "import operator\noperator.setitem(vars(torch), 'equal', None)",
    "t = torch.cuda\nt.synchronize = None",
    "t, u = torch.cuda, 1\nt.synchronize = None",
    "if (t := torch.cuda): t.synchronize = None",
    "for t in (torch, torch.cuda): t.synchronize = None",
    "for t in [torch.cuda, 3][:1]: t.synchronize = None",
    "mods = {'a': torch.cuda}\nmods['a'].synchronize = None",
    "mods = {'a': torch.cuda}\nfor m in mods.values(): m.synchronize = None",
    "[torch.cuda].pop().synchronize = None",
    "next(iter([torch.cuda])).synchronize = None",
    "(torch.cuda if torch else None).synchronize = None",
    "(None or torch.cuda).synchronize = None",
    "getattr(torch, 'cuda').synchronize = None",
    "getattr(torch, chr(99) + 'uda').synchronize = None",
    "import operator\noperator.attrgetter('cuda')(torch).synchronize = None",
    "import functools\nfunctools.reduce(getattr, ['cuda'], torch).synchronize = None",
    "import copy\ncopy.copy(torch.Tensor).add = None",
    "def put(m): m.synchronize = None\nput(torch.cuda)",
    "def put(*ms):\n    for m in ms: m.synchronize = None\nput(torch.cuda)",
    "def put(**ms):\n    for m in ms.values(): m.synchronize = None\nput(a=torch.cuda)",
    "def put(m=torch.cuda): m.synchronize = None",
    "def get(): return torch.cuda\nget().synchronize = None",
    "def get():\n    yield torch.cuda\nfor m in get(): m.synchronize = None",
    "(lambda m: setattr(m, 'synchronize', None))(torch.cuda)",
    "class C:\n    def put(self, m): m.synchronize = None\nC().put(torch.cuda)",
    "class C:\n    m = torch.cuda\nC.m.synchronize = None",
    "class C:\n    def __init__(self, m): self.m = m\nC(torch.cuda).m.synchronize = None",
    "from types import SimpleNamespace\nSimpleNamespace(m=torch.cuda).m.synchronize = None",
    "match torch.cuda:\n    case m: m.synchronize = None",
    "def f():\n    global g\n    g = torch.cuda\ndef h(): g.synchronize = None",
    "from torch import cuda as c\nc.synchronize = None",
    "import torch.nn.functional as F\nF.gelu = None",
    "from triton.runtime.jit import JITFunction\nJITFunction.run = None",
    "import time\ntime.perf_counter = lambda: 0.0",
    "import numpy as np\nnp.max = None",
    "import json\njson.dumps = str",
    "torch.testing.assert_close.__kwdefaults__.update(rtol=1.0)",
    "torch.nn.modules.module._global_forward_hooks.clear()",
    "triton.knobs.runtime.launch_enter_hook = print",
    "triton.knobs.runtime.launch_enter_hook.add(print)",
    "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.set_default_dtype(torch.float16)",
    "f = torch.use_deterministic_algorithms\nf(False)",
    "triton.runtime.driver.set_active(None)",
    "type(torch.zeros(1)).add = None",
    "k = type(torch.zeros(1))\nk.add = None",
    "torch.zeros(1).__class__.add = None",
    "torch.zeros(1).__class__ = int",
    "def f(x): pass\nf.__code__ = (lambda x: 1).__code__",
    "torch.library.Library('aten', 'IMPL')",
    "torch.library.impl('aten::clone', 'CPU')",
    # frames, code, classes
    "import sys\nsys._getframe()",
    "from sys import _getframe",
    "import sys as s\ng = s._getframe",
    "import sys\nsys.modules['torch']",
    "import sys\nsys.settrace(None)",
    "import inspect\ninspect.currentframe()",
    "import inspect\ninspect.stack()",
    "from inspect import *\nstack()",
    "import inspect\ninspect.getmodule(torch.zeros).zeros = None",
    "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    e.__traceback__.tb_frame",
    "import traceback\ntraceback.walk_stack(None)",
    "(i for i in []).gi_frame",
    "torch.zeros.__globals__",
    "getattr(torch.nn.Module.forward, '__globals__')",
    "getattr(torch.nn.Module.forward, '__glo' + 'bals__')",
    "getattr(torch.nn.Module.forward, ''.join(['__glo', 'bals__']))",
    "getattr(torch.nn.Module.forward, '__slabolg__'[::-1])",
    "n = f\"{'__globals'}__\"\ngetattr(torch.nn.Module.forward, n)",
    "().__class__.__base__.__subclasses__()",
    "object.__subclasses__()",
    "int.__mro__",
    "(lambda: 0).__closure__",
    "import types\ntypes.CodeType",
    "import types\ntypes.FunctionType(1, {})",
    "import types\ntypes.ModuleType('time')",
    "import gc",
    "import weakref\nweakref.finalize(1, print)",
    "import logging\nlogging.currentframe()",
    "getattr(torch.nn.Module().forward, bytes.fromhex('5f5f676c6f62616c735f5f').decode())",
    "import base64\nname = base64.b64decode('eA==').decode()\ngetattr(torch.zeros(1), name)",
    "from base64 import b64decode as d\nname = str(d('eA=='), 'ascii')\nsetattr(torch.zeros(1), name, 1)",
    "name = ''.join(map(chr, [120]))\ngetattr(torch.zeros(1), name)",
    "name = 'yz'.translate({121: 120})\nsetattr(torch.zeros(1), name, 1)",
    # doors out
    "eval('1')",
    "exec('1')",
    "compile('1', '', 'eval')",
    "e = eval",
    "__import__('os')",
    "__builtins__['eval']",
    "__loader__",
    "import builtins\nbuiltins.open = None",
    "import builtins\nbuiltins.eval('1')",
    "import builtins\ngetattr(builtins, 'ev' + 'al')('1')",
    "import builtins\nvars(builtins)",
    "import builtins\nbuiltins.__dict__",
    "import builtins as b, operator\noperator.attrgetter('x')(b)",
    "import os\nos.environ['TRITON_PTXAS_PATH'] = 'x'",
    "import os\nos.environ.setdefault('PATH', 'x')",
    "import os\ndel os.environ['ENABLE_TMA']",
    "import os\nos.environ |= {'A': 'b'}",
    "import os\nos.environ.x = 1",
    "globals()['__builtins__']",
    "globals().update(a=1)",
    "globals()[torch.zeros.__name__[:2] + 'x']",
    "import importlib\nimportlib.import_module('os')._exit(0)",
    "import importlib\nimportlib.import_module('o' + 's').system('true')",
    "import importlib\nimportlib.import_module(str(torch))",
    "import importlib\nimportlib.reload(torch)",
    "torch.os.system('true')",
    "triton.runtime.jit.os.getpid()",
    "from torch import os",
    "import random\nrandom._os.system('true')",
    "import collections\ncollections._sys.modules",
    "import ctypes",
    "import numpy as np\nnp.ctypeslib",
    "import numpy as np\nnp.zeros(3).ctypes.data",
    "from multiprocessing import shared_memory",
    "import torch.multiprocessing as mp",
    "from torch.distributed import TCPStore",
    "torch.distributed.rpc.init_rpc('x')",
    "import torch.distributed as dist\ndist.init_process_group()",
    "import os\ne = os.environ.copy()",
    "import os\nos.environ.get('X').update(a=1) or os.environ.pop('X')",
    "import subprocess",
    "import threading\nthreading.Thread(target=print).start()",
    "from concurrent.futures import ThreadPoolExecutor",
    "import asyncio",
    "import socket",
    "import urllib.request",
    "import http.client",
    "import atexit",
    "import signal",
    "import mmap",
    "import pickle",
    "import tempfile",
    "import _thread",
    "import cupy",
    "import tilesmith.bench.check",
    "from . import other",
    "import unittest.mock",
    "from torch.utils.cpp_extension import load_inline",
    "torch.ops.load_library('x.so')",
    "torch.save(1, 'x')",
    "torch.hub.load('a', 'b')",
    "from triton.runtime.build import compile_module_from_src",
    "torch.zeros(1).untyped_storage()._write_file(3, True, True, 4)",
    "torch.UntypedStorage.from_file('x')",
    "from torch.utils._python_dispatch import TorchDispatchMode",
    "torch._C._pop_torch_dispatch_stack(None)",
    "torch._C._DisableTorchDispatch()",
    "torch._C.DisableTorchFunctionSubclass()",
    "torch.utils._pytree.register_pytree_node(int, None, None)",
    # the machine
    "import os\nos._exit(0)",
    "from os import _exit",
    "from os import *",
    "import os\nos.system('true')",
    "import os\nos.fork()",
    "import os\nos.kill(os.getppid(), 9)",
    "import os\nos.write(3, b'')",
    "import os\ngetattr(os, 'sys' + 'tem')('true')",
    "import os\nname = str(torch)\ngetattr(os, name)",
    "import os, operator\noperator.methodcaller('_exit', 0)(os)",
    "import os\nprint(os.environ)",
    "import os\ndict(os.environ)",
    "import os\nfor k in os.environ: pass",
    "import os\nos.environ['TRITON_INTERPRET'] = '0'",
    "import os\nos.environ.setdefault('A', 'b')",
    "import os\nos.environ.get('OPENAI_API_KEY')",
    "from os import getenv\ngetenv('AWS_SECRET_ACCESS_KEY')",
    "import os\ndef read(n): return os.environ.get(n)\nread('GITHUB_TOKEN')",
    "import os\ne = os.environ\ne.items()",
    "open('/proc/self/maps')",
    "open('/pro' + 'c/self/maps')",
    "import pathlib\npathlib.Path('/dev/shm')",
    "raise SystemExit",
    "exit()",
    "quit(1)",
    "import sys\nsys.exit()",
    "import sys\nsys.argv",
    "import sys\nsys.stdout = None",
    "import sys\nsys.stdout.buffer.write(b'')",
    "__name__ = '__main__'",
    "breakpoint()",
]

HONEST = [
    "",
    "import math, itertools, operator, string, textwrap, statistics, numbers, abc, copy, types, hashlib, struct, json, io",
    "import os\nB = int(os.environ.get('GELU_BLOCK', '1024'))",
    "import os\nif 'TRITON_INTERPRET' in os.environ: pass\nB = os.environ['CUDA_HOME'] if 0 else os.getenv('TRITON_CACHE_DIR')",
    "import os\ndef flag(name, default=False): return os.environ.get(name, default) == '1'\nflag('DEBUG')",
    "import os\nA = os.environ.get('DEBUG', '0').lower() in ('1', 'true')\nB = os.environ['HOME'].strip().split(':')[0]",
    "import torch.distributed as dist\nN = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1\nif N > 1: dist.all_reduce(torch.zeros(1))",
    "import os\nos.environ['ENABLE_TMA'] = '1'\nos.environ.setdefault('TRITON_PRINT_AUTOTUNING', '1')",
    "import builtins\nx = builtins.max(builtins.abs(-1), builtins.min(1, 2))",
    "import os\nprint(os.path.basename(__file__), os.cpu_count(), os.path.join('a', 'b'))",
    "import sys\nassert sys.version_info >= (3, 8) and sys.maxsize > 2**32\nprint('x', file=sys.stderr)",
    "import sys\nsys.stdout.write('x')",
    "import inspect\nprint(inspect.signature(tl.dot), inspect.getsource(triton.cdiv))",
    "import time\nstart = time.perf_counter()",
    "import threading\nlock = threading.Lock()\nwith lock: pass",
    "import logging\nlogging.basicConfig(level=logging.INFO)\nlogger = logging.getLogger(__name__)\nlogger.info('x')",
    "import warnings\nwarnings.filterwarnings('ignore')\nwarnings.warn('x')",
    "import importlib.metadata\nV = importlib.metadata.version('triton')",
    "import importlib.util\nHAS = importlib.util.find_spec('triton') is not None",
    "from typing import *",
    "from triton.language import *",
    "from triton.language.extra import libdevice\nfrom triton.language.extra.cuda import libdevice as cuda",
    "from triton.tools.tensor_descriptor import TensorDescriptor",
    "from triton.experimental import gluon\nfrom triton.experimental.gluon import language as gl",
    "from triton.runtime import driver\nP = driver.active.utils.get_device_properties(0)",
    "from torch._C import _cuda_getCurrentRawStream as get_raw_stream",
    "from torch._inductor.runtime.triton_helpers import math as tl_math",
    "assert_size_stride = torch._C._dynamo.guards.assert_size_stride",
    "import numpy as np\nT = torch.from_numpy(np.arange(4))",
    "import random\nrandom.seed(0)\ntorch.manual_seed(0)",
    "DTYPES = {torch.float16: tl.float16}\nDTYPES[torch.bfloat16] = tl.bfloat16",
    "names = dict(a=torch.float16)\nnames['b'] = torch.float32",
    "d = getattr(tl, str(torch.float16).split('.')[-1])",
    "def to_tl(dtype): return getattr(tl, str(dtype).replace('torch.', ''))",
    "for n in ('float16', 'float32'): globals()[f'T_{n}'] = getattr(tl, n)",
    "def f(x): return x\nf.cache = {}\nf.cache[1] = 2\nsetattr(f, 'calls', 0)",
    "class C:\n    n = 0\n    def up(self):\n        self.n += 1\n        type(self).n += 1\n        self.__class__.n = 3",
    "class M(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.w = torch.nn.Parameter(torch.empty(3))\n        self.w.requires_grad = False\n        for i in range(3): setattr(self, f'w{i}', i)",
    "class M(torch.nn.Module):\n    def __setattr__(self, name, value): super().__setattr__(name, value)",
    "from dataclasses import dataclass, field\n@dataclass(frozen=True)\nclass T:\n    m: int = 1\n    def __post_init__(self): object.__setattr__(self, 'm', 2)",
    "def f(A):\n    out = torch.empty_like(A)\n    out[0] = 1\n    out.data = A\n    out[:, 0] += 2\n    return out",
    "def f(out=None, dtype=torch.float16):\n    out = torch.empty(3, dtype=dtype) if out is None else out\n    out[0] = 1",
    "def g(y, out): out[0] = y\ng(torch.float16, torch.empty(3))",
    "cfg = triton.Config({'B': 1})\ncfg.kwargs['B'] = 2\ncfg.num_warps = 8",
    "configs = [triton.Config({'B': b}) for b in (1, 2)]\nfor c in configs: c.kwargs.update(B=3)",
    "cache = {}\ndef f(x):\n    if x.shape not in cache: cache[x.shape] = torch.empty(3)\n    cache.pop(x.shape, None)\n    cache.clear()",
    "@triton.jit\ndef k(p, n, B: tl.constexpr):\n    i = tl.program_id(0) * B + tl.arange(0, B)\n    tl.store(p + i, tl.load(p + i, mask=i < n), mask=i < n)",
    "@triton.autotune(configs=[triton.Config({'B': 64}, pre_hook=lambda a: a['p'].zero_())], key=['n'])\n@triton.jit\ndef k(p, n, B: tl.constexpr): pass",
    "triton.set_allocator(lambda size, align, stream: torch.empty(size, device='cuda', dtype=torch.int8))",
    "torch.set_grad_enabled(False)\nwith torch.no_grad(), torch.cuda.device(0): torch.cuda.synchronize()",
    "@torch.library.custom_op('mine::gelu', mutates_args=())\ndef gelu(x: torch.Tensor) -> torch.Tensor: return x",
    "from torch.library import triton_op, wrap_triton",
    "import functools\n@functools.lru_cache(maxsize=None)\ndef f(n): return n\nf.cache_clear()",
    "import functools\ndef d(f):\n    @functools.wraps(f)\n    def w(*a): return f(*a)\n    return w",
    "def f(g): return g.__code__.co_varnames[: g.__code__.co_argcount], g.__name__, g.__doc__",
    "try:\n    pass\nexcept Exception as e:\n    import traceback\n    traceback.print_exc()\n    raise RuntimeError(str(e)) from e",
    "model = torch.nn.Linear(2, 2)\nmodel.eval()\nmodel.weight.data.copy_(torch.zeros(2, 2))",
    "import re\nP = re.compile('x')\nF = torch.compile",
    "'''Never os._exit(0), eval() or __globals__ here; see /proc/self.'''",
    "x = 1\n# torch.cuda.synchronize = None",
    "if __name__ == '__main__':\n    import subprocess, sys\n    torch.backends.cuda.matmul.allow_tf32 = True\n    sys.exit(0)",
    "def main():\n    import argparse\n    argparse.ArgumentParser()\nif '__main__' == __name__: main()",
    "s = s0 = (1, 2)\ns = s[1:]\ns = s[0]\ns = list(s)",
    "exit_code = 0\ninput_ids = 1\ninput = torch.zeros(1)\nf = lambda input: input + 1",
    "def compile(k): return k\ncompile(3)\ndef f(vars, dir, type): return vars[type]",
    "mask = torch.select(torch.zeros(2, 2), 0, 1)\nw = torch.signal.windows.hann(3)\nt = torch.trace",
    "with open(__file__) as f: SOURCE = f.read()",
    "import enum\nclass E(enum.Enum):\n    A = 1\nfrom collections import namedtuple, defaultdict\nT = namedtuple('T', 'a b')",
    "table: dict[str, torch.dtype] = {}\ntable.setdefault('x', torch.float16)\ntable.update(y=torch.int8)",
    "torch.ops.aten.add(torch.zeros(1), 1)\ntorch.sort(torch.zeros(1))\ntorch.Tensor.add(torch.zeros(1), 1)\ntl.sort(1)\nx = tl.flip(tl.sort(2))",
    "from einops import rearrange",
]


@pytest.mark.parametrize("source", HOSTILE)
def test_tampering_is_named_with_its_line(source: str) -> None:
    ast.parse(source)
    reason = screen(HEAD + source)
    assert reason is not None
    assert reason.startswith("it ")
    assert 3 < int(reason.rpartition("(line ")[2].rstrip(")")) <= 3 + source.count("\n") + 1


@pytest.mark.parametrize("source", [source for source in HOSTILE if not source.startswith("__name__")])
def test_no_place_hides_it(source: str) -> None:
    indented = "\n".join(f"        {line}" for line in source.splitlines())
    assert screen(f"{HEAD}class A:\n    def f(self):\n{indented}\n") is not None


@pytest.mark.parametrize("source", HONEST)
def test_honest_code_passes(source: str) -> None:
    ast.parse(source)
    assert screen(HEAD + source) is None


@pytest.mark.parametrize("source", [source for source in HONEST if "import *" not in source])
def test_honest_code_passes_inside_a_function(source: str) -> None:
    indented = "\n".join(f"    {line}" for line in [*source.splitlines(), "pass"])
    assert screen(f"{HEAD}def kernel_function(x):\n{indented}\n") is None


KERNELS = [
    *(ROOT / "tests/exploits/honest").glob("*.py"),
    *(ROOT / "examples").glob("*/kernel.py"),
    *(ROOT / "tests/null/propose/kernels").glob("*.py"),
]


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_honest_kernel_here_passes(path: Path) -> None:
    assert screen(path.read_text(encoding="utf-8")) is None


def test_there_are_kernels_to_try() -> None:
    assert len(KERNELS) > 60


@pytest.mark.parametrize("module", sorted(MISCHIEF))
def test_every_spelling_of_an_import_counts(module: str) -> None:
    for source in (
        f"import {module}",
        f"import math, {module} as m",
        f"from {module} import *",
        f"from {module} import a as b",
        f"try:\n    import {module}.part\nexcept ImportError: pass",
        f"import importlib\nimportlib.import_module('{module}')",
    ):
        assert screen(source) is not None, source


@pytest.mark.parametrize(
    "source",
    [
        "x = " + "(" * 5000 + ")" * 5000,
        "x = " + "-" * 50_000 + "1",
        "x = " + "1+" * 20_000 + "1",
        "x = " + "a." * 3000 + "b",
        "x = " + "[" * 150 + "]" * 150,
        "x = " + "f(" * 90 + ")" * 90,
        "x = " + "not " * 3000 + "1",
        "x = " + "lambda: " * 2000 + "1",
        "x = " + "9" * 100_000,
        "x = '" + "a" * 900_000 + "'",
        "x = [" + "1," * 200_000 + "]",
        "x=1;" * 100_000,
        "a" * 2_000_000,
        "import torch\na0 = torch\n" + "\n".join(f"a{n + 1} = a{n} or a{n} or b{n}; b{n} = a{n}" for n in range(400)),
        "import torch\na0 = torch\n"
        + "\n".join(f"a{n + 1} = [a{n}, a{n}, *a{n}]" for n in range(400))
        + "\na9[0].x = 1",
        "import torch\ndef f(x):\n    return f(f(f(x)))\nf(torch).x = 1",
        "import torch\n"
        + "\n".join(f"def f{n}(x): return f{(n * 7) % 300}(x) or f{(n * 3) % 300}(x)" for n in range(300)),
        "import torch\nx = x.y = x[0] = torch = x",
        "\0",
        "\ud800",
        "x = '\\d'",
        "# coding: latin-1\nx = 1",
    ],
    ids=range(22),
)
def test_no_source_breaks_it_or_takes_long(source: str) -> None:
    start = time.process_time()
    reason = screen(source)
    assert reason is None or reason.startswith("it")
    assert time.process_time() - start < 10.0


def test_a_long_chain_of_aliases_does_not_lead_away() -> None:
    chain = "\n".join(f"a{n + 1} = a{n}" for n in range(1000))
    assert screen(f"import torch\na0 = torch\n{chain}\na1000.x = 1") is not None
    assert screen(f"import torch\na0 = torch\n{chain}\na30.x = 1") is not None


def test_a_name_is_only_what_its_own_scope_binds() -> None:
    assert screen("import torch\ndef f(torch): torch.x = 1") is None
    assert screen("import torch\ndef f():\n    torch = object()\n    torch.x = 1") is None
    assert screen("import torch\nclass A:\n    torch = 1\n    def f(self): torch.x = 1") is not None
    assert (
        screen("import torch as t\ndef f():\n    def g():\n        nonlocal m\n        m.x = 1\n    m = t") is not None
    )


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=8),
    st.sampled_from(["{}.x = 1", "del {}.x", "setattr({}, 'x', 1)", "vars({})['x'] = 1", "{}.x[0] = 1"]),
)
def test_aliases_carry_what_they_stand_for(names: list[str], write: str) -> None:
    links = "\n".join(f"{new} = {old}" for old, new in zip(["torch", *names], names, strict=False))
    assert screen(f"import torch\n{links}\n{write.format(names[-1])}") is not None
    assert screen(f"torch = object()\n{links}\n{write.format(names[-1])}") is None


@settings(max_examples=100)
@given(st.text(alphabet="torch.=()[]: \nimpasxlf'_", max_size=200))
def test_any_text_has_an_answer(text: str) -> None:
    reason = screen(text)
    assert reason is None or reason.startswith("it ")
