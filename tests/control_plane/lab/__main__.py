"""A Kubernetes cluster on this machine, in namespaces of its own: python3 -B lab '{"folder": "...", ...}'

etcd, kube-apiserver and the programs in the pods are real. The controllers (controllers.py), the kubelet (kubelet.py) and the
registry (registry.py) are stand-ins: they know as much as istiod, a gateway and the hubs need. The options are those of `start`
in tests/control_plane/lab.rs, which starts this under `unshare`: mounts, addresses and processes end with it.
"""

import json
import os
import subprocess
import sys
import time
from typing import Any

import controllers
import kubelet
import registry
from api import ADDRESS, PORT, TOKEN, Api

# Folders that pods write to, and that images bring files for.
OVERLAID = ('/etc', '/usr/local/bin', '/var/lib')

ETCD = 'http://127.0.0.1:2379'


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def prepare_machine(files: dict[str, str]) -> None:
    """Gives the lab a view of the file system that it may change, and a network without a way out."""
    run('mount', '-t', 'tmpfs', 'tmpfs', '/run')
    for folder in OVERLAID:
        upper, work = f'/run/upper{folder}', f'/run/work{folder}'
        os.makedirs(upper)
        os.makedirs(work)
        run('mount', '-t', 'overlay', '-o', f'lowerdir={folder},upperdir={upper},workdir={work}', 'overlay', folder)
    for inside, outside in files.items():
        os.makedirs(os.path.dirname(inside), exist_ok=True)
        if os.path.lexists(inside):
            os.remove(inside)
        os.symlink(outside, inside)
    run('ip', 'link', 'set', 'lo', 'up')
    run('ip', 'link', 'add', 'pods', 'type', 'bridge')
    run('ip', 'addr', 'add', f'{ADDRESS}/24', 'dev', 'pods')
    run('ip', 'link', 'set', 'pods', 'up')


def make_certificate(certificate: str, key: str) -> None:
    """One key for the API server, its tokens and the registry."""
    names = f'IP:{ADDRESS},IP:127.0.0.1,DNS:kubernetes.default.svc,DNS:{registry.NAME}'
    run('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '30',
        '-subj', '/CN=lab', '-addext', f'subjectAltName={names}', '-keyout', key, '-out', certificate)


def start(folder: str, name: str, command: list[str]) -> subprocess.Popen[bytes]:
    with open(f'{folder}/{name}.log', 'wb') as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def start_api_server(options: dict[str, Any], folder: str, certificate: str, key: str) -> list[subprocess.Popen[bytes]]:
    with open(f'{folder}/tokens.csv', 'w') as tokens:
        tokens.write(f'{TOKEN},administrator,administrator,system:masters\n')
    etcd = start(folder, 'etcd', [
        options['etcd'], '--data-dir', f'{folder}/etcd', '--unsafe-no-fsync',
        '--listen-client-urls', ETCD, '--advertise-client-urls', ETCD, '--listen-peer-urls', 'http://127.0.0.1:2380',
    ])
    server = start(folder, 'kube-apiserver', [
        options['apiServer'], '--etcd-servers', ETCD, '--bind-address', ADDRESS, '--secure-port', str(PORT),
        '--tls-cert-file', certificate, '--tls-private-key-file', key, '--cert-dir', folder,
        '--token-auth-file', f'{folder}/tokens.csv', '--authorization-mode', 'RBAC', '--allow-privileged',
        '--service-account-issuer', 'https://kubernetes.default.svc', '--service-account-key-file', certificate,
        '--service-account-signing-key-file', key, '--service-cluster-ip-range', '10.96.0.0/16',
        # Webhooks are called at their pods, because nothing here serves the addresses of services.
        '--enable-aggregator-routing',
    ])
    return [etcd, server]


def main() -> None:
    options = json.loads(sys.argv[1])
    folder = options['folder']
    certificate, key = f'{folder}/certificate', f'{folder}/key'
    prepare_machine(options['files'])
    make_certificate(certificate, key)
    servers = start_api_server(options, folder, certificate, key)
    api = Api(certificate)
    while not api.is_ready():
        time.sleep(0.2)
        if any(server.poll() is not None for server in servers):
            sys.exit(f'a server has ended: see the logs in {folder}')
    controllers.start(api, certificate)
    kubelet.start(api, folder, options['images'])
    registry.start(options['module'], ADDRESS, certificate, key)
    print('ready', flush=True)
    servers[-1].wait()


main()
