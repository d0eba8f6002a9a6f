// Soak: a constant, moderate load for a long time. What it looks for is drift: memory, gauges, round trips that grow.
//
// One VU is one pair of devices; every second pair has a resumable receiver that acks, so that the durable queue works too.
// Each pair sends RATE messages a second and reconnects after SESSION. With HEALTH_URL the server's own books are read
// every 5 s, stand in the summary and in the HTML report, and must balance: accepted = delivered + expired + queued +
// in_flight. Exit 99 if a threshold fails.
//
// The server needs raised limits, since all of k6's connections come from one address:
//
//   SEALPOST__RATE_LIMIT__MESSAGES_PER_MINUTE=1000000 SEALPOST__RATE_LIMIT__BURST=1000000 SEALPOST__LIMITS__EXEMPT_CIDRS=127.0.0.0/8
//
// Environment: WS_URL, VUS (pairs, 50), DURATION (30m), PAYLOAD_BYTES (256), RATE (messages a second for a pair, 5), SESSION (2m),
// TIMEOUT_MS (5000), RTT_P95_MS (50), HEALTH_URL (none; the server's default is http://127.0.0.1:9090/healthz).
//
//   DURATION=2h HEALTH_URL=http://127.0.0.1:9090/healthz scripts/k6/run soak

import http from 'k6/http';
import { Counter, Gauge, Rate } from 'k6/metrics';
import { Device, VUS, complain, converse, delivered, milliseconds, number, pause, show } from './lib.js';

const DURATION = __ENV.DURATION || '30m';
const RATE = number('RATE', 5);
const SESSION_MS = Math.min(milliseconds(__ENV.SESSION || '2m'), milliseconds(DURATION));
const HEALTH_URL = __ENV.HEALTH_URL || '';

const failedConnections = new Counter('failed_connections');
const failedResumes = new Counter('failed_resumes');

const booksBalance = new Rate('books_balance');
// What the server says of itself, by its own names.
const gauges = {};
for (const name of ['connections', 'devices', 'queued', 'queued_bytes', 'in_flight']) gauges[name] = new Gauge(`server_${name}`);

const scenarios = {
  pairs: {
    executor: 'constant-vus',
    vus: VUS,
    duration: DURATION,
    gracefulStop: `${SESSION_MS + 15000}ms`,
  },
};
if (HEALTH_URL) {
  scenarios.watch = { executor: 'constant-vus', vus: 1, duration: DURATION, exec: 'watch', gracefulStop: '20s' };
}

export const options = {
  scenarios,
  thresholds: Object.assign(
    {
      delivered: ['rate>0.9999'],
      relay_rtt: [`p(95)<${number('RTT_P95_MS', 50)}`],
      failed_connections: ['count==0'],
      failed_resumes: ['count==0'],
      rate_limited: [{ threshold: 'count==0', abortOnFail: true }],
    },
    HEALTH_URL ? { books_balance: ['rate==1'] } : {},
  ),
  summaryTrendStats: ['min', 'med', 'avg', 'p(95)', 'p(99)', 'max'],
};

let token = null; // of this VU's resumable receiver

export default async function () {
  const resumable = __VU % 2 === 0;
  let sender;
  let receiver;
  try {
    sender = await Device.register(`sender ${__VU}`);
    if (resumable) {
      receiver = await Device.register(`receiver ${__VU}`, token ? { resume_token: token } : { resumable: true });
      if (token && !receiver.response.payload.resumed) failedResumes.add(1);
      token = receiver.token;
    } else {
      receiver = await Device.register(`receiver ${__VU}`);
    }
    await converse(sender, receiver, { ms: SESSION_MS, everyMs: 1000 / Math.max(1, RATE), confirm: resumable });
  } catch (problem) {
    complain(problem.message);
    failedConnections.add(1);
    delivered.add(false);
    await pause(1000);
  } finally {
    if (sender) await sender.leave();
    if (receiver) await receiver.leave();
  }
}

export async function watch() {
  const answer = http.get(HEALTH_URL, { tags: { name: 'health' } });
  if (answer.status === 200) {
    const books = answer.json();
    for (const name in gauges) gauges[name].add(books[name]);
    const balance = books.accepted === books.delivered + books.expired + books.queued + books.in_flight;
    booksBalance.add(balance);
    if (!balance) complain(`the server's books do not balance: ${show(books)}`);
  } else {
    booksBalance.add(false);
    complain(`${HEALTH_URL} answers ${answer.status} ${answer.error}`);
  }
  await pause(5000);
}
