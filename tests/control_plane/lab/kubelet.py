"""What istiod, a gateway and hubs need of a kubelet and a scheduler: pods as processes with a network and mounts of their own,
readiness probes, restarts, `preStop: sleep`, and ends with a grace period.
"""

import itertools
import json
import os
import subprocess
import threading
import time
import urllib.request
from typing import Any

from api import ADDRESS, MERGE_PATCH, Api
from container import Container, Unavailable, expanded

PAUSE = 0.5

# `ip netns exec` has given the process mounts of its own. Pods write to /run, and volumes lie there.
MOUNT_AND_RUN = """
set -e
mount -t tmpfs tmpfs /run
while [ "$1" != -- ]; do mkdir -p "$2"; mount --bind "$1" "$2"; shift 2; done
shift
exec "$@"
"""


def start(api: Api, folder: str, images: dict[str, Any]) -> None:
    api.call('POST', '/api/v1/nodes', {'metadata': {'name': 'lab'}})
    threading.Thread(target=schedule, args=(api, folder, images), daemon=True).start()


def schedule(api: Api, folder: str, images: dict[str, Any]) -> None:
    """Gives each new pod a thread. An address is used once."""
    known, numbers = set(), itertools.count(10)
    while True:
        try:
            for pod in api.list('/api/v1/pods'):
                if pod['metadata']['uid'] not in known:
                    known.add(pod['metadata']['uid'])
                    bind(api, pod)
                    life = Pod(api, pod, next(numbers), folder, images)
                    threading.Thread(target=life.live, daemon=True).start()
        except OSError as error:
            print('kubelet:', error, flush=True)
        time.sleep(PAUSE)


def bind(api: Api, pod: Any) -> None:
    path = f'/api/v1/namespaces/{pod["metadata"]["namespace"]}/pods/{pod["metadata"]["name"]}/binding'
    api.call('POST', path, {'metadata': {'name': pod['metadata']['name']}, 'target': {'kind': 'Node', 'name': 'lab'}})


class Pod:
    def __init__(self, api: Api, pod: Any, number: int, folder: str, images: dict[str, Any]) -> None:
        meta = pod['metadata']
        self.api, self.pod, self.images, self.name = api, pod, images, meta['name']
        self.path = f'/api/v1/namespaces/{meta["namespace"]}/pods/{self.name}'
        self.folder = f'{folder}/pods/{meta["namespace"]}.{self.name}'
        self.network, self.address = f'pod{number}', f'{ADDRESS.rpartition(".")[0]}.{number}'
        self.container = Container(api, pod, self.address)
        self.spec = self.container.spec
        self.process: subprocess.Popen[bytes] | None = None
        self.reported: Any = None
        self.restarts, self.grace = 0, pod['spec']['terminationGracePeriodSeconds']

    def live(self) -> None:
        os.makedirs(self.folder)
        self.connect()
        while self.is_there() and 'deletionTimestamp' not in self.pod['metadata']:
            try:
                self.tick()
            except OSError as error:
                print(f'{self.name}:', error, flush=True)
            time.sleep(PAUSE)
        self.end()

    def connect(self) -> None:
        for command in (
            f'netns add {self.network}',
            f'link add {self.network} type veth peer name eth0 netns {self.network}',
            f'link set {self.network} master pods up',
            f'-n {self.network} addr add {self.address}/24 dev eth0',
            f'-n {self.network} link set eth0 up',
            f'-n {self.network} link set lo up',
        ):
            subprocess.run(['ip', *command.split()], check=True)

    def is_there(self) -> bool:
        """Looks the pod up again."""
        try:
            self.pod = self.api.find(self.path)
        except OSError as error:
            print(f'{self.name}:', error, flush=True)
        return self.pod is not None

    def tick(self) -> None:
        if self.process is None or self.process.poll() is not None:
            if self.process is not None:
                self.restarts += 1
            try:
                self.process = self.launch()
                self.report(ready=False)
            except Unavailable as error:
                self.report(ready=False, reason=str(error))
        else:
            self.report(ready=self.probe())

    def launch(self) -> subprocess.Popen[bytes]:
        [image] = [image for name, image in self.images.items() if f'/{name}:' in self.spec['image']]
        environment = os.environ | image['env'] | self.container.environment()
        mounts = itertools.chain.from_iterable(self.container.mounts(f'{self.folder}/volumes'))
        program = [*image['argv'], *(expanded(argument, environment) for argument in self.spec.get('args', []))]
        command = ['ip', 'netns', 'exec', self.network, 'sh', '-c', MOUNT_AND_RUN, 'sh', *mounts, '--', *program]
        with open(f'{self.folder}/log', 'ab') as log:
            return subprocess.Popen(command, env=environment, cwd='/', stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def probe(self) -> bool:
        probe = self.spec['readinessProbe']['httpGet']
        try:
            with urllib.request.urlopen(f'http://{self.address}:{probe["port"]}{probe["path"]}', timeout=5):
                return True
        except OSError:
            return False

    def report(self, ready: bool, reason: str | None = None) -> None:
        if self.reported == (ready, reason, self.restarts):
            return
        now = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())
        state = {'waiting': {'reason': 'CreateContainerConfigError', 'message': reason}} if reason else {'running': {'startedAt': now}}
        status = {
            'phase': 'Pending' if reason else 'Running',
            'podIP': self.address, 'podIPs': [{'ip': self.address}], 'hostIP': ADDRESS, 'startTime': now,
            'conditions': [{'type': kind, 'status': str(ready), 'lastTransitionTime': now} for kind in ('Ready', 'ContainersReady')],
            'containerStatuses': [{'name': self.spec['name'], 'image': self.spec['image'], 'imageID': '', 'ready': ready,
                                   'restartCount': self.restarts, 'state': state}],
        }
        self.api.call('PATCH', f'{self.path}/status', {'status': status}, MERGE_PATCH)
        self.reported = (ready, reason, self.restarts)

    def end(self) -> None:
        if self.process is not None:
            started = time.monotonic()
            sleep = self.spec.get('lifecycle', {}).get('preStop', {}).get('sleep', {'seconds': 0})
            self.wait(started + sleep['seconds'])
            self.process.terminate()
            self.wait(started + self.grace)
            self.process.kill()
            self.process.wait()
        subprocess.run(['ip', 'netns', 'del', self.network], check=True)
        if self.pod is not None:
            options = {'gracePeriodSeconds': 0, 'preconditions': {'uid': self.pod['metadata']['uid']}}
            self.api.call('DELETE', self.path, options)

    def wait(self, deadline: float) -> None:
        """Waits for the end of the process, or until somebody has removed the pod by force."""
        while self.process.poll() is None and time.monotonic() < deadline and self.is_there():
            time.sleep(PAUSE)
