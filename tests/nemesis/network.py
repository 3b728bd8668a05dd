"""What nodes of a cluster under test talk over, and how it is cut.

Where root may make network namespaces, each node lives in one of its own, joined by a bridge. A link is cut by giving the sender a
hardware address that nobody has for the receiver: packets leave and never arrive, no error comes back, and connections that
stand hang as they do when a switch dies. One direction or both. Clients reach every node all the time: they are on the bridge.

Elsewhere nodes share loopback, and links can't be cut: the report says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Protocol

from jadevectordb.cli.local_cluster import free_ports

_NOBODY = "02:00:00:00:00:fe"  # a hardware address that no interface here has
_NETWORKS_MAX = 64


class Network(Protocol):
    can_cut: str  # "" = links can be cut, else why not

    def host(self, place: int) -> str:
        """The address of the node at this place, 0-based."""
        ...

    def ports(self, place: int, count: int) -> list[int]:
        """Ports for it that nothing else uses."""
        ...

    def prefix(self, place: int) -> list[str]:
        """What goes before a command to run it where the node lives."""
        ...

    def cut(self, sender: int, receiver: int) -> None:
        """What `sender` sends to `receiver` gets lost, from now on; as often as it is cut it must be mended."""
        ...

    def mend(self, sender: int, receiver: int) -> None: ...

    def close(self) -> None: ...


class Loopback:
    """All nodes on 127.0.0.1."""

    def __init__(self, why: str) -> None:
        self.can_cut = why

    def host(self, place: int) -> str:
        return "127.0.0.1"

    def ports(self, place: int, count: int) -> list[int]:
        return free_ports(count)

    def prefix(self, place: int) -> list[str]:
        return []

    def cut(self, sender: int, receiver: int) -> None:
        raise AssertionError("links on loopback can't be cut")

    mend = cut

    def close(self) -> None:
        pass


class Namespaces:
    """A network namespace for each node. number: tells networks of one machine apart."""

    can_cut = ""

    def __init__(self, nodes: int) -> None:
        """Raises OSError or CalledProcessError where that can't be had."""
        self._nodes = nodes
        self._cuts: Counter[tuple[int, int]] = Counter()
        self._lock, self._number = _free_number()
        self._bridge = f"jade{self._number}"
        try:
            self._remove()  # what a run left that was killed
            self._make()
        except BaseException:
            self.close()
            raise

    def _make(self) -> None:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self._address(1)}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for place in range(self._nodes):
            namespace, outside = self._namespace(place), f"{self._bridge}n{place}"
            _ip("netns", "add", namespace)
            _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            _ip("link", "set", outside, "master", self._bridge, "up")
            _ip("-n", namespace, "addr", "add", f"{self.host(place)}/24", "dev", "eth0")
            _ip("-n", namespace, "link", "set", "eth0", "up")
            _ip("-n", namespace, "link", "set", "lo", "up")

    def _namespace(self, place: int) -> str:
        return f"{self._bridge}-n{place}"

    def _address(self, last: int) -> str:
        return f"10.213.{self._number}.{last}"

    def host(self, place: int) -> str:
        return self._address(11 + place)

    def ports(self, place: int, count: int) -> list[int]:
        return list(range(9081, 9081 + count))  # nobody else is there

    def prefix(self, place: int) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self._namespace(place)}", "--"]

    def cut(self, sender: int, receiver: int) -> None:
        self._cuts[sender, receiver] += 1
        _ip(*self._neighbour("replace", sender, receiver), "lladdr", _NOBODY, "nud", "permanent")

    def mend(self, sender: int, receiver: int) -> None:
        self._cuts[sender, receiver] -= 1
        if self._cuts[sender, receiver] == 0:
            _ip(*self._neighbour("del", sender, receiver))

    def _neighbour(self, verb: str, sender: int, receiver: int) -> list[str]:
        return ["-n", self._namespace(sender), "neigh", verb, self.host(receiver), "dev", "eth0"]

    def close(self) -> None:
        self._remove()
        self._lock.close()

    def _remove(self) -> None:
        """A namespace goes when its last process has ended, its end of the cable with it."""
        for place in range(_NODES_MAX):
            if Path("/run/netns", self._namespace(place)).exists():
                _ip("netns", "del", self._namespace(place))
        for name in os.listdir("/sys/class/net"):
            if name == self._bridge or name.startswith(f"{self._bridge}n"):
                with contextlib.suppress(subprocess.CalledProcessError):  # one end takes the other along
                    _ip("link", "del", name)


_NODES_MAX = 16


def make_network(nodes: int) -> Network:
    """With links that can be cut where that is possible."""
    assert 1 <= nodes <= _NODES_MAX
    if os.geteuid() != 0:
        return Loopback("network namespaces need root")
    if shutil.which("ip") is None or shutil.which("nsenter") is None:
        return Loopback("there is no ip or nsenter here")
    try:
        return Namespaces(nodes)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        return Loopback(f"no network namespaces here: {said.strip()}")


def both_ways(links: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    return [way for a, b in links for way in ((a, b), (b, a))]


def _free_number() -> tuple[IO[str], int]:
    """A number that no other run on this machine has, held as long as the file is open."""
    for number in range(_NETWORKS_MAX):
        lock = Path(f"/run/lock/jade-nemesis-{number}.lock").open("w")  # noqa: SIM115
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock, number
        except OSError:
            lock.close()
    raise OSError(f"{_NETWORKS_MAX} networks are in use on this machine already")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=10)
