"""How a process ended that is no child of this one: by the handle that the kernel gives on it, where it does (Linux), else unknown.

`PIDFD_GET_INFO` tells the exit code of a process that has been waited for, from Linux 6.15 on (include/uapi/linux/pidfd.h); until then it is in
/proc/PID/stat. Both are of the very process: a pid is not used again while it is unreaped, and the handle is no pid.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
from pathlib import Path
from typing import Final

UNKNOWN: Final = "unknown"
_FLOCK: Final = struct.Struct("@hhqqi0q")
_INFO: Final = struct.Struct("@QQ11Ii")
_GET_INFO: Final = 0xC0_40_FF_0B
"""_IOWR(0xFF, 11, 64 bytes)"""
_EXIT: Final = 1 << 3


def process_of_lock(fd: int) -> int:
    """A handle (pidfd) on the process that holds a record lock on the file, by the kernel's word; -1 where there is none to be had."""
    if sys.platform != "linux":
        return -1
    import fcntl

    try:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))[4]
        # 0: a process of another pid namespace
        return os.pidfd_open(pid) if pid > 0 else -1
    except OSError:
        return -1


def how_it_ended(pidfd: int) -> str:
    """``SIGKILL``, ``exit status 3``, or UNKNOWN, of a process that is ending or has ended."""
    code = _exit_code(pidfd) if sys.platform == "linux" and pidfd >= 0 else None
    if code is None:
        return UNKNOWN
    if os.WIFSIGNALED(code):
        number = os.WTERMSIG(code)
        return next((s.name for s in signal.Signals if s == number), f"signal {number}")
    return f"exit status {os.WEXITSTATUS(code)}"


def _exit_code(pidfd: int) -> int | None:
    import fcntl

    info = bytearray(_INFO.pack(_EXIT, *[0] * 12, 0))
    try:
        fcntl.ioctl(pidfd, _GET_INFO, info)
        mask, *_, code = _INFO.unpack(info)
        if mask & _EXIT:
            return int(code)
    except OSError:
        pass  # an older kernel, or no process any more
    return _code_of_zombie(pidfd)


def _code_of_zombie(pidfd: int) -> int | None:
    try:
        pid = next(
            int(line.split()[1])
            for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
            if line.startswith("Pid:")
        )
        if pid <= 0:
            return None
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[49]) if fields[0] in "ZX" else None
    except (OSError, StopIteration, ValueError, IndexError):
        return None
