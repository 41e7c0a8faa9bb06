"""What a candidate does to the process that runs it, seen while it does it.

An audit hook, which cannot be taken out again, hears of files, processes, sockets, threads, foreign code and frames,
and asks the stack who is responsible: the innermost of candidate, framework, compiler and judge. What the candidate
exchanges unheard, a `snapshot` shows.

Runs in children only, after `screen` has read the source; what it sees first is told by `reject`, which ends the child.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from tilesmith.bench.forbidden import HARMLESS_VARIABLES, refused_import, words

FAULT = 70
"""Exit status of a child whose verdict could not be sent."""

Reject = Callable[[str], NoReturn]


# Who is responsible.

_BENCH = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120  pathlib is slow, and this file stays small
_STANDARD = os.path.dirname(os.path.abspath(os.__file__))  # noqa: PTH100, PTH120
_DOORS = re.compile(
    r".*/triton/runtime/build\.py|.*/triton/tools/.*"
    r"|.*/torch/(_ops|_classes|hub|serialization|storage)\.py"
    r"|.*/torch/(multiprocessing|distributed|package|_inductor)/.*|.*/torch/utils/(cpp_extension|collect_env)\.py"
)
"""Parts of the framework and the compiler that do for their caller what the caller may not do."""
_FRAME_READERS = re.compile(r".*/(inspect|traceback)\.py")
_CODE_MAKERS = re.compile(r".*/(dataclasses|enum|collections/__init__)\.py")
"""Standard modules that execute code that they have made themselves."""
_CLASS_MAKERS = re.compile(r".*/(dataclasses|enum|collections/__init__|typing|types|abc)\.py")
"""Standard modules that dress what they make as their caller's."""
_SOURCE_READERS = re.compile(r".*/(linecache|tokenize)\.py")


class Files:
    """Whose file it is, by the name that its code objects carry."""

    def __init__(self, candidate_file: str, scratch: str) -> None:
        self._candidate = (candidate_file, os.path.join(scratch, ""), os.path.join(os.path.realpath(scratch), ""))  # noqa: PTH118
        self._known: dict[str, str] = {}

    def owner(self, name: str) -> str:
        """ "candidate", "import", "bench", "torch", "triton", "numpy", "door", "standard" or "other"."""
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = self._owner(name)
        return found

    def _owner(self, name: str) -> str:
        if name.startswith("<frozen "):
            return "import" if "importlib" in name or "zipimport" in name else "standard"
        if name == self._candidate[0] or name.startswith(self._candidate[1:]) or not os.path.isabs(name):  # noqa: PTH117
            # Code without a file was made from a string: whoever made it, it is no part of what was installed.
            return "candidate"
        if name.startswith(_BENCH + os.sep):
            return "bench"
        if _DOORS.fullmatch(name):
            return "door"
        # By what comes after the last such folder: an environment may itself lie below one that is called torch.
        installed = name.rpartition("-packages/")[2].partition("/")[0] if "-packages/" in name else ""
        if installed in ("torch", "triton", "numpy"):
            return installed
        if name.startswith(_STANDARD + os.sep) and "-packages/" not in name:
            return "import" if f"{os.sep}importlib{os.sep}" in name else "standard"
        return package_of(name)


def package_of(name: str) -> str:
    """The owner of a file that lies in none of the usual places: an overlay of Triton or torch, or anything else."""
    for package in ("torch", "triton", "numpy"):
        module = sys.modules.get(package)
        if module is not None and module.__file__ and name.startswith(os.path.dirname(module.__file__) + os.sep):  # noqa: PTH120
            return package
    return "other"


# What is heard of.

FRAMEWORK = frozenset(("torch", "triton", "numpy", "bench", "import", "other"))
COMPILER = frozenset(("triton", "bench"))
LOADERS = frozenset(("torch", "triton", "bench", "import"))

DEEDS: dict[str, tuple[str, frozenset[str]]] = {
    **dict.fromkeys(
        words(
            """
            os.fork os.forkpty os.exec os.posix_spawn os.spawn os.system os.startfile subprocess.Popen pty.spawn
            """
        ),
        ("starts a process", COMPILER),
    ),
    **dict.fromkeys(words("os.kill os.killpg signal.pthread_kill"), ("sends a signal", frozenset())),
    **dict.fromkeys(
        words(
            """
            gc.get_objects gc.get_referrers gc.get_referents sys._current_frames sys._current_exceptions
            """
        ),
        ("walks through the process's objects", FRAMEWORK),
    ),
    **dict.fromkeys(
        words("sys.settrace sys.setprofile sys.addaudithook sys.monitoring.register_callback"),
        ("hooks the interpreter", FRAMEWORK),
    ),
    **dict.fromkeys(words("code.__new__ function.__new__"), ("makes code", FRAMEWORK)),
    "os.unsetenv": ("changes the environment", LOADERS),
    **dict.fromkeys(
        words(
            """
            mmap.__new__ marshal.loads marshal.load marshal.dumps pickle.find_class sqlite3.connect
            sqlite3.enable_load_extension resource.setrlimit resource.prlimit fcntl.fcntl fcntl.flock fcntl.ioctl
            fcntl.lockf syslog.openlog syslog.syslog urllib.Request http.client.connect http.client.send ftplib.connect
            smtplib.connect poplib.connect imaplib.open telnetlib.Telnet.open webbrowser.open pdb.Pdb
            builtins.breakpoint builtins.input cpython.run_command cpython.run_file cpython.run_interactivehook
            cpython.run_module cpython.run_startup cpython.run_stdin code.interact ensurepip.bootstrap sys.remote_exec
            os.lockf setopencodehook sys.set_asyncgen_hooks_firstiter sys.set_asyncgen_hooks_finalizer
            """
        ),
        ("leaves what a kernel needs", FRAMEWORK),
    ),
}
"""Events, with what they mean and whose doing them on the way excuses the candidate."""
FAMILIES: dict[str, tuple[str, frozenset[str]]] = {
    "ctypes": ("calls into the process with ctypes", LOADERS),
    "socket": ("opens a socket", frozenset(("bench",))),
}
"""The same for all events of one beginning."""
CHANGED_PATHS: dict[str, tuple[int, ...]] = {
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.mkdir": (0,),
    "os.rename": (0, 1),
    "os.chmod": (0,),
    "os.chown": (0,),
    "os.truncate": (0,),
    "os.utime": (0,),
    "os.setxattr": (0,),
    "os.removexattr": (0,),
    "shutil.rmtree": (0,),
}
"""Events that change the file system, and where their arguments are paths."""
LISTED_PATHS = words("os.listdir os.scandir os.listxattr os.getxattr")
NEVER = words("os.link os.symlink os.chdir os.fchdir os.chroot os.mount os.umount")
TOOLS = re.compile(
    r"(.+-)?(cc|gcc|g\+\+|c\+\+|clang(\+\+)?|ptxas\S*|cuobjdump|nvdisasm|ldconfig|file|uname)(-?[\d.]+)?"
)
"""What Triton and the judge start: compilers, assemblers, and what they ask the machine with."""

FENCED: dict[str, str] = {
    "os posix": """
        _exit abort write writev pwrite pwritev sendfile splice read readv pread preadv dup2 close closerange fchmod
        fchown nice setpriority sched_setaffinity sched_setscheduler sched_setparam memfd_create eventfd mkfifo mknod
        register_at_fork setsid setpgid umask pidfd_open openpty
    """,
    "_thread": "start_new_thread start_new start_joinable_thread interrupt_main",
    "threading": "_start_new_thread _start_joinable_thread _register_atexit",
    "signal _signal": "signal setitimer alarm raise_signal pthread_sigmask set_wakeup_fd siginterrupt pause sigwait",
    "atexit": "register unregister _clear _run_exitfuncs",
    "gc": "disable enable freeze unfreeze set_threshold set_debug",
    "sys": "setrecursionlimit setswitchinterval setdlopenflags",
    "weakref.finalize": "__init__",
    "torch._C": "PyTorchFileReader PyTorchFileWriter",
    "torch": "from_file",
}
"""Functions that no event tells of, by the modules or the class that hold them: they ask who calls."""

FRAME_ATTRIBUTES = words("tb_frame gi_frame cr_frame ag_frame f_code f_back f_locals gi_code cr_code ag_code")
CODE_ATTRIBUTES = words("__code__ __defaults__ __kwdefaults__ __class__ __bases__")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def crier(sock: socket.socket) -> Reject:
    """A `reject` that sends `{"stage": "rejected", "message": reason}` over the wire, and ends the process.

    Nothing that a candidate can exchange takes part: no function of a module, no built-in name, only what is bound here
    and methods of built-in types. What cannot stand in a JSON string as it is reads "?".
    """
    send, leave = sock.send, os._exit

    def reject(reason: str) -> NoReturn:
        text = "".join(["?" if letter in '"\\' or not " " <= letter <= "~" else letter for letter in reason[:2000]])
        header = ('{"stage": "rejected", "message": "' + text + '"}').encode()
        send(header.__len__().to_bytes(4, "big") + b"\0\0\0\0" + header)
        leave(0)

    return reject


def watch(candidate_file: str, scratch: str, reject: Reject) -> None:
    """From now on, until the process ends, whatever the candidate does that it may not is told to `reject`.

    To be called once, when all is imported that the child itself needs, right before the candidate's source is loaded,
    and before a `Snapshot` is taken. `candidate_file` is the path that its code objects carry, `scratch` the folder
    that it may write to. `reject` does not return; if it raises, the process ends all the same.
    """
    guard = _Guard(Files(candidate_file, scratch), candidate_file, scratch)
    frame_of = sys._getframe
    leave = os._exit
    busy = False

    def told(reason: str) -> NoReturn:
        nonlocal busy
        busy = True
        try:
            reject(reason)
        finally:
            leave(FAULT)

    def fence(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def fenced(*arguments: Any, **options: Any) -> Any:
            if not busy and guard.calls(frame_of(1)):
                told(f"it calls {name}")
            return function(*arguments, **options)

        fenced.__name__ = fenced.__qualname__ = name.rpartition(".")[2]
        return fenced

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal busy
        judge = HEARD.get(event) or PREFIXES.get(event.partition(".")[0])
        if judge is None or busy:
            return
        # What this does is itself heard of.
        busy = True
        try:
            reason = judge(guard, event, arguments, frame_of(1))
        finally:
            busy = False
        if reason is not None:
            told(reason)

    _raise_fences(fence)
    sys.addaudithook(hear)


def _raise_fences(fence: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> None:
    for holders, names in FENCED.items():
        made: dict[str, Callable[..., Any]] = {}
        for path in holders.split():
            module, _, attribute = path.partition(".")
            holder = sys.modules.get(module)
            holder = getattr(holder, attribute, None) if attribute else holder
            for name in names.split() if holder is not None else ():
                if name not in made and hasattr(holder, name):
                    title = holders.split()[0] if name == "__init__" else f"{holders.split()[0]}.{name}"
                    made[name] = fence(title, getattr(holder, name))
                if name in made:
                    setattr(holder, name, made[name])


class _Guard:
    """Knows the candidate's places, and reads stacks and paths."""

    def __init__(self, files: Files, candidate_file: str, scratch: str) -> None:
        self.files = files
        self.candidate_file = os.path.realpath(candidate_file)
        self.scratch = os.path.realpath(scratch)
        self.cache = os.path.realpath(os.environ.get("TRITON_CACHE_DIR") or os.path.join(scratch, "triton"))  # noqa: PTH118

    def owners(self, frame: types.FrameType | None) -> Iterator[tuple[str, types.FrameType]]:
        """Whose code is running, from the innermost frame on."""
        while frame is not None:
            yield self.files.owner(frame.f_code.co_filename), frame
            frame = frame.f_back

    def guilty(self, frame: types.FrameType | None, excused_by: frozenset[str]) -> bool:
        """Whether the candidate stands before anyone whose doing this may be."""
        for owner, _ in self.owners(frame):
            if owner == "candidate":
                return True
            if owner in excused_by:
                return False
        return False

    def calls(self, frame: types.FrameType | None) -> bool:
        """The same for what the framework may do for itself, found with less work."""
        owner_of = self.files.owner
        while frame is not None:
            owner = owner_of(frame.f_code.co_filename)
            if owner == "candidate":
                return True
            if owner in FRAMEWORK:
                return False
            frame = frame.f_back
        return False

    def outside(self, path: Any) -> str | None:
        """The path, if it is not in the scratch folder or is no path."""
        if path is None:
            path = "."
        if isinstance(path, int):
            return f"descriptor {path}"
        try:
            text = os.path.realpath(os.fsdecode(path))
        except (TypeError, ValueError):
            return "a place without a name"
        if text == os.devnull or text == self.scratch or text.startswith(self.scratch + os.sep):
            return None
        return text


_Judge = Callable[[_Guard, str, tuple[Any, ...], types.FrameType], str | None]


def _deed(guard: _Guard, event: str, _: tuple[Any, ...], frame: types.FrameType) -> str | None:
    what, excused_by = DEEDS.get(event) or FAMILIES[event.partition(".")[0]]
    return f"it {what} ({event})" if guard.guilty(frame, excused_by) else None


def _process(guard: _Guard, event: str, arguments: tuple[Any, ...], frame: types.FrameType) -> str | None:
    """The compiler and the judge start tools; that nobody else does, and that they start nothing else."""
    what, excused_by = DEEDS[event]
    if guard.guilty(frame, excused_by):
        return f"it {what} ({event})"
    if event not in ("subprocess.Popen", "os.posix_spawn"):
        return f"something that it left behind {what} ({event})"
    tool = os.fsdecode(arguments[0])
    name = os.path.basename(tool)  # noqa: PTH119
    # A bare name is looked up along PATH, which the candidate cannot have changed unheard.
    if not TOOLS.fullmatch(name) or (name != tool and guard.outside(tool) is None):
        return f"something that it left behind {what}: {tool}"
    return None


def _open(guard: _Guard, _: str, arguments: tuple[Any, ...], frame: types.FrameType) -> str | None:
    path, mode, flags = arguments
    writes = bool(flags & _WRITING) if isinstance(flags, int) else any(letter in str(mode) for letter in "wax+")
    if writes:
        return _change(guard, (path,), frame)
    if not guard.guilty(frame, FRAMEWORK):
        return None
    place = guard.outside(path)
    if place is None or (place.endswith(".py") and _is_from(frame, _SOURCE_READERS)):
        return None
    return f"it reads {place}, outside its scratch folder"


def _changed(guard: _Guard, event: str, arguments: tuple[Any, ...], frame: types.FrameType) -> str | None:
    return _change(guard, tuple(arguments[index] for index in CHANGED_PATHS[event]), frame)


def _change(guard: _Guard, paths: tuple[Any, ...], frame: types.FrameType) -> str | None:
    if not guard.guilty(frame, FRAMEWORK):
        return None
    for path in paths:
        place = guard.outside(path)
        if place is not None:
            return f"it writes {place}, outside its scratch folder"
        inside = os.path.realpath(os.fsdecode(path))
        if inside == guard.candidate_file:
            return "it writes to its own source"
        if inside == guard.cache or inside.startswith(guard.cache + os.sep):
            return "it writes to the compiler's cache"
    return None


def _listed(guard: _Guard, _: str, arguments: tuple[Any, ...], frame: types.FrameType) -> str | None:
    if not guard.guilty(frame, FRAMEWORK):
        return None
    place = guard.outside(arguments[0])
    return None if place is None else f"it lists {place}, outside its scratch folder"


def _never(guard: _Guard, event: str, _: tuple[Any, ...], frame: types.FrameType) -> str | None:
    return f"it calls {event}" if guard.guilty(frame, FRAMEWORK) else None


def _variable(guard: _Guard, event: str, arguments: tuple[Any, ...], frame: types.FrameType) -> str | None:
    if HARMLESS_VARIABLES.fullmatch(os.fsdecode(arguments[0])) or not guard.guilty(frame, LOADERS):
        return None
    return f"it changes the environment ({event})"


def _frame(guard: _Guard, event: str, _: tuple[Any, ...], frame: types.FrameType) -> str | None:
    """Loggers and named tuples look at their caller's frame; a candidate that does wants more."""
    for owner, each in guard.owners(frame):
        if owner == "candidate":
            return f"it walks through frames ({event})"
        if not _FRAME_READERS.fullmatch(each.f_code.co_filename):
            return None
    return None


def _got(guard: _Guard, _: str, arguments: tuple[Any, ...], frame: types.FrameType) -> str | None:
    """Attributes that lead to frames and code. A function's own code is its own affair."""
    thing, name = arguments[0], arguments[1]
    if name not in FRAME_ATTRIBUTES | CODE_ATTRIBUTES or next(guard.owners(frame))[0] != "candidate":
        return None
    if name in FRAME_ATTRIBUTES:
        return f"it walks through frames ({name})"
    own = getattr(thing, "__globals__", None) is frame.f_globals
    return None if own else f"it reads the {name} of {_named(thing)}"


def _set(guard: _Guard, _: str, arguments: tuple[Any, ...], frame: types.FrameType) -> str | None:
    thing, name = arguments[0], arguments[1]
    if name not in CODE_ATTRIBUTES or not guard.guilty(frame, FRAMEWORK) or _is_from(frame, _CLASS_MAKERS):
        return None
    return f"it sets the {name} of {_named(thing)}"


def _import(guard: _Guard, _: str, arguments: tuple[Any, ...], frame: types.FrameType) -> str | None:
    for owner, _each in guard.owners(frame):
        if owner == "candidate":
            return refused_import(str(arguments[0]))
        if owner != "import":
            return None
    return None


def _compile(guard: _Guard, _: str, __: tuple[Any, ...], frame: types.FrameType) -> str | None:
    return "it compiles code" if next(guard.owners(frame))[0] == "candidate" else None


def _exec(guard: _Guard, _: str, arguments: tuple[Any, ...], frame: types.FrameType) -> str | None:
    name = getattr(arguments[0], "co_filename", "")
    if name and guard.outside(name) is None and os.path.realpath(name) != guard.candidate_file and os.path.isabs(name):  # noqa: PTH117
        return f"it runs {name}, which it wrote itself"
    module = None
    for owner, each in guard.owners(frame):
        if owner == "import":
            # An import that goes past the statement is no event of its own.
            if each.f_code.co_name == "exec_module":
                module = getattr(each.f_locals.get("module"), "__name__", None)
        elif owner == "candidate":
            return "it executes code that is not in its source" if module is None else refused_import(module)
        elif owner in FRAMEWORK or module is not None or _CODE_MAKERS.fullmatch(each.f_code.co_filename):
            return None
    return None


def _is_from(frame: types.FrameType, files: re.Pattern[str]) -> bool:
    """Whether the innermost frame belongs to one of these files."""
    return files.fullmatch(frame.f_code.co_filename) is not None


def _named(thing: Any) -> str:
    return str(getattr(thing, "__qualname__", None) or type(thing).__qualname__)[:100]


HEARD: dict[str, _Judge] = {
    **dict.fromkeys(DEEDS, _deed),
    **{event: _process for event, (what, _) in DEEDS.items() if what == "starts a process"},
    **dict.fromkeys(CHANGED_PATHS, _changed),
    **dict.fromkeys(LISTED_PATHS, _listed),
    **dict.fromkeys(NEVER, _never),
    "open": _open,
    "os.putenv": _variable,
    "sys._getframe": _frame,
    "sys._getframemodulename": _frame,
    "object.__getattr__": _got,
    "object.__setattr__": _set,
    "object.__delattr__": _set,
    "import": _import,
    "compile": _compile,
    "exec": _exec,
}
PREFIXES: dict[str, _Judge] = dict.fromkeys(FAMILIES, _deed)
