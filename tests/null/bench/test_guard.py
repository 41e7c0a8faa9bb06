"""What the guard hears and sees: each source runs in a child of a process that has imported torch and Triton once."""

# ruff: noqa: E501  one case a line

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tilesmith.bench.screen import screen
from tilesmith.bench.wire import Wire

pytestmark = pytest.mark.triton

HERE = Path(__file__).parent
HEAD = "import os, sys, torch, triton\nimport triton.language as tl\n"

HEARD = {
    # processes
    "os.system": ("os.system('true')", "starts a process"),
    "os.fork": ("os.fork()", "starts a process"),
    "os.posix_spawn": ("os.posix_spawn('/bin/true', ['true'], {})", "starts a process"),
    "os.execv": ("os.execv('/bin/true', ['true'])", "starts a process"),
    "subprocess": ("import subprocess\nsubprocess.run(['true'])", "starts a process"),
    "a tool's name": ("import subprocess\nsubprocess.run(['ptxas', '--version'])", "starts a process"),
    "system by map": ("list(map(os.system, ['true']))", "starts a process"),
    "system from a finaliser": ("class A:\n    def __del__(self): os.system('true')\nA()", "starts a process"),
    "triton's build": (
        "from triton.runtime.build import compile_module_from_src\ncompile_module_from_src('int x;', 'x')",
        "it ",
    ),
    "multiprocessing": ("import multiprocessing\nmultiprocessing.Process(target=print).start()", "starts a process"),
    "kill": ("os.kill(os.getppid(), 0)", "sends a signal"),
    # threads
    "threading": ("import threading\nthreading.Thread(target=print).start()", "start_new_thread"),
    "_thread": ("import _thread\n_thread.start_new_thread(print, ())", "start_new_thread"),
    "timer": ("import threading\nthreading.Timer(9, print).start()", "start_new_thread"),
    "pool": (
        "from concurrent.futures import ThreadPoolExecutor\nThreadPoolExecutor().submit(print)",
        "start_new_thread",
    ),
    # sockets
    "socket": ("import socket\nsocket.socket()", "opens a socket"),
    "raw socket": ("import _socket\n_socket.socket()", "opens a socket"),
    "a descriptor's socket": ("import socket\nsocket.socket(fileno=0)", "opens a socket"),
    "dns": ("import socket\nsocket.getaddrinfo('localhost', 80)", "opens a socket"),
    "http": ("import urllib.request\nurllib.request.urlopen('http://localhost:1')", "it "),
    # foreign code and memory
    "ctypes": ("import ctypes\nctypes.CDLL(None)", "ctypes"),
    "pythonapi": ("import ctypes\nctypes.pythonapi.Py_IncRef", "ctypes"),
    "string_at": ("import ctypes\nctypes.string_at(id(1), 4)", "ctypes"),
    "by sys.modules": ("sys.modules['ctypes'].CDLL(None)", "ctypes"),
    "load_library": ("torch.ops.load_library('libc.so.6')", "it calls"),
    "mmap": ("import mmap\nmmap.mmap(-1, 4096)", "mmap"),
    # frames, objects, code
    "_getframe": ("sys._getframe()", "frames"),
    "inspect.stack": ("import inspect\ninspect.stack()", "frames"),
    "currentframe": ("import inspect\ninspect.currentframe()", "frames"),
    "walk_stack": ("import traceback\nlist(traceback.walk_stack(None))", "frames"),
    "current_frames": ("sys._current_frames()", "objects"),
    "traceback": ("try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    e.__traceback__.tb_frame", "frames"),
    "generator": ("(i for i in ()).gi_frame", "frames"),
    "computed": ("getattr((i for i in ()), 'gi' + '_' + 'frame')", "frames"),
    "coroutine": ("async def c(): pass\nk = c()\ntry:\n    k.cr_frame\nfinally:\n    k.close()", "frames"),
    "gc": ("import gc\ngc.get_objects()", "objects"),
    "referrers": ("import gc\ngc.get_referrers(sys)", "objects"),
    "gc off": ("import gc\ngc.disable()", "gc.disable"),
    "settrace": ("sys.settrace(None)", "hooks the interpreter"),
    "setprofile": ("sys.setprofile(None)", "hooks the interpreter"),
    "audit hook": ("sys.addaudithook(print)", "hooks the interpreter"),
    "code read": ("torch.nn.Module.forward.__code__\ntorch.manual_seed.__code__", "reads the __code__"),
    "code set": ("def f(seed): pass\ntorch.manual_seed.__code__ = f.__code__", "sets the __code__"),
    "code replaced": ("def f(): pass\nf.__code__.replace(co_filename='/usr/lib/python3/os.py')", "makes code"),
    "defaults set": ("torch.manual_seed.__defaults__ = (1,)", "sets the __defaults__"),
    "exec": ("exec('x = 1')", "compiles code"),
    "eval": ("eval('1')", "compiles code"),
    "compile": ("compile('1', '/usr/lib/python3/os.py', 'eval')", "compiles code"),
    "exec by timeit": ("import timeit\ntimeit.timeit('1', number=1)", "executes code"),
    "its own file": (
        "with open('more.py', 'w') as f: f.write('x = 1')\nsys.path.insert(0, '.')\nimport more",
        "imports more",
    ),
    "loaded by spec": (
        "with open('more.py', 'w') as f: f.write('x = 1')\nimport importlib.util as u\ns = u.spec_from_file_location('m', os.path.abspath('more.py'))\nm = u.module_from_spec(s)\ns.loader.exec_module(m)",
        "wrote itself",
    ),
    "pickle": ("import pickle\npickle.loads(b'cos\\nsystem\\n.')", "pickle.find_class"),
    "import by importlib": ("import importlib\nimportlib.import_module('smtplib')", "imports smtplib"),
    "import by __import__": ("__import__('pty')", "imports pty"),
    # files
    "write outside": ("open('/tmp/tilesmith-never-written', 'w')", "outside its scratch"),
    "append outside": (
        "from pathlib import Path\nPath('/tmp/tilesmith-never-written').open('a')",
        "outside its scratch",
    ),
    "os.open outside": ("os.open('/tmp/tilesmith-never-written', os.O_CREAT | os.O_WRONLY)", "outside its scratch"),
    "write upwards": ("open('../tilesmith-never-written', 'w')", "outside its scratch"),
    "mkdir outside": ("os.makedirs('/tmp/tilesmith-never-made/x')", "outside its scratch"),
    "remove outside": ("os.remove('/tmp/tilesmith-never-written')", "outside its scratch"),
    "rename outside": ("open('a', 'w').close()\nos.rename('a', '/tmp/tilesmith-never-written')", "outside its scratch"),
    "numpy writes outside": (
        "import numpy\nnumpy.zeros(1).tofile('/tmp/tilesmith-never-written')",
        "outside its scratch",
    ),
    "torch writes outside": ("torch.save(1, '/tmp/tilesmith-never-written')", "it calls"),
    "torch maps a file": ("torch.from_file('/etc/hostname', size=1, dtype=torch.uint8)", "it calls"),
    "torch's reader": ("torch._C.PyTorchFileReader('/etc/hostname')", "it calls"),
    "read outside": ("open('/etc/hostname')", "outside its scratch"),
    "read_text outside": ("from pathlib import Path\nPath('/proc/self/maps').read_text()", "outside its scratch"),
    "fileinput": ("import linecache\nlinecache.getlines('/etc/hostname')", "outside its scratch"),
    "list outside": ("os.listdir('/')", "lists /"),
    "glob outside": ("import glob\nglob.glob('/*')", "lists /"),
    "a descriptor": ("open(1, 'w')", "descriptor"),
    "os.write": ("os.write(1, b'x')", "os.write"),
    "os.dup2": ("os.dup2(1, 9)", "os.dup2"),
    "closerange": ("os.closerange(3, 9)", "os.closerange"),
    "symlink": ("os.symlink('/', 'here')", "os.symlink"),
    "chdir": ("os.chdir('/')", "os.chdir"),
    "its own source": ("open(__file__, 'a')", "its own source"),
    "the compiler's cache": ("os.makedirs('triton/x')", "compiler's cache"),
    "environment": ("os.environ['TRITON_DEBUG'] = '1'", "environment"),
    # ends and hooks
    "_exit": ("os._exit(0)", "os._exit"),
    "abort": ("os.abort()", "os.abort"),
    "posix": ("import posix\nposix._exit(0)", "os._exit"),
    "atexit": ("import atexit\natexit.register(print)", "atexit.register"),
    "finalize": ("import weakref\nweakref.finalize(torch.zeros(1), print)", "weakref.finalize"),
    "signal": ("import signal\nsignal.signal(signal.SIGUSR1, print)", "signal.signal"),
    "alarm": ("import signal\nsignal.alarm(9)", "signal.alarm"),
    "at fork": ("os.register_at_fork(before=print)", "register_at_fork"),
    "in a call": ("def kernel_function(): os.system('true')", "starts a process"),
    "in a lambda": ("kernel_function = lambda: os.system('true')", "starts a process"),
    "in a caught error": ("try:\n    os.system('true')\nexcept BaseException:\n    pass", "starts a process"),
}

SEEN = {
    "synchronize": ("torch.cuda.synchronize = lambda *_: None", "replaces torch.cuda.synchronize"),
    "through a dict": ("vars(torch.cuda)['synchronize'] = None", "replaces torch.cuda.synchronize"),
    "deleted": ("del torch.allclose", "deletes torch.allclose"),
    "tensor": ("torch.Tensor.sum = None", "replaces torch.Tensor.sum"),
    "inherited": ("torch.Tensor.copy_ = lambda a, b: a", "replaces torch.Tensor.copy_"),
    "event": ("torch.cuda.Event.elapsed_time = lambda *_: 0.0", "replaces torch.cuda.Event.elapsed_time"),
    "functional": ("torch.nn.functional.gelu = None", "replaces torch.nn.functional.gelu"),
    "language": ("tl.exp = tl.exp2", "replaces triton.language.exp"),
    "jit": ("triton.runtime.jit.JITFunction.run = None", "JITFunction.run"),
    "tuner": ("triton.runtime.autotuner.Autotuner.run = None", "Autotuner.run"),
    "do_bench": ("triton.testing.do_bench = None", "replaces triton.testing.do_bench"),
    "builtins": ("import builtins\nbuiltins.len = lambda x: 0", "replaces builtins.len"),
    "a hidden built-in name": ("torch.testing.len = lambda x: 0", "replaces torch.testing.len"),
    "the judge": (
        "import tilesmith.bench.guard as g\ng.refused_import = None",
        "replaces tilesmith.bench.guard.refused_import",
    ),
    "time": ("import time\ntime.perf_counter = lambda: 0.0", "replaces time.perf_counter"),
    "json": ("import json\njson.dumps = str", "replaces json.dumps"),
    "numpy": ("import numpy\nnumpy.max = min", "replaces numpy.max"),
    "module": ("import types\nsys.modules['json'] = types.ModuleType('json')", "replaces the module json"),
    "module gone": ("del sys.modules['json']", "replaces the module json"),
    "excepthook": ("sys.excepthook = None", "sys.excepthook"),
    "stdout": ("import io\nsys.stdout = io.StringIO()", "sys.stdout"),
    "meta path": ("sys.meta_path.insert(0, object())", "sys.meta_path"),
    "gc callback": ("import gc\ngc.callbacks.append(lambda *_: None)", "garbage collector"),
    "dtype": ("torch.set_default_dtype(torch.float64)", "it "),
    "device": ("torch.set_default_device('meta')", "function modes"),
    "tf32": ("torch.backends.cuda.matmul.allow_tf32 = True", "TF32"),
    "deterministic": ("torch.use_deterministic_algorithms(True)", "determinism"),
    "threads": ("torch.set_num_threads(1 + torch.get_num_threads())", "number of threads"),
    "module hook": ("torch.nn.modules.module.register_module_forward_hook(lambda *_: None)", "module hooks"),
    "dispatch mode": (
        "from torch.utils._python_dispatch import TorchDispatchMode\nm = TorchDispatchMode()\nm.__enter__()",
        "dispatch modes",
    ),
    "launch hook": ("triton.knobs.runtime.launch_enter_hook = print", "triton.knobs.runtime"),
    "a knob": ("triton.knobs.compilation.always_compile = True", "it "),
}

HONEST = {
    "nothing": "",
    "logging": "import logging\nlogging.basicConfig()\nlogging.getLogger(__name__).warning('x')\nprint('x', file=sys.stderr)",
    "warnings": "import warnings\nwarnings.warn('x', stacklevel=2)\nwith warnings.catch_warnings():\n    warnings.simplefilter('error')",
    "classes": "import enum, typing, collections, dataclasses, functools\nT = collections.namedtuple('T', 'a b')\nclass N(typing.NamedTuple):\n    a: int = 1\n@dataclasses.dataclass(frozen=True, order=True)\nclass D:\n    a: 'int' = 1\nclass E(enum.IntEnum):\n    A = 1\nclass P(typing.Protocol):\n    def f(self): ...\nclass G(typing.Generic[typing.TypeVar('X')]): pass\n@functools.singledispatch\ndef f(x): pass\n@functools.wraps(f)\ndef g(x): pass\nD(), N(), E.A",
    "sources": "import inspect\ninspect.getsource(torch.nn.Linear)\ndef f(a, b=1): pass\ninspect.signature(f), f.__code__.co_argcount\nopen(__file__).read()\nos.listdir('.')",
    "a file in its scratch": "with open('notes.txt', 'w') as f: f.write('x')\nos.makedirs('a/b', exist_ok=True)\nfrom pathlib import Path\nPath('a/b/c').write_text('x')\nPath('a/b/c').unlink()\nPath('notes.txt').rename('a/n')",
    "a traceback": "import traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError as e:\n    traceback.print_exc()\n    traceback.format_exception(e)",
    "lazy imports": "import json, hashlib, statistics, argparse, difflib, random, string, uuid\nimport torch.fft, torch.sparse, torch.distributions, torch.fx\nimport importlib.metadata\nimportlib.metadata.version('torch')",
    "a module": "class M(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.l = torch.nn.Linear(2, 2)\n    def forward(self, x): return self.l(x)\nm = M().eval()\nm.load_state_dict(m.state_dict())\ndef kernel_function(): return m(torch.zeros(2))",
    "operators": "def kernel_function():\n    torch.manual_seed(0)\n    x = torch.randn(8, 8)\n    with torch.no_grad(), torch.autocast('cpu'):\n        y = torch.compile\n        return (x @ x).to(torch.float16).contiguous(), torch.empty_like(x).copy_(x), x.numpy(), str(x), repr(x)",
    "gradient": "def kernel_function():\n    x = torch.ones(2, requires_grad=True)\n    (x * x).sum().backward()",
    "autograd function": "class F(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x): return x + 1\n    @staticmethod\n    def backward(ctx, g): return g\ndef kernel_function(): F.apply(torch.ones(2))",
    "compiler": "from triton.compiler import ASTSource\nfrom triton.backends.compiler import GPUTarget\n@triton.jit\ndef k(p, B: tl.constexpr):\n    i = tl.arange(0, B)\n    tl.store(p + i, tl.load(p + i) + 1)\ndef kernel_function():\n    s = ASTSource(k, {'p': '*fp32', 'B': 'constexpr'}, {'B': 128})\n    assert 'entry' in triton.compile(s, target=GPUTarget('cuda', 90, 32)).asm['ptx']",
    "tuning": "@triton.autotune(configs=[triton.Config({'B': b}, num_warps=4) for b in (64, 128)], key=['n'])\n@triton.heuristics({'E': lambda a: a['n'] % a['B'] == 0})\n@triton.jit\ndef k(p, n, B: tl.constexpr, E: tl.constexpr): pass\ntriton.set_allocator(lambda s, a, t: torch.empty(s, dtype=torch.int8))",
    "custom operator": "@torch.library.custom_op('guarded::twice', mutates_args=())\ndef twice(x: torch.Tensor) -> torch.Tensor:\n    return x.clone()\n@twice.register_fake\ndef _(x): return torch.empty_like(x)\ndef kernel_function(): torch.ops.guarded.twice(torch.ones(2))",
    "its own attributes": "class C:\n    def __setattr__(self, n, v): super().__setattr__(n, v)\nc = C()\nc.x = 1\nsetattr(c, 'y', 2)\ndef f(): pass\nf.cache = {}\nglobals()['G'] = 3",
    "an error": "def kernel_function(): raise ValueError('x')",
}
BUILT = {
    "a launcher": "import driver_stand_in\nSOURCE = '#include <Python.h>\\nstatic struct PyModuleDef m = {PyModuleDef_HEAD_INIT, \"stand_in\", NULL, -1, NULL};\\nPyMODINIT_FUNC PyInit_stand_in(void) { return PyModule_Create(&m); }'\ndef kernel_function(): assert driver_stand_in.build(SOURCE).__name__ == 'stand_in'",
}
"""What is not the candidate's own doing, though it stands under all of it."""
INTERPRETED = {
    "interpreter": "@triton.jit\ndef k(x, y, n, B: tl.constexpr):\n    i = tl.program_id(0) * B + tl.arange(0, B)\n    v = tl.load(x + i, mask=i < n, other=0.0)\n    e = tl.exp(v - tl.max(v, axis=0))\n    tl.store(y + i, e / tl.sum(e, axis=0), mask=i < n)\ndef kernel_function():\n    x = torch.randn(64)\n    y = torch.empty_like(x)\n    for _ in range(3): k[(1,)](x, y, 64, B=64)\n    torch.testing.assert_close(y, torch.softmax(x, 0))",
}


def run(sources: dict[str, str], **environment: str) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "guard_children.py")]
    given = json.dumps({name: HEAD + source for name, source in sources.items()})
    clean = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=600, check=False, env={**clean, **environment}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    sources = {name: source for name, (source, _) in {**HEARD, **SEEN}.items()}
    assert len({**sources, **HONEST}) == len(HEARD) + len(SEEN) + len(HONEST)
    return {**run({**sources, **HONEST, **BUILT}), **run(INTERPRETED, TRITON_INTERPRET="1")}


@pytest.mark.parametrize("name", HEARD)
def test_a_deed_is_heard_when_it_is_done(found: dict[str, Any], name: str) -> None:
    assert HEARD[name][1] in found[name].get("reason", found[name])
    assert found[name]["reason"].startswith("it ")


@pytest.mark.parametrize("name", SEEN)
def test_what_was_exchanged_is_seen_afterwards(found: dict[str, Any], name: str) -> None:
    verdict = found[name]
    assert SEEN[name][1] in (verdict.get("reason") or verdict["changed"] or str(verdict))


@pytest.mark.parametrize("name", [*HONEST, *BUILT, *INTERPRETED])
def test_honest_code_notices_nothing(found: dict[str, Any], name: str) -> None:
    assert "reason" not in found[name], found[name]
    assert found[name]["changed"] is None
    assert found[name]["fault"] == ("ValueError: x" if name == "an error" else None)


@pytest.mark.parametrize("name", [*HONEST, *INTERPRETED])
def test_honest_code_passes_the_screen_too(name: str) -> None:
    assert screen(HEAD + {**HONEST, **INTERPRETED}[name]) is None


def test_a_verdict_does_not_pass_through_what_was_exchanged() -> None:
    here, there = socket.socketpair()
    script = (
        "import json, os, socket, struct, sys, builtins\n"
        "from tilesmith.bench.guard import crier\n"
        f"reject = crier(socket.socket(fileno={there.fileno()}))\n"
        "json.dumps = struct.pack = socket.socket.send = os._exit = builtins.len = builtins.str = None\n"
        "reject('it \"replaces\" json.dumps\\n\\u00e9')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], pass_fds=[there.fileno()], check=False)
    there.close()
    with here:
        wire = Wire(here)
        assert wire.receive(5.0) == ({"stage": "rejected", "message": "it ?replaces? json.dumps??"}, b"")
    assert done.returncode == 0


def test_it_is_fast(found: dict[str, Any]) -> None:
    honest = [found[name] for name in HONEST]
    assert min(each["take_s"] for each in honest) < 0.1
    assert min(each["compare_s"] for each in honest) < 0.02


def test_nothing_was_left_behind(found: dict[str, Any]) -> None:
    assert found
    assert not list(Path("/tmp").glob("tilesmith-never*"))
