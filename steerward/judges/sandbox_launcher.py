"""Runs one program and its tests as isolated as the machine allows; started by path, not imported.

`sandbox` starts this file as `python -I -S`: it knows the standard library only. Three processes:
the launcher, the first process of a new process namespace, whose end kills all others in it, and
the program. What is written to the report: a line of JSON with the isolation that is in force,
before the program runs; and the token, after its tests have passed.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import struct
import sys
import traceback
import types
from typing import Any

# From linux/sched.h, sys/mount.h, linux/mount.h, linux/prctl.h and linux/capability.h.
_NEW_MOUNTS, _NEW_USERS, _NEW_PROCESSES = 0x00020000, 0x10000000, 0x20000000
_NEW_NETWORK, _NEW_MESSAGES = 0x40000000, 0x08000000
_NO_SUID, _NO_DEVICES, _BIND, _RECURSIVE, _PRIVATE = 0x2, 0x4, 0x1000, 0x4000, 0x40000
_SYS_MOUNT_SETATTR, _AT_CWD, _AT_RECURSIVE, _READ_ONLY = 442, -100, 0x8000, 0x1
_PARENT_DEATH_SIGNAL, _NO_NEW_PRIVILEGES, _CAPABILITY_VERSION = 1, 38, 0x20080522

# From linux/seccomp.h, linux/filter.h, linux/audit.h and each machine's unistd.h.
_SET_FILTER, _FILTER_MODE, _ALLOW, _REFUSE_AS_NOT_PERMITTED = 22, 2, 0x7FFF0000, 0x00050001
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_OFFSET, _MACHINE_OFFSET, _FIRST_OF_X32 = 0, 4, 0x40000000
_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# By name, on x86_64 and on aarch64. They hold memory that no limit of a process counts and that may
# outlive it, or make a place for such memory, or open parts of the kernel that no program needs.
_REFUSED_CALLS = {
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "userfaultfd": (323, 282),
    "mount": (165, 40),
    "fsopen": (430, 430),
    "unshare": (272, 97),
    "setns": (308, 268),
}

_SYSTEM_FOLDERS = ("/usr", "/bin", "/lib", "/lib32", "/lib64")
_SYSTEM_FILES = ("/etc/ld.so.cache", "/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
# Users that nobody is; the second, where a container knows few.
_USERS = ((1_000_000_000, 500_000_000), (30_000, 30_000))
_MOST_OPEN_FILES = 64
_FAILED, _STOPPED = 1, 70

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Isolate, run, and end with the program's status."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    if (user := settings.get("end_user")) is not None:
        os.setresuid(user, user, user)
        os.kill(-1, signal.SIGKILL)
        return
    _die_with_parent()
    isolation = _leave_namespaces()
    if "processes" in isolation:
        _continue_in_child()
    if "files" in isolation and not _enter_own_root(settings["file_bytes"]):
        isolation.discard("files")
    _continue_in_child()
    user = _become_nobody()
    if user is not None:
        isolation.add("user")
    _restrict(settings)
    if _refuse_calls():
        isolation.add("system_calls")
    if missing := set(settings["must_isolate"]) - isolation:
        sys.exit(f"this machine does not isolate {', '.join(sorted(missing))}")
    # What cannot be read would fail every program that imports something.
    with open(os.__file__, "rb"):
        pass
    started = json.dumps({"isolation": sorted(isolation), "user": user})
    os.write(settings["report"], f"{started}\n".encode())
    _run(settings)


def _continue_in_child() -> None:
    """Go on in a new process, for which this one waits, to end as it did."""
    child = os.fork()
    if child == 0:
        _die_with_parent()
        return
    while True:
        # The first process of a namespace is also given the orphans.
        ended, status = os.waitpid(-1, 0)
        if ended == child:
            os._exit(_STOPPED if status else 0)


def _die_with_parent() -> None:
    _libc.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def _leave_namespaces() -> set[str]:
    """Leave the machine's network, processes and mounts; return what was left."""
    flags = _NEW_NETWORK | _NEW_PROCESSES | _NEW_MOUNTS | _NEW_MESSAGES
    user, group = os.geteuid(), os.getegid()
    if user == 0 and _libc.unshare(flags) == 0:
        return {"network", "processes", "files", "messages"}
    if _libc.unshare(flags | _NEW_USERS) != 0:
        return set()
    maps = {"setgroups": "deny", "uid_map": f"{user} {user} 1", "gid_map": f"{group} {group} 1"}
    for name, line in maps.items():
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(line)
    return {"network", "processes", "files", "messages"}


def _enter_own_root(max_bytes: int) -> bool:
    """Change to a root of the interpreter, the system's libraries, and an empty /tmp in memory.

    All but /tmp is read-only.
    """
    root = os.getcwd()
    try:
        _mount("/", flags=_RECURSIVE | _PRIVATE)
        _mount(root, kind="tmpfs", flags=_NO_SUID, options="size=1m,mode=755")
        for path in _SYSTEM_FOLDERS:
            if os.path.islink(path):
                os.symlink(os.readlink(path), root + path)
            elif os.path.isdir(path):
                _bind(path, root)
        for path in (*_SYSTEM_FILES, sys.base_prefix):
            if os.path.exists(path):
                _bind(path, root)
        os.makedirs(f"{root}/tmp", exist_ok=True)
        _set_read_only(root)
        options = f"size={max_bytes},mode=1777"
        _mount(f"{root}/tmp", kind="tmpfs", flags=_NO_SUID | _NO_DEVICES, options=options)
        os.chroot(root)
    except OSError:
        return False
    os.chdir("/tmp")
    return True


def _bind(path: str, root: str) -> None:
    target = root + path
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "xb"):
            pass
    _mount(target, source=path, flags=_BIND | _RECURSIVE)


def _mount(
    target: str, *, source: str = "none", kind: str = "", flags: int, options: str = ""
) -> None:
    texts = [text.encode() for text in (source, target, kind)]
    if _libc.mount(*texts, ctypes.c_ulong(flags), options.encode()) != 0:
        raise OSError(ctypes.get_errno(), "mount", target)


def _set_read_only(root: str) -> None:
    attributes = struct.pack("=QQQQ", _READ_ONLY, 0, 0, 0)
    place = (_AT_CWD, root.encode(), _AT_RECURSIVE)
    if _libc.syscall(_SYS_MOUNT_SETATTR, *place, attributes, len(attributes)) != 0:
        raise OSError(ctypes.get_errno(), "mount_setattr", root)


def _become_nobody() -> int | None:
    """Become a user that nobody else is, if root may and that user can read the interpreter."""
    if os.geteuid() != 0:
        return None
    for first, count in _USERS:
        user = first + int.from_bytes(os.urandom(4), "big") % count
        try:
            os.seteuid(user)
        except OSError:
            continue
        is_readable = os.access(os.__file__, os.R_OK, effective_ids=True)
        os.seteuid(0)
        if is_readable:
            os.chown(".", user, user)
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            return user
    return None


def _restrict(settings: dict[str, Any]) -> None:
    """Give up every capability and set the limits, which a program can lower only."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    _libc.capset(header, bytes(24))
    _libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    # Forgotten by the kernel where the user changed.
    _die_with_parent()
    os.umask(0o077)
    cpu_s = settings["cpu_s"]
    limits = {
        resource.RLIMIT_CPU: (cpu_s, cpu_s + 1),
        resource.RLIMIT_AS: settings["memory_bytes"],
        resource.RLIMIT_FSIZE: settings["file_bytes"],
        resource.RLIMIT_NPROC: settings["processes"],
        resource.RLIMIT_NOFILE: _MOST_OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    for which, limit in limits.items():
        resource.setrlimit(which, limit if isinstance(limit, tuple) else (limit, limit))


def _refuse_calls() -> bool:
    """Have the kernel refuse `_REFUSED_CALLS` from here on; return whether it does."""
    machine = os.uname().machine
    # A process of 32 bits has other numbers, so none of its calls is let through.
    if machine not in _MACHINES or struct.calcsize("P") != 8:
        return False
    program = b"".join(_filter(machine))
    held = ctypes.create_string_buffer(program, len(program))
    # The number of instructions, and where they are.
    where = struct.pack("HP", len(program) // 8, ctypes.addressof(held))
    return _libc.prctl(_SET_FILTER, _FILTER_MODE, where, 0, 0) == 0


def _filter(machine: str) -> list[bytes]:
    """Return the instructions of the filter: code, steps if true, steps if false, value."""
    column = list(_MACHINES).index(machine)
    numbers = sorted(both[column] for both in _REFUSED_CALLS.values())
    checks = [(_IF_AT_LEAST, _FIRST_OF_X32), *((_IF_EQUAL, number) for number in numbers)]
    # Each check that is true goes to the end, past the checks left and the permission.
    steps = range(len(checks), 0, -1)
    instructions = [
        (_LOAD, 0, 0, _MACHINE_OFFSET),
        (_IF_EQUAL, 1, 0, _MACHINES[machine]),
        (_RETURN, 0, 0, _REFUSE_AS_NOT_PERMITTED),
        (_LOAD, 0, 0, _NUMBER_OFFSET),
        *((code, step, 0, value) for (code, value), step in zip(checks, steps, strict=True)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE_AS_NOT_PERMITTED),
    ]
    return [struct.pack("=HBBI", *one) for one in instructions]


def _run(settings: dict[str, Any]) -> None:
    """Run the program, then its tests in the same module; report the token if all went well."""
    sys.argv = ["program"]
    module = types.ModuleType("program")
    # Dataclasses and type hints look a class's module up by its name.
    sys.modules["program"] = module
    try:
        exec(compile(_read(settings["program"]), "program", "exec"), module.__dict__)
        # Read only now: a program that ends the process early has not seen the token.
        token, _, tests = _read(settings["tests"]).partition("\n")
        exec(compile(tests, "tests", "exec"), module.__dict__)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(_FAILED)
    os.write(settings["report"], f"{token}\n".encode())
    os._exit(0)


def _read(file: int) -> str:
    with open(file, "rb") as content:
        return content.read().decode()


if __name__ == "__main__":
    main()
