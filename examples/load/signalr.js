// A load of SignalR connections, by k6: each virtual user negotiates, opens a WebSocket, and calls the hub until its time is over.
//
//   k6 run -e URL=http://localhost:8080 -e CONNECTIONS=200 signalr.js
//
// README.md beside this file has the variables and what the metrics say.
import http from 'k6/http';
import { Counter, Rate, Trend } from 'k6/metrics';
import { WebSocket } from 'k6/websockets';

const url = __ENV.URL || 'http://localhost:8080';
const hub = __ENV.HUB || '/chat';
const method = __ENV.METHOD || 'Echo';
const connections = Number(__ENV.CONNECTIONS || 100);
const ramp = Number(__ENV.RAMP_SECONDS || 10);
const hold = Number(__ENV.HOLD_SECONDS || 60);
const pause = Number(__ENV.PAUSE_SECONDS || 1);
const headers = __ENV.TOKEN ? { Authorization: `Bearer ${__ENV.TOKEN}` } : {};

export const options = {
  scenarios: {
    connections: {
      executor: 'ramping-vus',
      startVUs: 0,
      stages: [
        { duration: `${ramp}s`, target: connections },
        { duration: `${hold}s`, target: connections },
      ],
      // A connection that is open at the end may end by itself.
      gracefulStop: `${hold + 5}s`,
      gracefulRampDown: `${hold + 5}s`,
    },
  },
  thresholds: {
    signalr_connected: ['rate==1'],
    signalr_lost: ['count==0'],
  },
};

const connected = new Rate('signalr_connected');
const lost = new Counter('signalr_lost');
const connectTime = new Trend('signalr_connect_time', true);
const roundTrip = new Trend('signalr_round_trip', true);

// Each message of SignalR's JSON protocol ends with this character.
const END = '\x1e';
const record = (message) => JSON.stringify(message) + END;

export default async function () {
  const started = Date.now();
  const response = await http.asyncRequest('POST', `${url}${hub}/negotiate?negotiateVersion=1`, null, { headers });
  const negotiated = response.status === 200 ? response.json() : {};
  if (!negotiated.connectionToken) {
    connected.add(false);
    console.error(`negotiate: status ${response.status} ${negotiated.error || ''}`);
    return;
  }
  const id = encodeURIComponent(negotiated.connectionToken);
  await talk(`${url.replace(/^http/, 'ws')}${hub}?id=${id}`, started);
}

// Resolves when the connection has ended.
function talk(target, started) {
  return new Promise((ended) => {
    const socket = new WebSocket(target, null, { headers });
    let open = false;
    let over = false;
    let sent = 0;
    let timer;
    const call = () => {
      sent = Date.now();
      socket.send(record({ type: 1, invocationId: '1', target: method, arguments: ['load'] }));
    };
    const receive = (message) => {
      if (!open) {
        // The answer to the handshake has no type: an object without an error is a yes.
        open = message.error === undefined;
        connected.add(open);
        if (!open) {
          console.error(`handshake: ${message.error}`);
          socket.close();
          return;
        }
        connectTime.add(Date.now() - started);
        call();
        setTimeout(() => {
          over = true;
          clearTimeout(timer);
          socket.close();
        }, hold * 1000);
      } else if (message.type === 3) {
        roundTrip.add(Date.now() - sent);
        timer = setTimeout(call, pause * 1000);
      }
    };
    socket.addEventListener('open', () => socket.send(record({ protocol: 'json', version: 1 })));
    socket.addEventListener('message', ({ data }) => data.split(END).filter(Boolean).forEach((text) => receive(JSON.parse(text))));
    socket.addEventListener('error', ({ error }) => console.error(`WebSocket: ${error}`));
    socket.addEventListener('close', () => {
      clearTimeout(timer);
      if (!open) connected.add(false);
      else if (!over) lost.add(1);
      ended();
    });
  });
}
