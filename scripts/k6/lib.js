// A Sealpost device for k6, in promises: `await alice.send(bob, 'hi')`, `await bob.expectReceive(id)`.
// Shared by smoke.js, load.js, soak.js and churn.js. Real k6 1.1.0, no imports from the network.

import { check } from 'k6';
import { Counter, Rate, Trend } from 'k6/metrics';
import { WebSocket } from 'k6/experimental/websockets';

// ---- Settings, all from the environment ------------------------------------------------------------------------

export const WS_URL = __ENV.WS_URL || 'ws://127.0.0.1:8080/ws';
export const VUS = number('VUS', 50);
export const DURATION = __ENV.DURATION || '30s';
export const PAYLOAD_BYTES = number('PAYLOAD_BYTES', 256);
export const TIMEOUT_MS = number('TIMEOUT_MS', 5000);

export function number(name, fallback) {
  const written = __ENV[name];
  if (written === undefined || written === '') return fallback;
  const value = Number(written);
  if (!Number.isInteger(value) || value < 0) throw new Error(`${name}=${written} is not a whole number`);
  return value;
}

/** Milliseconds of a duration such as "30s", "1m30s" or "250ms". */
export function milliseconds(duration) {
  const unit = { ms: 1, s: 1000, m: 60000, h: 3600000 };
  const parts = duration.match(/\d+(\.\d+)?(ms|s|m|h)/g);
  if (!parts || parts.join('') !== duration) throw new Error(`"${duration}" is not a duration such as 30s, 5m or 1h30m`);
  return parts.reduce((sum, part) => sum + parseFloat(part) * unit[part.replace(/[\d.]/g, '')], 0);
}

/** What the load scripts need of the server, to be shown to people. */
export const RAISED_LIMITS =
  'SEALPOST__RATE_LIMIT__MESSAGES_PER_MINUTE=1000000 SEALPOST__RATE_LIMIT__BURST=1000000 SEALPOST__LIMITS__EXEMPT_CIDRS=127.0.0.0/8';

// ---- Reporting -------------------------------------------------------------------------------------------------

/** 429s seen where none are wanted. The load scripts have the threshold `count==0` on it. */
export const rateLimited = new Counter('rate_limited');

let saidRateLimited = false;
export function noteRateLimited(what) {
  rateLimited.add(1);
  if (saidRateLimited) return;
  saidRateLimited = true;
  console.error(`The server's rate limit hit this test (${what}), so its figures are worth nothing. Start the server with: ${RAISED_LIMITS}`);
}

let said = 0;
/** A complaint, at most five per VU: a broken server must not fill the disk with the same line. */
export function complain(text) {
  if (said++ < 5) console.error(text);
}

/** A k6 check that says what came instead. */
export function must(promise, holds, instead) {
  const held = check(null, { [promise]: () => holds === true });
  if (!held) console.error(`FAILED: ${promise}${instead === undefined ? '' : ` (instead: ${show(instead)})`}`);
  return held;
}

export function show(value) {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return text && text.length > 400 ? `${text.slice(0, 400)}…` : text;
}

// ---- A device --------------------------------------------------------------------------------------------------

export const uuid = () => crypto.randomUUID();

/** Opaque base64-looking text of exactly `bytes` bytes. */
export const blob = (bytes) => 'QUJD'.repeat(Math.ceil(bytes / 4)).slice(0, bytes);

export class Device {
  /** Resolves with an open, not yet registered connection; rejects with a sentence. */
  static connect(name, url = WS_URL) {
    return new Promise((resolve, reject) => {
      const device = new Device(name, url);
      const refuse = (why) => reject(new Error(`${name} cannot connect to ${url}: ${why}`));
      const timer = setTimeout(() => {
        refuse(`nothing happened in ${TIMEOUT_MS} ms`);
        device.socket.close();
      }, TIMEOUT_MS);
      device.socket.onopen = () => {
        clearTimeout(timer);
        resolve(device);
      };
      device.refused = (why) => {
        clearTimeout(timer);
        refuse(hint(why));
      };
    });
  }

  /** Connects and registers. `extensions` is the payload of Register, if any. */
  static async register(name, extensions) {
    const device = await Device.connect(name);
    await device.registerAs(extensions);
    return device;
  }

  constructor(name, url) {
    this.name = name;
    this.id = null;
    this.token = null;
    this.response = null; // the payload of RegisterResponse
    this.inbox = []; // frames nobody has asked for yet
    this.waiting = []; // who waits for a frame
    this.listener = null; // takes every frame itself, if set: the fast path of the load scripts
    this.closeReason = null;
    this.isClosed = false;
    this.refused = () => {}; // told about errors while connecting
    this.closed = new Promise((resolve) => (this.sayClosed = resolve));
    this.socket = new WebSocket(url);
    this.socket.onmessage = (event) => this.hear(event);
    this.socket.onerror = (event) => {
      this.closeReason = event.error;
      this.refused(event.error);
    };
    this.socket.onclose = () => this.end();
  }

  hear(event) {
    let frame;
    try {
      frame = JSON.parse(event.data);
    } catch (_) {
      complain(`${this.name} got a frame that is not JSON: ${show(event.data)}`);
      return;
    }
    if (frame.type === 'Ping') {
      this.say('Pong');
      return;
    }
    if (this.listener) {
      this.listener(frame, event);
      return;
    }
    const found = { type: frame.type, payload: frame.payload, text: event.data, at: event.timestamp };
    const at = this.waiting.findIndex((one) => one.wants(found));
    if (at < 0) this.inbox.push(found);
    else this.waiting.splice(at, 1)[0].take(found);
  }

  end() {
    if (this.isClosed) return;
    this.isClosed = true;
    for (const one of this.waiting.splice(0)) one.give_up(`the connection was closed (${this.closeReason || 'normally'})`);
    this.sayClosed(this.closeReason);
  }

  /** The next frame that `wants` takes, from those that have come and those that will. */
  expect(what, wants, withinMs = TIMEOUT_MS) {
    const at = this.inbox.findIndex(wants);
    if (at >= 0) return Promise.resolve(this.inbox.splice(at, 1)[0]);
    const fail = (why) => {
      const seen = this.inbox.slice(-3).map((frame) => show(frame.text)).join(' ') || 'nothing else';
      return new Error(`${this.name} waits for ${what}, but ${why}; it has got ${seen}`);
    };
    if (this.isClosed) return Promise.reject(fail(`its connection is closed (${this.closeReason || 'normally'})`));
    return new Promise((resolve, reject) => {
      const one = { wants };
      const timer = setTimeout(() => {
        this.waiting.splice(this.waiting.indexOf(one), 1);
        reject(fail(`nothing came in ${withinMs} ms`));
      }, withinMs);
      one.take = (frame) => {
        clearTimeout(timer);
        resolve(frame);
      };
      one.give_up = (why) => {
        clearTimeout(timer);
        reject(fail(why));
      };
      this.waiting.push(one);
    });
  }

  expectType(type, withinMs) {
    return this.expect(`a ${type}`, (frame) => frame.type === type, withinMs);
  }

  expectReceive(messageId, withinMs) {
    const wants = (frame) => frame.type === 'Receive' && frame.payload.message_id === messageId;
    return this.expect(`Receive ${messageId}`, wants, withinMs);
  }

  /** The Ack of a message; an Error that names it is an answer too, and ends the waiting. */
  expectAnswer(messageId, withinMs) {
    const wants = (frame) => (frame.type === 'Ack' || frame.type === 'Error') && frame.payload.message_id === messageId;
    return this.expect(`the Ack of ${messageId}`, wants, withinMs);
  }

  expectError(code, withinMs) {
    return this.expect(`Error ${code}`, (frame) => frame.type === 'Error' && frame.payload.code === code, withinMs);
  }

  say(type, payload) {
    this.sayText(JSON.stringify(payload === undefined ? { type } : { type, payload }));
  }

  sayText(text) {
    this.socket.send(text);
  }

  async registerAs(extensions) {
    this.say('Register', extensions);
    const answer = await this.expect('RegisterResponse', (frame) => frame.type === 'RegisterResponse' || frame.type === 'Error');
    if (answer.type === 'Error') {
      if (answer.payload.code === 429) noteRateLimited('Register');
      throw new Error(`${this.name} cannot register: Error ${answer.payload.code} ${answer.payload.message}`);
    }
    this.response = answer;
    this.id = answer.payload.device_id;
    this.token = answer.payload.resume_token || null;
    return answer;
  }

  /** Sends a message and returns its id; `more` overrides fields of the payload. */
  send(recipient, data, more) {
    const payload = Object.assign(
      {
        recipient_id: recipient.id || recipient,
        sender_id: this.id,
        encrypted_data: data,
        message_id: uuid(),
        timestamp: Math.floor(Date.now() / 1000),
        ttl: 60,
        content_type: 'Other',
        size_bytes: data.length,
      },
      more,
    );
    this.say('Send', payload);
    return payload.message_id;
  }

  ack(messageId) {
    this.say('Ack', { message_id: messageId });
  }

  /** Closes, and waits until the server has said goodbye too. */
  async leave() {
    this.socket.close(1000);
    const timer = setTimeout(() => this.end(), TIMEOUT_MS);
    await this.closed;
    clearTimeout(timer);
  }
}

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function hint(why) {
  const text = String(why);
  if (text.includes('refused')) return `${text}. Is the server running?`;
  if (text.includes('bad handshake')) {
    return `${text}. The server answered with an HTTP status: 429 is too many connections from this address, ` +
      `503 is full or draining, 403 is the Origin. For load tests: ${RAISED_LIMITS}`;
  }
  return text;
}

// ---- Two devices in conversation: what load.js and soak.js measure --------------------------------------------

/** From Send to the recipient's Receive, in milliseconds. */
export const relayRtt = new Trend('relay_rtt', true);
/** From Send to the sender's Ack, in milliseconds. */
export const relayAck = new Trend('relay_ack', true);
/** Messages that arrived within TIMEOUT_MS, once and unchanged, of those that were sent. */
export const delivered = new Rate('delivered');

/**
 * `sender` sends to `receiver` for `ms` milliseconds: `inFlight` messages at a time, each followed by the next as soon as
 * it is both received and acked; or, with `everyMs`, one message in that time, whatever came back. With `confirm` the
 * receiver acks. Resolves with the number of messages when the last one is answered or given up.
 *
 * Times are taken from the events that k6 stamps (fractions of a millisecond): a message is sent in the handler of the
 * event that completed the one before. They include k6's own queue, so on a busy machine they are an upper bound.
 */
export function converse(sender, receiver, { ms, inFlight = 1, everyMs = 0, confirm = false, payloadBytes = PAYLOAD_BYTES }) {
  const data = blob(payloadBytes);
  const open = new Map(); // message_id -> { sentAt, received, acked }
  const endsAt = Date.now() + ms;
  let sent = 0;

  return new Promise((resolve) => {
    const post = (now) => {
      const id = sender.send(receiver, data);
      open.set(id, { sentAt: now, received: false, acked: false });
      sent += 1;
    };
    const finish = () => {
      clearInterval(watch);
      if (ticker) clearInterval(ticker);
      for (const id of [...open.keys()]) lose(id, 'the conversation ended');
      sender.listener = receiver.listener = null;
      resolve(sent);
    };
    const settle = (id, message, now) => {
      if (!message.received || !message.acked) return;
      open.delete(id);
      if (Date.now() < endsAt) {
        if (!everyMs) post(now);
      } else if (open.size === 0) {
        finish();
      }
    };
    const lose = (id, why) => {
      const message = open.get(id);
      open.delete(id);
      const fate = message.received ? 'arrived but was never acked' : 'never arrived';
      if (why) complain(`${sender.name}: message ${id} ${fate} (${why})`);
      if (!message.received) delivered.add(false);
    };

    sender.listener = (frame, event) => {
      const id = frame.payload && frame.payload.message_id;
      const message = open.get(id);
      if (frame.type === 'Ack' && message) {
        if (!message.acked) relayAck.add(Math.max(0, event.timestamp - message.sentAt));
        message.acked = true;
        settle(id, message, event.timestamp);
      } else if (frame.type === 'Error') {
        const { code, message: sentence } = frame.payload;
        if (code === 429) noteRateLimited('Send');
        else complain(`${sender.name} got Error ${code}: ${sentence}`);
        if (message) lose(id, code === 429 ? '' : `Error ${code}`);
      }
    };
    receiver.listener = (frame, event) => {
      if (frame.type !== 'Receive') {
        complain(`${receiver.name} got ${show(frame)}`);
        return;
      }
      const id = frame.payload.message_id;
      if (confirm) receiver.ack(id);
      const message = open.get(id);
      if (!message) return; // given up earlier, or left over from an earlier conversation
      if (message.received) {
        complain(`${receiver.name} got message ${id} twice`);
        delivered.add(false);
        return;
      }
      message.received = true;
      relayRtt.add(Math.max(0, event.timestamp - message.sentAt));
      const unchanged = frame.payload.encrypted_data === data;
      if (!unchanged) complain(`${receiver.name}: message ${id} was changed on its way`);
      delivered.add(unchanged);
      settle(id, message, event.timestamp);
    };

    // One look a second for what is overdue, instead of a timer for each message.
    const watch = setInterval(() => {
      const now = Date.now();
      if (sender.isClosed || receiver.isClosed) {
        const gone = sender.isClosed ? sender : receiver;
        complain(`${gone.name} was disconnected: ${gone.closeReason || 'normally'}`);
        finish();
        return;
      }
      for (const [id, message] of open) if (now - message.sentAt > TIMEOUT_MS) lose(id, `${TIMEOUT_MS} ms`);
      if (now < endsAt) while (!everyMs && open.size < inFlight) post(now);
      else if (open.size === 0) finish();
    }, 1000);
    const ticker = everyMs
      ? setInterval(() => {
          if (Date.now() < endsAt && !sender.isClosed) post(Date.now());
        }, everyMs)
      : null;
    if (!everyMs) for (let n = 0; n < inFlight; n += 1) post(Date.now());
  });
}
