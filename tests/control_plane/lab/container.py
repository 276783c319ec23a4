"""What a pod's container is made of: its environment and its volumes."""

import base64
import json
import os
import re
from typing import Any

from api import ADDRESS, Api


# What pods that set no limits have of their node.
RESOURCES = {'limits.cpu': str(os.cpu_count()), 'limits.memory': str(1 << 30)}


class Unavailable(Exception):
    """Something that the pod names is not there, so it cannot start."""


class Container:
    """The first one of a pod, which is all that pods of the lab have."""

    def __init__(self, api: Api, pod: Any, address: str) -> None:
        self.api, self.pod, self.address = api, pod, address
        self.spec = pod['spec']['containers'][0]
        self.namespace, self.name = pod['metadata']['namespace'], pod['metadata']['name']

    def environment(self) -> dict[str, str]:
        found = {'KUBERNETES_SERVICE_HOST': ADDRESS, 'KUBERNETES_SERVICE_PORT': '6443', 'HOSTNAME': self.name}
        for variable in self.spec.get('env', []):
            source = variable.get('valueFrom')
            if source is None:
                found[variable['name']] = expanded(variable.get('value', ''), found)
            elif 'secretKeyRef' in source:
                reference = source['secretKeyRef']
                data = self.data('secrets', reference['name'], reference.get('optional', False))
                if reference['key'] in data:
                    found[variable['name']] = data[reference['key']].decode()
                elif not reference.get('optional'):
                    raise Unavailable(f'secret {reference["name"]} has no key {reference["key"]}')
            else:
                found[variable['name']] = self.reference(source)
        return found

    def reference(self, source: Any) -> str:
        if 'fieldRef' in source:
            return self.field(source['fieldRef']['fieldPath'])
        return RESOURCES[source['resourceFieldRef']['resource']]

    def field(self, path: str) -> str:
        if path == 'status.podIP':
            return self.address
        if path == 'status.hostIP':
            return ADDRESS
        key = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
        if key:
            return self.pod['metadata'].get(key[1], {}).get(key[2], '')
        value = self.pod
        for part in path.split('.'):
            value = value.get(part, {})
        if isinstance(value, dict):
            return '\n'.join(f'{name}={json.dumps(entry)}' for name, entry in value.items())
        return value

    def data(self, kind: str, name: str, optional: bool) -> dict[str, bytes]:
        found = self.api.find(f'/api/v1/namespaces/{self.namespace}/{kind}/{name}')
        if found is None and not optional:
            raise Unavailable(f'{kind} {name} is missing')
        data = (found or {}).get('data', {})
        return {key: base64.b64decode(text) if kind == 'secrets' else text.encode() for key, text in data.items()}

    def mounts(self, folder: str) -> list[tuple[str, str]]:
        """Fills the volumes and returns pairs of a folder here and its place in the container."""
        volumes = {volume['name']: volume for volume in self.pod['spec'].get('volumes', [])}
        mounts = []
        for mount in self.spec.get('volumeMounts', []):
            place = f'{folder}/{mount["name"]}'
            os.makedirs(place, exist_ok=True)
            volume = volumes[mount['name']]
            for source in volume['projected']['sources'] if 'projected' in volume else [volume]:
                for path, data in self.files(source).items():
                    with open(f'{place}/{path}', 'wb') as file:
                        file.write(data)
            mounts.append((place, mount['mountPath']))
        return mounts

    def files(self, source: Any) -> dict[str, bytes]:
        if 'serviceAccountToken' in source:
            token = source['serviceAccountToken']
            return {token['path']: self.token(token).encode()}
        if 'downwardAPI' in source:
            return {item['path']: self.reference(item).encode() for item in source['downwardAPI']['items']}
        for kind, field in (('configmaps', 'configMap'), ('secrets', 'secret')):
            if field in source:
                wanted = source[field]
                data = self.data(kind, wanted.get('name') or wanted['secretName'], wanted.get('optional', False))
                return {item['path']: data[item['key']] for item in wanted['items']} if 'items' in wanted else data
        return {}

    def token(self, wanted: Any) -> str:
        """For the account of the pod, as istiod and the API server check it."""
        account = self.pod['spec']['serviceAccountName']
        bound = {'kind': 'Pod', 'apiVersion': 'v1', 'name': self.name, 'uid': self.pod['metadata']['uid']}
        audiences = [wanted['audience']] if 'audience' in wanted else None
        spec = {'expirationSeconds': wanted['expirationSeconds'], 'audiences': audiences, 'boundObjectRef': bound}
        path = f'/api/v1/namespaces/{self.namespace}/serviceaccounts/{account}/token'
        return self.api.call('POST', path, {'spec': spec})['status']['token']


def expanded(text: str, environment: dict[str, str]) -> str:
    return re.sub(r'\$\((\w+)\)', lambda name: environment.get(name[1], name[0]), text)
