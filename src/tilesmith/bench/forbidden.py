"""What a candidate may not name: modules, and parts of those that it may import."""

from __future__ import annotations

import re
import sys


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MISCHIEF = words(
    """
    _ctypes _posixsubprocess _thread _socket _winapi _xxsubinterpreters _testcapi _testinternalcapi asyncio asyncore
    atexit bdb cProfile cffi code codeop concurrent copyreg crypt ctypes curses dbm ensurepip faulthandler
    fcntl ftplib gc http imaplib imp linecache marshal mmap multiprocessing nntplib pdb pickle pickletools poplib posix
    profile pty readline resource runpy sched select selectors shelve shutil signal site smtplib socket socketserver
    sqlite3 ssl subprocess syslog telnetlib tempfile termios tkinter trace tracemalloc tty urllib venv webbrowser
    wsgiref xmlrpc zipimport
    """
)
"""Modules of the standard library that a kernel has no honest use for."""
LIBRARIES = words("torch triton numpy einops packaging tqdm typing_extensions")
"""The modules beyond the standard library that a candidate may import."""
PARTS = words(
    """
    numpy.ctypeslib numpy.distutils numpy.f2py torch._C._dynamo torch._dynamo torch._inductor torch._subclasses
    torch.autograd.profiler torch.cuda.cudart torch.cuda.memory.change_current_allocator torch.cuda.profiler
    torch.from_file torch._C.PyTorchFileReader
    torch._C.PyTorchFileWriter torch.hub torch.jit.load torch.jit.save torch.load torch.multiprocessing
    torch.jit.fork torch.ops.load_library torch.classes.load_library torch.overrides torch.package torch.profiler
    torch.save torch.serialization torch.utils._python_dispatch torch.utils._pytree torch.utils.benchmark
    torch.utils.collect_env torch.utils.cpp_extension torch.utils.swap_tensors torch._register_device_module torch._ops
    triton._C triton.backends.nvidia triton.profiler triton.runtime.build triton.runtime.cache
    triton.runtime.interpreter triton.tools.build_extern triton.tools.compile triton.tools.disasm triton.tools.link
    unittest.mock torch.distributed.TCPStore torch.distributed.FileStore torch.distributed.HashStore
    torch.distributed.PrefixStore torch.distributed.Store torch.distributed.init_process_group
    torch.distributed.init_device_mesh torch.distributed.device_mesh torch.distributed.distributed_c10d
    torch.distributed.elastic torch.distributed.launch torch.distributed.launcher torch.distributed.new_group
    torch.distributed.rendezvous torch.distributed.rpc torch.distributed.run torch._C._distributed_c10d
    """
)
"""Parts of what may be imported that start processes, load code, write files or switch the judge's instruments."""
HARMLESS_PARTS = words(
    """
    torch._C._dynamo.guards torch._dynamo.disable torch._dynamo.testing torch._inductor.runtime
    torch.profiler.record_function torch.autograd.profiler.record_function
    """
)

ALLOWED = {
    "os": words(
        """
        path environ getenv cpu_count sched_getaffinity getcwd getpid sep linesep name fspath PathLike devnull curdir
        pardir extsep makedirs mkdir listdir scandir
        """
    ),
    "sys": words(
        """
        version version_info maxsize platform byteorder implementation float_info int_info hash_info hexversion flags
        getsizeof getrecursionlimit intern stdout stderr exc_info
        """
    ),
    "threading": words("Lock RLock local get_ident"),
    "importlib": words("metadata import_module util.find_spec resources"),
}
"""Of these modules, all that a candidate may use."""
REFUSED = {
    "inspect": words(
        """
        currentframe stack trace getouterframes getinnerframes getframeinfo getclosurevars getgeneratorlocals
        getcoroutinelocals getasyncgenlocals getmodule modulesbyfile
        """
    ),
    "traceback": words("walk_stack walk_tb extract_stack print_stack format_stack clear_frames"),
    "types": words("CodeType CellType FrameType TracebackType"),
    "weakref": words("finalize getweakrefs"),
    "timeit": words("timeit repeat Timer main"),
    "doctest": words("testmod testfile run_docstring_examples"),
    "operator": words("methodcaller"),
    "typing": words("get_type_hints ForwardRef"),
    "logging": words("setLoggerClass setLogRecordFactory config currentframe"),
    "warnings": words("showwarning formatwarning"),
    "io": words("open_code"),
}
"""Of these modules, what a candidate may not use."""

SMUGGLED = words(
    """
    os sys ctypes subprocess gc inspect importlib builtins threading socket multiprocessing pickle marshal atexit shutil
    tempfile mmap thread posix linecache
    """
)
"""Modules that others hold as attributes, perhaps after an underscore: `torch.os` is `os`, whatever the way to it."""

PRIVATE = re.compile(
    r"torch\._C\..*([dD]ispatch|[mM]ode|[gG]uard|[dD]isable|[eE]xclude|[iI]nclude|[hH]ook|_set[_A-Z]|_push|_pop)"
)
"""Functions of torch's core that switch what watches operators."""
STORAGE = re.compile(r"torch\..*(_new_shared|_share_|_weak_ptr|from_data_pointer|_new_using|\.from_file|share_memory)")
"""Ways to memory that no tensor of the candidate owns, and to files past Python's own functions."""
HARMLESS_VARIABLES = re.compile(
    r"TRITON_PRINT_\w+|ENABLE_TMA|CUDA_LAUNCH_BLOCKING|CUDA_DEVICE_MAX_CONNECTIONS|TORCH_CUDA_ARCH_LIST|TORCH_LOGS"
    r"|TOKENIZERS_PARALLELISM|OMP_NUM_THREADS|MKL_NUM_THREADS|NCCL_\w+"
)
"""Variables of the environment that a candidate may set: they change what is printed, or nothing here."""
STANDARD = sys.stdlib_module_names


def refused_import(module: str) -> str | None:
    """The reason for rejecting the import of a module or of a name from one, by its dotted name, or None."""
    top = module.partition(".")[0]
    if top == "tilesmith":
        return f"it imports {module}, which belongs to the judge"
    if top in MISCHIEF or (top.startswith("_") and top in STANDARD and top != "__future__"):
        return f"it imports {top}"
    if top not in STANDARD and top not in LIBRARIES:
        return f"it imports {top}, which is neither the framework nor the standard library"
    return refused_name(module)


def refused_name(path: str) -> str | None:
    """The reason for rejecting the use of what a dotted path from an import leads to, or None."""
    path = path.replace("[]", "")
    top, _, rest = path.partition(".")
    parts = rest.split(".") if rest else []
    if any(part.lstrip("_") in SMUGGLED for part in parts):
        return f"it uses {path}"
    if top in ALLOWED and parts and not _allows(ALLOWED[top], rest):
        return f"it uses {path}"
    if top in REFUSED and parts and (parts[0] in REFUSED[top] or parts[0] == "?"):
        return f"it uses {path}"
    heads = {".".join(path.split(".")[:end]) for end in range(2, len(parts) + 2)}
    if heads & HARMLESS_PARTS or any(name.startswith(f"{path}.") for name in HARMLESS_PARTS):
        return None
    if heads & PARTS:
        return f"it uses {path}"
    if PRIVATE.match(path) or STORAGE.match(path):
        return f"it uses {path}"
    return None


def _allows(names: frozenset[str], rest: str) -> bool:
    """Whether one of the names is the path, an inner part of it, or what it is on the way to."""
    return any(f"{rest}.".startswith(f"{name}.") or name.startswith(f"{rest}.") for name in names)


def starred(module: str) -> list[str]:
    """What a star import from the module may bring of what is refused."""
    parts = (part.rpartition(".") for part in PARTS)
    return [*REFUSED.get(module, ()), *(name for home, _, name in parts if home == module)]
