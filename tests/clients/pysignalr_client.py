"""Drives pysignalr: python3 pysignalr_client.py '{"url": "http://127.0.0.1:8080", "hub": "/chat", ...}'

The options are those of `Task` in tests/testbed/src/clients/task.rs; one JSON report goes to stdout.
"""

import asyncio
import json
import logging
import sys
import time
from typing import Any

from pysignalr.client import SignalRClient
from pysignalr.transport import websocket

# Refusals are reported as tries; the library's own account of them would only fill the log.
logging.disable(logging.CRITICAL)


class WatchedSession(websocket.ClientSession):
    """Reports which pod answered the negotiate request; pysignalr itself is left as it is."""

    seen_by_url: dict[str, dict[str, Any]] = {}

    async def _request(self, method: str, url: Any, **options: Any) -> Any:
        response = await super()._request(method, url, **options)
        seen = self.seen_by_url.get(asyncio.current_task().get_name())
        if seen is not None and str(url).split('?')[0].endswith('/negotiate'):
            seen['negotiatedPod'] = response.headers.get('x-pod')
        return response


websocket.ClientSession = WatchedSession


def connection_id(client: SignalRClient) -> str | None:
    """pysignalr keeps the id only in the URL that it connects to."""
    url = client._transport._url
    return url.split('id=')[1].split('&')[0] if 'id=' in url else None


async def invoke(client: SignalRClient, method: str, arguments: list[Any]) -> Any:
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def done(message: Any) -> None:
        if not answer.done():
            answer.set_result(message)

    await client.send(method, arguments, done)
    message = await answer
    if getattr(message, 'error', None):
        raise RuntimeError(message.error)
    return message.result


async def prove(client: SignalRClient, seen: dict[str, Any], opened: asyncio.Event) -> None:
    await opened.wait()
    seen['connectionId'] = connection_id(client)
    me = await invoke(client, 'WhoAmI', [])
    seen['answeredPod'], seen['transport'] = me['pod'], me['transport']
    text = f'hello {time.monotonic_ns()} äöü'
    echo = await invoke(client, 'Echo', [text])
    if echo != text:
        raise RuntimeError(f'the echo of "{text}" is "{echo}"')
    if me['pod'] != seen['negotiatedPod']:
        raise RuntimeError(f'{seen["negotiatedPod"]} negotiated, {me["pod"]} answered')


async def attempt(options: dict[str, Any], number: int) -> dict[str, Any]:
    names = ('negotiatedPod', 'answeredPod', 'connectionId', 'transport', 'error', 'cut')
    seen: dict[str, Any] = {'ok': False, **dict.fromkeys(names)}
    client = SignalRClient(options['url'] + options['hub'], retry_count=1, retry_sleep=0)
    opened = asyncio.Event()

    async def open_() -> None:
        opened.set()

    client.on_open(open_)
    began = time.monotonic()
    task_name = f'connection-{number}'
    WatchedSession.seen_by_url[task_name] = seen
    running = asyncio.create_task(client.run(), name=task_name)
    proof = asyncio.create_task(prove(client, seen, opened))
    timeout = options.get('tryMs', 10000) / 1000
    await asyncio.wait({running, proof}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    ended = next((task for task in (proof, running) if task.done()), None)
    if ended is None:
        seen['error'] = f'no answer within {timeout} s'
    elif ended.exception() is not None:
        seen['error'] = repr(ended.exception())
    elif ended is proof:
        seen['ok'] = True
    else:
        seen['error'] = 'the client ended by itself'
    seen['milliseconds'] = round((time.monotonic() - began) * 1000)
    if seen['ok'] and options.get('holdMs'):
        await asyncio.wait({running}, timeout=options['holdMs'] / 1000)
        if running.done():
            seen['cut'] = repr(running.exception())
    for task in (proof, running):
        task.cancel()
    await asyncio.gather(proof, running, return_exceptions=True)
    if client._transport._ws is not None:
        await client._transport._ws.close()
    return seen


async def main() -> None:
    options = json.loads(sys.argv[1])
    turns = asyncio.Semaphore(options.get('parallel', 10))

    async def one(number: int) -> dict[str, Any]:
        async with turns:
            return await attempt(options, number)

    tries = await asyncio.gather(*(one(number) for number in range(options.get('connects', 20))))
    connected = sum(seen['ok'] for seen in tries)
    print(json.dumps({'tried': len(tries), 'connected': connected, 'tries': tries}))


asyncio.run(main())
