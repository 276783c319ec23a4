"""Drives signalrcore: python3 signalrcore_client.py '{"url": "http://127.0.0.1:8080", "hub": "/chat", ...}'

The options are those of `Task` in tests/testbed/src/clients/task.rs; one JSON report goes to stdout.
"""

import json
import logging
import socket
import sys
import threading
import time
import urllib.request
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

from signalrcore.hub_connection_builder import HubConnectionBuilder
from signalrcore.protocol.json_hub_protocol import JsonHubProtocol

# Refusals are reported as tries; the library's own account of them would only fill the log.
logging.disable(logging.CRITICAL)

# The try that the current thread negotiates for: signalrcore does that on the thread that calls `start`.
current = threading.local()
real_urlopen = urllib.request.urlopen


def watched_urlopen(request: Any, **options: Any) -> Any:
    """Notes which pod answered the negotiate request; signalrcore itself is left as it is."""
    response = real_urlopen(request, **options)
    if urlsplit(request.full_url).path.endswith('/negotiate'):
        current.seen['negotiatedPod'] = response.headers.get('x-pod')
    return response


urllib.request.urlopen = watched_urlopen


class Connection:
    def __init__(self, options: dict[str, Any]) -> None:
        self.timeout = options.get('tryMs', 10000) / 1000
        builder = HubConnectionBuilder().with_url(options['url'] + options['hub'], options={})
        # By itself signalrcore asks for version 0 of the protocol, which .NET Core 3.1 refuses.
        self.hub = builder.with_hub_protocol(JsonHubProtocol(version=1)).build()
        self.opened: Future[None] = Future()
        self.closed = threading.Event()
        self.hub.on_open(lambda: self.opened.set_result(None))
        self.hub.on_close(self.closed.set)

    def invoke(self, method: str, arguments: list[Any]) -> Any:
        answer: Future[Any] = Future()
        self.hub.invoke(method, arguments, answer.set_result)
        return answer.result(self.timeout).result

    def prove(self, seen: dict[str, Any]) -> None:
        self.hub.start()
        self.opened.result(self.timeout)
        seen['connectionId'] = parse_qs(urlsplit(self.hub.url).query)['id'][0]
        me = self.invoke('WhoAmI', [])
        seen['answeredPod'], seen['transport'] = me['pod'], me['transport']
        text = f'hello {time.monotonic_ns()} äöü'
        echo = self.invoke('Echo', [text])
        if echo != text:
            raise RuntimeError(f'the echo of "{text}" is "{echo}"')
        if me['pod'] != seen['negotiatedPod']:
            raise RuntimeError(f'{seen["negotiatedPod"]} negotiated, {me["pod"]} answered')

    def stop(self) -> None:
        """Not by the library's `stop`: that closes the socket while another thread reads it. That thread then waits for the
        hub's next ping, or reads from the next connection that is given the same descriptor."""
        client = self.hub.transport and self.hub.transport._client
        if client and client.recv_thread:
            try:
                client.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other side was faster
            client.recv_thread.join()
            client.sock.close()


def attempt(options: dict[str, Any]) -> dict[str, Any]:
    names = ('negotiatedPod', 'answeredPod', 'connectionId', 'transport', 'error', 'cut')
    seen: dict[str, Any] = {'ok': False, **dict.fromkeys(names)}
    current.seen = seen
    connection = Connection(options)
    began = time.monotonic()
    try:
        connection.prove(seen)
        seen['ok'] = True
    except Exception as error:  # whatever the library raises is the outcome of this try
        seen['error'] = repr(error)
    seen['milliseconds'] = round((time.monotonic() - began) * 1000)
    if seen['ok'] and connection.closed.wait(options.get('holdMs', 0) / 1000):
        seen['cut'] = 'closed by the other side'
    connection.stop()
    return seen


def main() -> None:
    options = json.loads(sys.argv[1])
    # signalrcore waits for its sockets without end.
    socket.setdefaulttimeout(options.get('tryMs', 10000) / 1000)
    with ThreadPoolExecutor(options.get('parallel', 10)) as workers:
        tries = list(workers.map(lambda _: attempt(options), range(options.get('connects', 20))))
    connected = sum(seen['ok'] for seen in tries)
    print(json.dumps({'tried': len(tries), 'connected': connected, 'tries': tries}))


main()
