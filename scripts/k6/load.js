// Load: how long a message takes through the relay, and whether all of them arrive, while pairs of devices come and go.
//
// One VU is one pair: two plain devices, one of which sends to the other. VUS pairs are ramped up over the first third of
// DURATION, held, and ramped down over the last sixth. Exit 99 if a threshold fails.
//
// The server needs raised limits, since all of k6's connections come from one address and one device sends all it can:
//
//   SEALPOST__RATE_LIMIT__MESSAGES_PER_MINUTE=1000000 SEALPOST__RATE_LIMIT__BURST=1000000 SEALPOST__LIMITS__EXEMPT_CIDRS=127.0.0.0/8
//
// Environment: WS_URL, VUS (pairs, 50), DURATION (30s), PAYLOAD_BYTES (256), IN_FLIGHT (messages at a time for a pair, 1),
// SESSION (how long a pair stays connected, 10s), TIMEOUT_MS (5000), RTT_P95_MS (50), RTT_P99_MS (200).
//
//   VUS=100 DURATION=1m scripts/k6/run load

import { Counter } from 'k6/metrics';
import { Device, DURATION, VUS, complain, converse, delivered, milliseconds, number, pause } from './lib.js';

const IN_FLIGHT = number('IN_FLIGHT', 1);
const SESSION_MS = milliseconds(__ENV.SESSION || '10s');
const TOTAL_MS = milliseconds(DURATION);

const failedConnections = new Counter('failed_connections');

export const options = {
  scenarios: {
    pairs: {
      executor: 'ramping-vus',
      startVUs: 1,
      stages: [
        { duration: `${Math.round(TOTAL_MS / 3)}ms`, target: VUS },
        { duration: `${Math.round(TOTAL_MS / 2)}ms`, target: VUS },
        { duration: `${Math.round(TOTAL_MS / 6)}ms`, target: 0 },
      ],
      gracefulRampDown: `${SESSION_MS + 15000}ms`,
      gracefulStop: `${SESSION_MS + 15000}ms`,
    },
  },
  thresholds: {
    delivered: ['rate>0.9999'],
    relay_rtt: [`p(95)<${number('RTT_P95_MS', 50)}`, `p(99)<${number('RTT_P99_MS', 200)}`],
    relay_ack: [`p(95)<${number('RTT_P95_MS', 50)}`],
    failed_connections: ['count==0'],
    rate_limited: [{ threshold: 'count==0', abortOnFail: true }],
  },
  summaryTrendStats: ['min', 'med', 'avg', 'p(95)', 'p(99)', 'max'],
};

export default async function () {
  let sender;
  let receiver;
  try {
    sender = await Device.register(`sender ${__VU}`);
    receiver = await Device.register(`receiver ${__VU}`);
    await converse(sender, receiver, { ms: SESSION_MS, inFlight: IN_FLIGHT });
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
