"""A process whose world is wrong: Python loads this by itself when the folder is on PYTHONPATH.

SHIM_CLOCK_S        its wall clock is off by so many seconds; the clock that only counts goes as it should, as on a machine set wrong
SHIM_VERSION        the version of JadeVectorDB that it finds installed
SHIM_NOT_INSTALLED  a distribution that it does not find installed
"""

import importlib.metadata as installed
import os
import time

_OFF_S = int(os.environ.get("SHIM_CLOCK_S", "0"))
if _OFF_S:
    # All that the product asks the wall clock with. Not time.time: gRPC makes deadlines of it that C code compares with the true one
    _time_ns = time.time_ns
    time.time_ns = lambda: _time_ns() + _OFF_S * 10**9

if "SHIM_VERSION" in os.environ:
    _version = installed.version
    installed.version = lambda name: os.environ["SHIM_VERSION"] if name == "jadevectordb" else _version(name)

if "SHIM_NOT_INSTALLED" in os.environ:
    _files = installed.files

    def _files_of_others(name: str) -> list[installed.PackagePath] | None:
        if name == os.environ["SHIM_NOT_INSTALLED"]:
            raise installed.PackageNotFoundError(name)
        return _files(name)

    installed.files = _files_of_others
