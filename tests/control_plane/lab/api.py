"""The lab's API server, called as its administrator."""

import json
import ssl
import urllib.error
import urllib.request
from typing import Any

ADDRESS = '10.77.0.1'
PORT = 6443
TOKEN = 'administrator-of-the-lab'

MERGE_PATCH = 'application/merge-patch+json'


class Api:
    def __init__(self, certificate: str) -> None:
        self.context = ssl.create_default_context(cafile=certificate)

    def call(self, method: str, path: str, body: Any = None, kind: str = 'application/json') -> Any:
        """Returns the answer; raises HTTPError if the server refuses."""
        headers = {'Authorization': f'Bearer {TOKEN}', 'Content-Type': kind}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f'https://{ADDRESS}:{PORT}{path}', data, headers, method=method)
        with urllib.request.urlopen(request, context=self.context, timeout=60) as answer:
            return json.load(answer)

    def find(self, path: str) -> Any:
        """Returns an object, or None if there is none."""
        try:
            return self.call('GET', path)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return None

    def list(self, path: str) -> list[Any]:
        return self.call('GET', path)['items']

    def is_ready(self) -> bool:
        request = urllib.request.Request(f'https://{ADDRESS}:{PORT}/readyz', headers={'Authorization': f'Bearer {TOKEN}'})
        try:
            with urllib.request.urlopen(request, context=self.context, timeout=60):
                return True
        except OSError:
            return False
