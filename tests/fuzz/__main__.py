"""`python -m tests.fuzz --requests 200000`: hostile requests to a server of its own; exit code 1 when one found something wrong."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from tests.fuzz.campaign import Campaign, run
from tests.fuzz.exchange import Connection, Wrong
from tests.fuzz.requests import request_of
from tests.fuzz.rpcs import RpcFuzzer
from tests.serving import serving


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(1_000_000), help="the same seed sends the same requests"
    )
    parser.add_argument("--first", type=int, default=0, help="number of the first request")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--replay", type=int, help="send only the request with this number, and show it")
    parser.add_argument("--replay-grpc", type=int, help="make only the gRPC call with this number")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        if options.replay is not None or options.replay_grpc is not None:
            return _replay(Path(folder), options.seed, options.replay, options.replay_grpc)
        report = run(Path(folder), options.seed, options.requests, options.first, options.connections, _tell)
    print(report)
    for wrong in report.wrong:
        print(f"\nWRONG: {wrong}")
    return 1 if report.wrong else 0


def _tell(line: str) -> None:
    print(line, flush=True)


def _replay(folder: Path, seed: int, number: int | None, call: int | None) -> int:
    with serving(folder / "data") as server:
        Campaign(server, seed).make_databases()
        try:
            if number is not None:
                request = request_of(seed, number)
                print(request)
                host, _, port = server.url.removeprefix("http://").rpartition(":")
                connection = Connection(host, int(port))
                print("answered", connection.send(request) or "by closing the connection")
                connection.close()
            if call is not None:
                fuzzer = RpcFuzzer(server.grpc)
                print("answered", fuzzer.call(seed, call))
                fuzzer.close()
        except Wrong as problem:
            print(f"WRONG: {problem}\n{server.log()[-5000:]}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
