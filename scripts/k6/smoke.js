// Smoke: the main promises of docs/protocol.md, end to end, in a few seconds. Passes against a server with default settings
// (60 messages a minute and device, 60 registrations a minute and address, 256 connections an address), so it needs no
// raised limits; it uses five registrations and one refused resume, so do not run it more than nine times a minute.
//
// Environment: WS_URL, TIMEOUT_MS (5000). VUS and DURATION have no effect: it is one VU and one turn. Exit 99 on a failure.
//
//   scripts/k6/run smoke

import { Device, PAYLOAD_BYTES, blob, must, number, show, uuid } from './lib.js';

const RATE_LIMIT = number('RATE_LIMIT', 60); // messages a minute on this server

export const options = {
  scenarios: { smoke: { executor: 'shared-iterations', vus: 1, iterations: 1, maxDuration: '2m' } },
  thresholds: { checks: ['rate==1'] },
};

const everybody = [];
async function enter(name, extensions) {
  const device = await Device.register(name, extensions);
  everybody.push(device);
  return device;
}

/** A step that breaks off is a failed check, and the next step is tried all the same. */
async function step(name, work) {
  try {
    await work();
  } catch (problem) {
    must(name, false, problem.message);
  }
}

export default async function () {
  let alice;
  let bob;
  try {
    alice = await enter('alice');
    bob = await enter('bob');
  } catch (problem) {
    must('two devices can register', false, problem.message);
    return;
  }

  await step('registering', async () => {
    for (const device of [alice, bob]) {
      const plain = `{"type":"RegisterResponse","payload":{"device_id":"${device.id}"}}`;
      must('a plain Register gets exactly the basic RegisterResponse', JSON.stringify(JSON.parse(device.response.text)) === plain, device.response.text);
    }
    must('device ids are different random UUIDs', alice.id !== bob.id && /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(alice.id), alice.id);
    const first = alice.id;
    await alice.registerAs();
    must('a second Register gets the same device id', alice.id === first, alice.id);
  });

  await step('send, receive, ack', async () => {
    const data = blob(PAYLOAD_BYTES);
    const id = alice.send(bob, data);
    const got = await bob.expectReceive(id);
    must('bob receives what alice sent', got.payload.encrypted_data === data && got.payload.sender_id === alice.id, got.text);
    const ack = await alice.expectAnswer(id);
    must('alice gets one bare Ack', ack.type === 'Ack' && Object.keys(ack.payload).join() === 'message_id', ack.text);
    bob.ack(id);
    const back = bob.send(alice, 'aGVsbG8=', { message_id: id });
    must('the same message_id works in the other direction', (await alice.expectReceive(back)).payload.encrypted_data === 'aGVsbG8=');
    must('bob gets his Ack', (await bob.expectAnswer(back)).type === 'Ack');
  });

  await step('byte for byte', async () => {
    const id = uuid();
    const payload =
      `{ "x-unknown": {"b":1.50,"a":[1e2, null ,"\\u00e9é"]}, "encrypted_data":"A\\/B+==", "ttl":60,` +
      `"message_id":"${id}",  "recipient_id":"${bob.id}","sender_id":"${alice.id}","size_bytes":"not judged" }`;
    alice.sayText(`{"payload":${payload},"type":"Send"}`);
    const got = await bob.expectReceive(id);
    must('a payload with unknown fields arrives byte for byte', got.text.includes(payload), `${got.text} for ${payload}`);
    must('it is acked', (await alice.expectAnswer(id)).type === 'Ack');
  });

  await step('repeats', async () => {
    const id = alice.send(bob, 'b25jZQ==');
    await bob.expectReceive(id);
    await alice.expectAnswer(id);
    alice.send(bob, 'b25jZQ==', { message_id: id });
    must('a repeat is acked again', (await alice.expectAnswer(id)).type === 'Ack');
    alice.send(bob, 'b3RoZXI=', { message_id: id });
    const refused = await alice.expectAnswer(id);
    must('the same id with other content is refused with 409', refused.payload.code === 409, refused.text);
    const marker = alice.send(bob, 'bWFya2Vy');
    await bob.expectReceive(marker);
    await alice.expectAnswer(marker);
    must('a repeat is delivered once', !bob.inbox.some((frame) => frame.type === 'Receive'), bob.inbox.map((frame) => frame.text).join());
  });

  await step('foreign sender', async () => {
    const id = alice.send(bob, 'Zm9yZ2Vk', { sender_id: bob.id });
    const refused = await alice.expectError(403);
    must('a foreign sender_id is refused with 403', refused.payload.message === "The sender_id is not this connection's device.", refused.text);
    const marker = alice.send(bob, 'bWFya2Vy');
    await bob.expectReceive(marker);
    await alice.expectAnswer(marker);
    must('and is not relayed', !bob.inbox.some((frame) => frame.payload && frame.payload.message_id === id));
  });

  await step('unknown recipient', async () => {
    const id = alice.send(uuid(), 'bm9ib2R5');
    const refused = await alice.expectAnswer(id);
    must('an unknown recipient is refused with 404', refused.payload.code === 404 && refused.payload.message === 'Unknown recipient.', refused.text);
  });

  await step('malformed', async () => {
    alice.sayText('{"type":"Send","payload":{}');
    const refused = await alice.expectError(400);
    must('a malformed frame is refused with 400', refused.payload.message === 'Malformed message: not a JSON object with a type.', refused.text);
  });

  await step('stranger', async () => {
    const stranger = await Device.connect('stranger');
    everybody.push(stranger);
    stranger.say('Ping');
    must('a stranger gets a Pong', (await stranger.expectType('Pong')).type === 'Pong');
    stranger.say('Status', { device_id: alice.id, status: 'Offline' });
    const refused = await stranger.expectError(401);
    must('a stranger gets 401 for anything else', refused.payload.message === 'Not registered: send Register first.', refused.text);
  });

  await step('ping', async () => {
    alice.say('Ping');
    const pong = await alice.expectType('Pong');
    must('a Ping is answered with a bare Pong', pong.text.replace(/\s/g, '') === '{"type":"Pong"}', pong.text);
    const frame = new Promise((resolve) => {
      alice.socket.onpong = () => resolve(true);
      setTimeout(() => resolve(false), 2000);
    });
    alice.socket.ping();
    must('a WebSocket ping is answered with a pong', (await frame) === true);
  });

  await step('presence', async () => {
    bob.say('Status', { device_id: bob.id, status: 'Offline' });
    bob.say('Ping');
    await bob.expectType('Pong');
    const id = alice.send(bob, 'bGF0ZXI=');
    must('a message to a device that holds is acked', (await alice.expectAnswer(id)).type === 'Ack');
    bob.say('Ping');
    await bob.expectType('Pong');
    must('and waits while it is Offline', !bob.inbox.some((frame) => frame.type === 'Receive'));
    bob.say('Status', { device_id: bob.id, status: 'Online' });
    must('and arrives when it is Online', (await bob.expectReceive(id)).payload.encrypted_data === 'bGF0ZXI=');
  });

  await step('expiry', async () => {
    const carol = await enter('carol');
    await carol.leave();
    const id = alice.send(carol, 'c29vbiBnb25l', { ttl: 1 });
    const first = await alice.expectAnswer(id);
    must('a message to a device that is gone is acked as queued', first.type === 'Ack', first.text);
    const expired = await alice.expectError(410);
    must('it expires after its ttl of 1 s, with the 410 sentence', expired.payload.message === `Message ${id} expired after 1 s undelivered.`, expired.text);
    must('the 410 names the message', expired.payload.message_id === id, expired.text);
  });

  await step('resume', async () => {
    let dave = await enter('dave', { resumable: true });
    const { id, token } = dave;
    must('a resumable device gets a token of 256 bits', /^[0-9a-f]{64}$/.test(token || ''), show(dave.response.payload));
    must('and is told its limits', Boolean(dave.response.payload.limits) && dave.response.payload.resumed === false, dave.response.text);
    const unconfirmed = alice.send(id, 'MA==');
    await alice.expectAnswer(unconfirmed);
    await dave.expectReceive(unconfirmed);
    await dave.leave();

    const expected = [unconfirmed];
    for (const data of ['MQ==', 'Mg==', 'Mw==']) expected.push(alice.send(id, data));
    for (const one of expected.slice(1)) must('a message to a device that is away is acked', (await alice.expectAnswer(one)).type === 'Ack');

    dave = await enter('dave, back again', { resume_token: token });
    must('a resumed device has its old id', dave.id === id && dave.response.payload.resumed === true, dave.response.text);
    must('and is told how much waits', dave.response.payload.queued === 4, dave.response.text);
    const found = [];
    for (let n = 0; n < expected.length; n += 1) {
      const frame = await dave.expectType('Receive');
      found.push(frame.payload.message_id);
      dave.ack(frame.payload.message_id);
    }
    must('the backlog comes in order, the unconfirmed one first', found.join() === expected.join(), `${found} for ${expected}`);

    dave.say('Ping');
    await dave.expectType('Pong');
    await dave.leave();
    dave = await enter('dave, once more', { resume_token: token });
    must('what was confirmed does not come again', dave.response.payload.queued === 0, dave.response.text);

    const thief = await Device.connect('thief');
    everybody.push(thief);
    thief.say('Register', { resume_token: '0'.repeat(64) });
    const refused = await thief.expectError(401);
    must('a wrong token is refused with 401', refused.payload.message === 'Resume token refused: register afresh.', refused.text);
  });

  await step('rate limit', async () => {
    // An allowance of its own: a fresh device that writes to itself, all at once, faster than the allowance flows back.
    const eve = await enter('eve');
    const ids = [];
    for (let n = 0; n <= RATE_LIMIT; n += 1) ids.push(eve.send(eve, 'MQ=='));
    let acked = 0;
    for (const id of ids.slice(0, RATE_LIMIT)) if ((await eve.expectAnswer(id)).type === 'Ack') acked += 1;
    must(`the first ${RATE_LIMIT} messages of a minute are acked`, acked === RATE_LIMIT, `${acked} were`);
    const last = await eve.expect('the answer to one message too many', (frame) => frame.type === 'Error' || (frame.type === 'Ack' && frame.payload.message_id === ids[RATE_LIMIT]));
    const sentence = `Rate limit exceeded (${RATE_LIMIT}/${RATE_LIMIT}). Try again in a minute.`;
    must('the one after them gets exactly the 429 sentence', last.payload.message === sentence && last.payload.code === 429, last.text);
    eve.say('Ping');
    await eve.expectType('Pong');
    must('and the connection stays open', !eve.isClosed);
  });

  for (const device of everybody) if (!device.isClosed) await device.leave();
}
