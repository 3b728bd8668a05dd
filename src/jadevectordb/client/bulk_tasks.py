"""Running a bulk upsert on an event loop: batches sent by tasks, rows from an ordinary or an asynchronous source."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator

from jadevectordb.client.bulk import Batch, RowLike, Upload
from jadevectordb.model.errors import JadeError


class Feed:
    """An asynchronous source of rows, read ahead a little, as the ordinary iterator that an `Upload` reads."""

    def __init__(self, rows: AsyncIterable[RowLike]) -> None:
        self._source = rows.__aiter__()
        self._ready: deque[RowLike] = deque()

    async def fill(self, count: int) -> None:
        """Read until so many rows are ready, or the source ends."""
        while len(self._ready) < count:
            try:
                self._ready.append(await self._source.__anext__())
            except StopAsyncIteration:
                return

    def __iter__(self) -> Iterator[RowLike]:
        return self

    def __next__(self) -> RowLike:
        if not self._ready:
            raise StopIteration
        return self._ready.popleft()


async def run_in_tasks(
    upload: Upload, upsert: Callable[..., Awaitable[object]], parallel: int, feed: Feed | None = None
) -> None:
    """`run_in_threads` for an event loop. feed: the upload's source, where that is asynchronous."""
    on_way: dict[asyncio.Future[object], Batch] = {}

    async def settle(has_room: Callable[[], bool]) -> None:
        while on_way and not has_room():
            for future in (await asyncio.wait(on_way, return_when=asyncio.FIRST_COMPLETED))[0]:
                batch = on_way.pop(future)
                future.result()
                upload.acknowledged(batch)

    try:
        while upload.to_skip:
            count = min(upload.to_skip, upload.state.batch_rows)
            if feed is not None:
                await feed.fill(count)
            upload.skip(count)
        while True:
            if feed is not None:
                await feed.fill(upload.state.batch_rows)
            batch = upload.batch()
            if batch is None:
                break
            following = batch
            await settle(lambda: len(on_way) < parallel and not upload.must_wait(following))  # noqa: B023 - called at once
            upload.sent(batch)
            sending = upsert(batch.ids, batch.vectors, batch.metadata, request_id=batch.request_id)
            on_way[asyncio.ensure_future(sending)] = batch
        await settle(lambda: False)
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError):
            for future in on_way:
                future.cancel()
        await asyncio.gather(*on_way, return_exceptions=True)
        for future, batch in on_way.items():
            if not future.cancelled() and future.exception() is None:
                upload.acknowledged(batch)
        if isinstance(error, JadeError):
            raise upload.failed(error) from error
        raise
    upload.finish()
