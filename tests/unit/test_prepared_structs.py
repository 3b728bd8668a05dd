"""Record types are ready before threads decode them: two threads that are the first to decode one type would end the process."""

from __future__ import annotations

import subprocess
import sys

_IN_THREADS = '''
import sys, threading
import msgspec
from jadevectordb.prepared_structs import prepare_structs

TYPES = """
import msgspec
class Inner(msgspec.Struct, frozen=True, array_like=True):
    a: str
    b: tuple[int, ...] = ()
    c: tuple[tuple[int, int], ...] = ()
class Outer(msgspec.Struct, frozen=True, array_like=True):
    x: Inner
    y: list[Inner] = []
"""
sys.setswitchinterval(1e-6)
made = []
for _ in range(150):
    module = {"__name__": "jadevectordb.made"}
    exec(TYPES, module)
    made.append(module["Outer"])
if sys.argv[1] == "prepared":
    prepare_structs()
value = msgspec.msgpack.encode([["q", [1], [[1, 2]]], [["r", [2], []]]])
for kind in made:
    begin = threading.Barrier(4)

    def decode():
        begin.wait()
        for _ in range(3):
            msgspec.msgpack.decode(value, type=kind)

    threads = [threading.Thread(target=decode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
'''


def test_many_threads_may_be_the_first_to_decode_what_was_prepared() -> None:
    done = subprocess.run([sys.executable, "-c", _IN_THREADS, "prepared"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
