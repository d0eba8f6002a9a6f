// Churn: devices that connect, register, drop and resume, as phones do all day.
//
// Each turn of a VU: its phone (one resumable device, the same for the whole run) resumes; a fresh plain device registers
// and sends to it; the phone gets half of the messages and drops without confirming the last; the rest is sent while it
// is away; it resumes and must find what it had not confirmed, in order, and nothing else; both leave.
//
// Every turn leaves one plain device for the server to forget (after session.plain_ttl), and the run leaves VUS resumable
// ones (session.ttl). On a server that is kept, shorten both. It needs raised limits:
//
//   SEALPOST__RATE_LIMIT__MESSAGES_PER_MINUTE=1000000 SEALPOST__RATE_LIMIT__BURST=1000000 SEALPOST__LIMITS__EXEMPT_CIDRS=127.0.0.0/8
//
// Environment: WS_URL, VUS (50), DURATION (30s), PAYLOAD_BYTES (256), BACKLOG (messages while away, 4), TIMEOUT_MS (5000),
// CONNECT_P95_MS (200). Exit 99 if a threshold fails.
//
//   VUS=200 DURATION=5m scripts/k6/run churn

import { Counter, Rate, Trend } from 'k6/metrics';
import { Device, DURATION, PAYLOAD_BYTES, VUS, blob, complain, delivered, number, pause } from './lib.js';

const BACKLOG = number('BACKLOG', 4);
const DATA = blob(PAYLOAD_BYTES);

const connectTime = new Trend('connect_time', true); // connect + Register, fresh device
const resumeTime = new Trend('resume_time', true); // connect + Register with a token
const resumed = new Rate('resumed');
const ordered = new Rate('ordered'); // backlogs that came complete and in order
const failedTurns = new Counter('failed_turns');

export const options = {
  scenarios: {
    turns: { executor: 'constant-vus', vus: VUS, duration: DURATION, gracefulStop: '30s' },
  },
  thresholds: {
    delivered: ['rate>0.9999'],
    resumed: ['rate==1'],
    ordered: ['rate==1'],
    connect_time: [`p(95)<${number('CONNECT_P95_MS', 200)}`],
    resume_time: [`p(95)<${number('CONNECT_P95_MS', 200)}`],
    failed_turns: ['count==0'],
    rate_limited: [{ threshold: 'count==0', abortOnFail: true }],
  },
  summaryTrendStats: ['min', 'med', 'avg', 'p(95)', 'p(99)', 'max'],
};

let token = null; // of this VU's phone

async function timed(trend, work) {
  const from = Date.now();
  const device = await work();
  trend.add(Math.max(0, device.response.at - from));
  return device;
}

async function pickUp() {
  const name = `phone ${__VU}`;
  if (!token) {
    const phone = await timed(connectTime, () => Device.register(name, { resumable: true }));
    token = phone.token;
    return phone;
  }
  const phone = await timed(resumeTime, () => Device.register(name, { resume_token: token }));
  resumed.add(phone.response.payload.resumed === true);
  return phone;
}

async function answered(sender, id) {
  const answer = await sender.expectAnswer(id);
  if (answer.type === 'Error') throw new Error(`${sender.name} got Error ${answer.payload.code}: ${answer.payload.message}`);
}

export default async function () {
  let phone;
  let friend;
  try {
    phone = await pickUp();
    // What an earlier turn that failed has left behind is not this turn's business.
    for (let left = phone.response.payload.queued; left > 0; left -= 1) phone.ack((await phone.expectType('Receive')).payload.message_id);
    friend = await timed(connectTime, () => Device.register(`friend ${__VU}`));

    const first = friend.send(phone, DATA);
    const second = friend.send(phone, DATA);
    await answered(friend, first);
    await answered(friend, second);
    for (const id of [first, second]) delivered.add((await phone.expectReceive(id)).payload.encrypted_data === DATA);
    phone.ack(first); // the second one stays unconfirmed
    phone.say('Ping');
    await phone.expectType('Pong'); // the server has read the Ack
    await phone.leave();

    const expected = [second];
    for (let n = 0; n < BACKLOG; n += 1) expected.push(friend.send(phone, DATA));
    for (const id of expected.slice(1)) await answered(friend, id);

    phone = await pickUp();
    const found = [];
    while (found.length < expected.length) {
      const frame = await phone.expectType('Receive');
      phone.ack(frame.payload.message_id);
      found.push(frame.payload.message_id);
    }
    for (const id of expected) delivered.add(found.includes(id));
    const inOrder = found.join() === expected.join();
    ordered.add(inOrder);
    if (!inOrder) complain(`phone ${__VU} expected ${expected.join()} and got ${found.join()}`);
    phone.say('Ping');
    await phone.expectType('Pong');
  } catch (problem) {
    complain(problem.message);
    failedTurns.add(1);
    delivered.add(false);
    await pause(1000);
  } finally {
    if (phone) await phone.leave();
    if (friend) await friend.leave();
  }
}
