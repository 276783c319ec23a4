"""What istiod, a gateway and hubs need of kube-controller-manager: a namespace gets an account and the certificate, a Deployment
becomes pods, and a Service becomes an EndpointSlice. It serves the names of services as well: there is no DNS.
"""

import copy
import hashlib
import json
import os
import threading
import time
import urllib.error
from typing import Any

import registry
from api import ADDRESS, MERGE_PATCH, Api

PAUSE = 0.5
DEPLOYMENT = 'lab/deployment'


def start(api: Api, certificate: str) -> None:
    with open(certificate) as file:
        trusted = file.read()
    threading.Thread(target=work, args=(api, trusted), daemon=True).start()


def work(api: Api, trusted: str) -> None:
    while True:
        try:
            for namespace in api.list('/api/v1/namespaces'):
                furnish(api, namespace['metadata']['name'], trusted)
            pods = api.list('/api/v1/pods')
            for deployment in api.list('/apis/apps/v1/deployments'):
                deploy(api, deployment, pods)
            hosts = {'localhost': '127.0.0.1', registry.NAME: ADDRESS}
            for service in api.list('/api/v1/services'):
                if service['spec'].get('selector'):
                    publish(api, service, pods, hosts)
            write_hosts(hosts)
        except urllib.error.HTTPError as error:
            print('controllers:', error.url, error, error.read().decode()[:400], flush=True)
        except OSError as error:
            print('controllers:', error, flush=True)
        time.sleep(PAUSE)


def furnish(api: Api, namespace: str, trusted: str) -> None:
    objects = {
        'serviceaccounts': {'metadata': {'name': 'default'}},
        'configmaps': {'metadata': {'name': 'kube-root-ca.crt'}, 'data': {'ca.crt': trusted}},
    }
    for kind, wanted in objects.items():
        path = f'/api/v1/namespaces/{namespace}/{kind}'
        if api.find(f'{path}/{wanted["metadata"]["name"]}') is None:
            api.call('POST', path, wanted)


def deploy(api: Api, deployment: Any, pods: list[Any]) -> None:
    """Rolling: new pods first, and the old ones go when all new ones are ready."""
    meta, spec = deployment['metadata'], deployment['spec']
    version = hashlib.sha256(json.dumps(spec['template'], sort_keys=True).encode()).hexdigest()[:9]
    own = [pod for pod in pods if pod['metadata']['namespace'] == meta['namespace'] and not is_leaving(pod)
           and labels(pod).get(DEPLOYMENT) == meta['name']]
    fresh = [pod for pod in own if labels(pod)['pod-template-hash'] == version]
    wanted = spec['replicas']
    for _ in range(wanted - len(fresh)):
        pod = copy.deepcopy(spec['template'])
        name = f'{meta["name"]}-{version}'
        owner = {'apiVersion': 'apps/v1', 'kind': 'ReplicaSet', 'name': name, 'uid': meta['uid'], 'controller': True}
        pod['metadata'] |= {'generateName': f'{name}-', 'ownerReferences': [owner]}
        pod['metadata']['labels'] |= {'pod-template-hash': version, DEPLOYMENT: meta['name']}
        api.call('POST', f'/api/v1/namespaces/{meta["namespace"]}/pods', pod)
    surplus = fresh[wanted:]
    if sum(map(is_ready, fresh)) >= wanted:
        surplus += [pod for pod in own if pod not in fresh]
    for pod in surplus:
        api.call('DELETE', f'/api/v1/namespaces/{meta["namespace"]}/pods/{pod["metadata"]["name"]}')
    ready = sum(map(is_ready, own))
    status = {
        'observedGeneration': meta['generation'], 'replicas': len(own), 'updatedReplicas': len(fresh),
        'readyReplicas': ready, 'availableReplicas': ready, 'unavailableReplicas': max(0, wanted - ready),
    }
    if any(deployment['status'].get(field, 0) != value for field, value in status.items()):
        path = f'/apis/apps/v1/namespaces/{meta["namespace"]}/deployments/{meta["name"]}/status'
        api.call('PATCH', path, {'status': status}, MERGE_PATCH)


def publish(api: Api, service: Any, pods: list[Any], hosts: dict[str, str]) -> None:
    meta, spec = service['metadata'], service['spec']
    own = [pod for pod in pods if pod['metadata']['namespace'] == meta['namespace'] and 'podIP' in pod.get('status', {})
           and spec['selector'].items() <= labels(pod).items()]
    endpoints = sorted(map(endpoint, own), key=lambda one: one['addresses'])
    ports = [{'name': port.get('name', ''), 'port': target(port, own), 'protocol': 'TCP'} for port in spec['ports']] if own else []
    path = f'/apis/discovery.k8s.io/v1/namespaces/{meta["namespace"]}/endpointslices'
    known = api.find(f'{path}/{meta["name"]}')
    if known is None:
        controller = 'endpointslice-controller.k8s.io'
        marks = {'kubernetes.io/service-name': meta['name'], 'endpointslice.kubernetes.io/managed-by': controller}
        api.call('POST', path, {'metadata': {'name': meta['name'], 'labels': marks}, 'addressType': 'IPv4',
                                'endpoints': endpoints, 'ports': ports})
    elif (known.get('endpoints') or []) != endpoints or (known.get('ports') or []) != ports:
        api.call('PUT', f'{path}/{meta["name"]}', known | {'endpoints': endpoints, 'ports': ports})
    ready = [one for one in endpoints if one['conditions']['ready']]
    if ready:
        names = [f'{meta["name"]}.{meta["namespace"]}.svc{domain}' for domain in ('', '.cluster.local')]
        hosts |= dict.fromkeys(names, ready[0]['addresses'][0])


def endpoint(pod: Any) -> dict[str, Any]:
    meta, leaving, ready = pod['metadata'], is_leaving(pod), is_ready(pod)
    return {
        'addresses': [pod['status']['podIP']], 'nodeName': pod['spec']['nodeName'],
        'conditions': {'ready': ready and not leaving, 'serving': ready, 'terminating': leaving},
        'targetRef': {'kind': 'Pod', 'name': meta['name'], 'namespace': meta['namespace'], 'uid': meta['uid']},
    }


def target(port: Any, pods: list[Any]) -> int:
    wanted = port.get('targetPort', port['port'])
    if isinstance(wanted, int):
        return wanted
    named = pods[0]['spec']['containers'][0]['ports']
    return next(one['containerPort'] for one in named if one.get('name') == wanted)


def write_hosts(hosts: dict[str, str]) -> None:
    text = ''.join(f'{address} {host}\n' for host, address in hosts.items())
    with open('/etc/hosts') as known:
        if known.read() == text:
            return
    with open('/etc/hosts.next', 'w') as fresh:
        fresh.write(text)
    os.replace('/etc/hosts.next', '/etc/hosts')


def labels(pod: Any) -> dict[str, str]:
    return pod['metadata'].get('labels', {})


def is_leaving(pod: Any) -> bool:
    return 'deletionTimestamp' in pod['metadata']


def is_ready(pod: Any) -> bool:
    conditions = pod.get('status', {}).get('conditions', [])
    return any(one['type'] == 'Ready' and one['status'] == 'True' for one in conditions)
