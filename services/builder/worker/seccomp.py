"""The system calls that no build needs, as a filter for the kernel.

Left out are those that look into other processes, keys and the kernel, and the one that widens
the set of cores: so the cores that a build was given are all it gets.
"""

from __future__ import annotations

import platform
import struct

_DENIED = {
    "x86_64": {
        "add_key": 248,
        "bpf": 321,
        "io_uring_enter": 426,
        "io_uring_register": 427,
        "io_uring_setup": 425,
        "kcmp": 312,
        "kexec_load": 246,
        "keyctl": 250,
        "open_by_handle_at": 304,
        "perf_event_open": 298,
        "pidfd_getfd": 438,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "ptrace": 101,
        "request_key": 249,
        "sched_setaffinity": 203,
        "userfaultfd": 323,
    },
    "aarch64": {
        "add_key": 217,
        "bpf": 280,
        "io_uring_enter": 426,
        "io_uring_register": 427,
        "io_uring_setup": 425,
        "kcmp": 272,
        "kexec_load": 104,
        "keyctl": 219,
        "open_by_handle_at": 265,
        "perf_event_open": 241,
        "pidfd_getfd": 438,
        "process_vm_readv": 270,
        "process_vm_writev": 271,
        "ptrace": 117,
        "request_key": 218,
        "sched_setaffinity": 122,
        "userfaultfd": 282,
    },
}
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NUMBER, _ARCHITECTURE = 0, 4
"""Where they are in what the kernel hands a filter."""
_LOAD, _EQUAL, _NOT_LESS, _RETURN = 0x20, 0x15, 0x35, 0x06
_OTHER_NUMBERS = 0x4000_0000
"""From here on the numbers are of another convention for the same processor."""
_ALLOW, _REFUSE = 0x7FFF_0000, 0x0005_0001  # the latter: EPERM


def program(machine: str = "") -> bytes:
    """Return the filter for a kind of processor, this one's if none is named."""
    machine = machine or platform.machine()
    numbers = sorted(_DENIED[machine].values())
    refuse = 5 + len(numbers)  # the place of the last instruction
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 0, refuse - 2, _ARCHITECTURES[machine]),
        (_LOAD, 0, 0, _NUMBER),
        (_NOT_LESS, refuse - 4, 0, _OTHER_NUMBERS),
        *((_EQUAL, refuse - place - 1, 0, number) for place, number in enumerate(numbers, 4)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("HBBI", *line) for line in lines)
