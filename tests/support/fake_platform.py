"""Imitates macOS, Windows or another processor in this process, as far as Python code can notice.

The function `pretend` first imports TensorFlow and the other packages that `lowlevel_simclr` uses. Then it removes the
modules, functions and constants that the imitated system lacks. It also makes those file operations fail that fail on
the imitated system. Call it before `lowlevel_simclr` is imported:

    from tests.support.fake_platform import pretend
    pretend("win32", "AMD64")
"""

from __future__ import annotations

import builtins
import ctypes
import importlib
import io
import os
import platform
import signal
import sys
import tempfile
import types
from typing import Any

LOADED = (
    "tensorflow keras numpy sklearn.linear_model sklearn.neighbors sklearn.manifold matplotlib.pyplot PIL.Image tqdm "
    "tensorboard.summary.writer.event_file_writer tempfile subprocess multiprocessing shutil socket tarfile zipfile "
    "urllib.request ctypes importlib.metadata"
)
# Functions and constants that only Linux has (ONLY_LINUX), and those that Windows lacks (NOT_ON_WINDOWS). The lists
# come from typeshed, the project that describes Python's standard library for type checkers.
ONLY_LINUX = {"os": "sched_getaffinity sched_setaffinity memfd_create", "signal": "SIGPOLL SIGPWR SIGSTKFLT"}
NOT_ON_WINDOWS = {
    "os": "fork forkpty getuid geteuid getgid getegid setsid killpg getpgid sysconf sysconf_names mkfifo statvfs chown "
    "fchmod getloadavg uname wait3 wait4 O_NONBLOCK O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_SYNC nice sched_yield",
    "signal": "SIGHUP SIGPIPE SIGALRM SIGCHLD SIGUSR1 SIGUSR2 SIGSTOP SIGCONT setitimer getitimer alarm pause "
    "ITIMER_REAL pthread_kill pthread_sigmask sigwait",
}
MISSING_MODULES = ("fcntl", "resource", "termios", "pwd", "grp", "tty", "pty", "syslog")
MEMORY = 2**33  # bytes of memory that the imitation of Windows reports
LINUX_FOLDERS = ("/proc/", "/sys/")
OF_OTHERS = ("/proc/self/maps", "/proc/self/fd")  # stay visible, because scikit-learn and this module read them


def pretend(system: str, machine: str) -> None:
    """Make this process behave like one on another system.

    Args:
        system: the value of `sys.platform` on that system: "linux", "darwin" or "win32".
        machine: the value of `platform.machine()` on that system.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # TensorFlow reads it when it is imported
    for name in LOADED.split():
        importlib.import_module(name)
    sys.platform = system
    platform.machine = lambda: machine
    if system != "linux":
        _remove(ONLY_LINUX)
        _hide_linux_folders()
    if system == "win32":
        _imitate_windows()


def _remove(missing: dict[str, str]) -> None:
    for module, names in missing.items():
        for name in names.split():
            vars(importlib.import_module(module)).pop(name, None)


def _hide_linux_folders() -> None:
    def hidden(call: Any) -> Any:
        def ask(path: Any, *given: Any, **options: Any) -> Any:
            text = path if isinstance(path, int) else os.fsdecode(path)
            if isinstance(text, str) and text.startswith(LINUX_FOLDERS) and not text.startswith(OF_OTHERS):
                raise FileNotFoundError(2, "No such file or directory", path)
            return call(path, *given, **options)

        return ask

    os.stat, os.open = hidden(os.stat), hidden(os.open)
    io.open = builtins.open = hidden(builtins.open)


def _imitate_windows() -> None:
    listdir, readlink = os.listdir, os.readlink
    _remove(NOT_ON_WINDOWS)
    os.O_BINARY, os.O_NOINHERIT = 0, 0
    signal.SIGBREAK = signal.SIGQUIT
    sys.modules["msvcrt"] = make_msvcrt()
    vars(ctypes)["windll"] = types.SimpleNamespace(
        kernel32=types.SimpleNamespace(GetPhysicallyInstalledSystemMemory=_tell_memory)
    )
    sys.modules.update(dict.fromkeys(MISSING_MODULES))  # with None in sys.modules, an import raises ImportError

    def list_open_files() -> set[str]:
        found = set()
        for handle in listdir("/proc/self/fd"):
            try:
                found.add(readlink(f"/proc/self/fd/{handle}"))
            except OSError:
                continue
        return found

    def closed_only(call: Any) -> Any:
        def change(*paths: Any, **options: Any) -> Any:
            # Files of the module tempfile may be open: on Windows, tempfile has another way to delete an open file.
            names = [path for path in paths if not os.path.basename(path).startswith(tempfile.gettempprefix())]
            if any(os.path.realpath(path) in list_open_files() for path in names):
                raise PermissionError(13, "The process cannot access the file because it is being used", paths[0])
            return call(*paths, **options)

        return change

    def files_only(call: Any) -> Any:
        def opened(path: Any, *given: Any, **options: Any) -> int:
            ours = sys._getframe(1).f_globals.get("__name__", "").startswith("lowlevel_simclr")
            if ours and os.path.isdir(path):  # on Windows, a folder cannot be opened
                raise PermissionError(13, "Permission denied", path)
            return call(path, *given, **options)

        return opened

    for name in ("replace", "rename", "unlink", "remove"):
        setattr(os, name, closed_only(getattr(os, name)))
    os.open = files_only(os.open)


def _tell_memory(reference: Any) -> int:
    reference._obj.value = MEMORY // 1024
    return 1


def make_msvcrt() -> types.ModuleType:
    """Return an imitation of msvcrt, Windows' module for locks, that uses Linux's locks.

    On Windows, other processes cannot read a locked byte. Linux's locks do not prevent that. Instead, the imitation
    raises an error if the program locks a byte that is inside the file.
    """
    import fcntl

    module = types.ModuleType("msvcrt")

    def locking(handle: int, mode: int, count: int) -> None:
        if os.lseek(handle, 0, os.SEEK_CUR) < os.fstat(handle).st_size:
            raise AssertionError("a byte inside the file is locked, so on Windows no other process could read it")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PermissionError(13, "Permission denied") from error

    vars(module).update(locking=locking, LK_NBLCK=2)
    return module
