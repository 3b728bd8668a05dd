"""A reading process of a server: started by the writing one (`processes`), ended by it, or by its end.

It opens no file for writing, keeps no lock and no account: what it answers from are the folders that the writer writes, mapped, and
the writer's log, applied; see `gateway.processes`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import secrets
import signal
import socket
import sys
from importlib.metadata import version
from pathlib import Path

import uvicorn

from jadevectordb.adapters import otlp
from jadevectordb.adapters.local_log_follow import LogFollower
from jadevectordb.adapters.shared_page import SharedPage
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.gateway.access.access import AccessSettings
from jadevectordb.gateway.access.operations import check
from jadevectordb.gateway.processes.followed import FollowedDatabases
from jadevectordb.gateway.processes.link import Link
from jadevectordb.gateway.processes.messages import Welcome
from jadevectordb.gateway.processes.reading import Credentials, ReadingApplication, ReadingServices
from jadevectordb.gateway.processes.reports import ReportedLogs, ReportedQueries, ReportedTelemetry, Reports
from jadevectordb.gateway.rest.routes import all_routes
from jadevectordb.gateway.service.logs import ServerLog, level_of
from jadevectordb.gateway.service.tracing import UNTRACED, AnyTracing, Tracing
from jadevectordb.listening import configuration, listen, loop_factory
from jadevectordb.node.follower import Follower
from jadevectordb.prepared_structs import prepare_structs

logger = logging.getLogger("jadevectordb.processes")


async def _serve(connection: socket.socket, page: SharedPage) -> None:
    link, welcome = await Link.connect(connection)
    settings, clock = welcome.settings, SystemClock()
    reports = Reports()
    log = ServerLog(level_of(settings.log.level), True, None, ReportedLogs(reports))
    data = Path(settings.server.data)
    followed = FollowedDatabases(
        page, lambda config, written: Follower(config, data / config.folder, LogFollower, written), clock, check
    )
    tracing = _tracing(welcome)
    application = ReadingApplication(
        ReadingServices(
            welcome.version,
            settings,
            clock,
            followed,
            ReportedTelemetry(reports, tracing, settings.log.slow_query_ms or None),
            ReportedQueries(reports, clock, lambda: secrets.token_hex(4)),
        ),
        all_routes(),
        link,
        Credentials(page, clock, secrets.token_bytes, is_open=settings.auth.is_open),
        reports,
        # What is counted for every request is counted in one place
        passes_all=bool(settings.limits.requests_per_s) or AccessSettings.of(settings).audit_searches,
    )
    link.reports = reports
    web = uvicorn.Server(configuration(settings, application))
    signal.signal(signal.SIGTERM, lambda *_: setattr(web, "should_exit", True))
    with log, contextlib.closing(listen(settings.server.host, welcome.port, shared=True)) as listener:
        followed.start()
        gc.collect()
        gc.freeze()
        running = asyncio.create_task(link.run(_end_at_once))
        serving = asyncio.create_task(web._serve([listener]))
        while not web.started and not serving.done():
            await asyncio.sleep(0.005)
        if not serving.done():
            link.listening()
        await serving
        running.cancel()
        application.close()
        followed.close()
        tracing.close()
    await link.close()


def _tracing(welcome: Welcome) -> AnyTracing:
    endpoint = welcome.settings.telemetry.otlp_endpoint
    return Tracing(*otlp.open_tracer(endpoint, version("jadevectordb"))) if endpoint else UNTRACED


def _end_at_once() -> None:
    """The writer is gone: nobody can say any more whether what is here is the newest."""
    os._exit(1)


def main() -> None:
    """Arguments: descriptors of the connection to the writer and of the two halves of the shared page."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # at a terminal it is the writer's to handle, which then ends this process
    prepare_structs()
    connection_fd, numbers_fd, text_fd = map(int, sys.argv[1:4])
    connection = socket.socket(fileno=connection_fd)
    connection.setblocking(False)
    page = SharedPage.attach(numbers_fd, text_fd)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(connection, page))


if __name__ == "__main__":
    main()
