"""A container registry that serves one image, as `docker build` makes it of envoy/Dockerfile. Whatever else is asked for is missing."""

import gzip
import hashlib
import http.server
import io
import json
import ssl
import tarfile
import threading

NAME = 'registry.example.com'

MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json'
CONFIG = 'application/vnd.docker.container.image.v1+json'
LAYER = 'application/vnd.docker.image.rootfs.diff.tar.gzip'


def start(module: str, address: str, certificate: str, key: str) -> None:
    server = http.server.ThreadingHTTPServer((address, 443), Registry)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    Registry.served = image(module)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def image(module: str) -> dict[str, tuple[str, bytes]]:
    """Media type and content of all that the image consists of, by the end of its path."""
    served: dict[str, tuple[str, bytes]] = {}

    def add(kind: str, media: str, data: bytes) -> dict[str, str | int]:
        digest = f'sha256:{hashlib.sha256(data).hexdigest()}'
        served[f'{kind}/{digest}'] = (media, data)
        return {'mediaType': media, 'size': len(data), 'digest': digest}

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode='w') as tar:
        tar.add(module, 'plugin.wasm')
    layers = [f'sha256:{hashlib.sha256(packed.getvalue()).hexdigest()}']
    config = {'architecture': 'amd64', 'os': 'linux', 'rootfs': {'type': 'layers', 'diff_ids': layers}}
    manifest = {
        'schemaVersion': 2,
        'mediaType': MANIFEST,
        'config': add('blobs', CONFIG, json.dumps(config).encode()),
        'layers': [add('blobs', LAYER, gzip.compress(packed.getvalue()))],
    }
    top = add('manifests', MANIFEST, json.dumps(manifest).encode())
    served['manifests/0.1.0'] = served[f'manifests/{top["digest"]}']
    return served


class Registry(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    served: dict[str, tuple[str, bytes]] = {}

    def do_GET(self) -> None:
        if self.path == '/v2/':
            return self.answer(200, 'application/json', b'{}')
        found = self.served.get(self.path.removeprefix('/v2/envoy-signalr/'))
        if found is None:
            errors = {'errors': [{'code': 'MANIFEST_UNKNOWN', 'message': 'manifest unknown'}]}
            return self.answer(404, 'application/json', json.dumps(errors).encode())
        self.answer(200, *found)

    do_HEAD = do_GET

    def answer(self, status: int, media: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header('Content-Type', media)
        self.send_header('Content-Length', str(len(data)))
        self.send_header('Docker-Content-Digest', f'sha256:{hashlib.sha256(data).hexdigest()}')
        self.end_headers()
        if self.command == 'GET':
            self.wfile.write(data)
