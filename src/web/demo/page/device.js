// A device of the demo: its keys, what it knows of the other one, its conversation, and its client.
//
// The demo keeps all of it in localStorage, so that a reload resumes. An app for people would keep keys that cannot be
// exported in IndexedDB.

import { connect, localStorageStorage } from "./sealpost.js";
import * as keys from "./keys.js";
import { watchedSocket } from "./wire.js";

/** How many keys of a device are kept: a message that waits was sealed with an older one. */
const KEYS = 4;
/** How many entries of a conversation are kept. */
const KEPT = 60;
const AUTHENTICATION = "sealpost demo: authentication";
const ROTATION = "sealpost demo: key rotation";

export class Device {
  #peerName;
  #place;
  #url;
  #changed;
  #registered;
  #client;
  #sockets = { newest: undefined, cut: false };
  /** The texts are sealed one after the other, or a short one would overtake a long one. */
  #sealed = Promise.resolve();
  /** The first of them waits for the other device to be verified. */
  #wakeSender = () => {};
  /** Survives a reload: signing pair, agreement pairs by id, the peer, the conversation. */
  #kept;
  connection = { name: "connecting" };
  unsent = 0;
  /** A new key is on its way. */
  isRotating = false;
  /** Whom this device is verifying. */
  #verifying;
  #isEnded = false;
  id;

  /** `changed` is called whenever the pane may look different, `registered` when the device has an id. */
  constructor({ name, peerName, url, changed, registered }) {
    this.name = name;
    this.#peerName = peerName;
    this.#place = `sealpost-demo:${name}`;
    this.#url = url;
    this.#changed = changed;
    this.#registered = registered;
  }

  get log() {
    return this.#kept?.log ?? [];
  }

  get peer() {
    return this.#kept?.peer;
  }

  get isCut() {
    return this.#sockets.cut;
  }

  /** Whether the client makes no further attempt by itself. */
  get isResting() {
    const { name, nextAttempt } = this.connection;
    return name === "offline" && nextAttempt === undefined;
  }

  get key() {
    return this.#kept?.current;
  }

  async start() {
    this.#kept = JSON.parse(localStorage.getItem(this.#place)) ?? (await newKept());
    this.#keep();
    const client = (this.#client = connect(this.#url, {
      ...localStorageStorage(`${this.#place}:client`),
      WebSocket: watchedSocket(this, this.#sockets),
    }));
    client.on("state", (connection) => {
      this.connection = connection;
      this.#changed(this);
    });
    client.on("registered", ({ deviceId }) => {
      this.id = deviceId;
      this.#registered();
    });
    client.on("identityLost", () => {
      // What the two agreed on names the old id.
      this.id = undefined;
      if (this.peer) this.peer.isTrusted = false;
      this.note("The relay does not know this device any more: it registers anew.");
    });
    client.on("unsent", (unsent) => {
      this.unsent = unsent;
      this.#changed(this);
    });
    // What becomes of messages that were sent before a reload.
    client.on("receipt", ({ id, status }) => this.#mark(id, status === "queued" ? "accepted" : status));
    client.on("expired", ({ id }) => this.#mark(id, "expired"));
    client.on("failed", ({ id, error }) => this.#mark(id, "failed", error.message));
    client.on("error", (error) => this.note(`Something failed: ${error.message}`));
    client.onMessage((message) => this.#receive(message));
    client.onAuthenticate(({ from, publicKey }) => (from === this.peer?.id ? this.#proof(publicKey) : undefined));
    client.onKeyRotation((rotation) => this.#takeKey(rotation));
  }

  /** Learns the id of the other device, as from a code that one person shows the other; verifies it if it is new. */
  async meet(id, begins) {
    if (this.peer?.id !== id) {
      this.#kept.peer = { id, signer: this.peer?.signer };
      this.#keep();
    }
    if (this.peer.isTrusted) return this.#wakeSender();
    if (!begins || this.#verifying === id) return;
    this.#verifying = id;
    try {
      await this.#client.peer(id).authenticate({ publicKey: this.#bundle(), ...this.#proof() });
      await this.#trust();
    } catch (failed) {
      this.note(`${this.#peerName} could not be verified: ${failed.message}`);
    }
    if (this.#verifying === id) this.#verifying = undefined;
  }

  /** Seals a text and hands it to the client, as soon as there is a key. */
  send(text, ttl) {
    const entry = this.#add({ own: true, text, ttl, status: "sealing" });
    this.#sealed = this.#sealed.then(() => this.#send(entry)).catch((failed) => {
      Object.assign(entry, { status: "failed", reason: failed.message });
      this.#keep();
    });
  }

  async #send(entry) {
    while (!this.id || !this.peer?.isTrusted) await new Promise((resolve) => (this.#wakeSender = resolve));
    const { text, ttl } = entry;
    const { id, current, publics } = this.peer;
    const sealed = await keys.seal(this.#pair(), publics[current], [this.id, id], text);
    const handle = this.#client.send(id, `${this.#kept.current}.${current}.${sealed}`, { ttl, contentType: "Text" });
    entry.id = handle.id;
    entry.status = "sending";
    this.#keep();
    for (const stage of ["accepted", "delivered", "processed"]) {
      handle[stage].then(
        () => this.#mark(handle.id, stage),
        (failed) => this.#mark(handle.id, failed.name === "ExpiredError" ? "expired" : "failed", failed.message),
      );
    }
  }

  /** Takes the network away from this device, or gives it back. */
  cut(isCut) {
    this.#sockets.cut = isCut;
    if (isCut) this.drop();
    else this.#client.connect();
    this.#changed(this);
  }

  /** Ends the connection, as a tunnel does. The client comes back by itself. */
  drop() {
    this.#sockets.newest?.close();
  }

  /** Makes a new key, and uses it when the other device has it. The old one stays for what is still on its way. */
  async rotate() {
    this.isRotating = true;
    const pair = await keys.newAgreementPair();
    const { id, current, publics } = this.peer;
    // Counted on also after a failure: the other device remembers what it has answered to an id.
    const keyId = `key-${(this.#kept.keysMade += 1)}`;
    const way = [this.id, id];
    const signature = await keys.sign(this.#kept.signer, ROTATION, keyId, pair.public, ...way);
    const text = JSON.stringify({ public: pair.public, signature });
    const sealed = await keys.seal(this.#pair(), publics[current], way, text);
    this.#kept.pairs = withNewest(this.#kept.pairs, keyId, pair);
    this.#keep();
    try {
      await this.#client.peer(id).rotateKey(`${this.#kept.current}.${current}.${sealed}`, keyId);
      this.#kept.current = keyId;
      this.note(`${this.name} uses ${keyId} from now on.`);
    } catch (failed) {
      delete this.#kept.pairs[keyId];
      this.note(`The new key was not taken: ${failed.message}`);
    }
    this.isRotating = false;
    this.#changed(this);
  }

  /** Ends the device at the relay, and forgets it here. */
  async end() {
    const late = new Promise((resolve) => setTimeout(resolve, 2000));
    this.#sockets.cut = false;
    this.#isEnded = true;
    await Promise.race([this.#client.unregister(), late]).catch(() => {});
    for (const key of Object.keys(localStorage)) {
      if (key.startsWith(this.#place)) localStorage.removeItem(key);
    }
  }

  note(text) {
    this.#add({ note: text });
  }

  #pair(id = this.#kept.current) {
    return this.#kept.pairs[id];
  }

  /** What this device is known by: the key it signs with, and the key it agrees with. */
  #bundle() {
    return [this.#kept.signer.public, this.#kept.current, this.#pair().public].join(" ");
  }

  /** Signs the other's challenge, with both ids and both keys; checks the other's answer. A key that is known must be the same. */
  #proof(announced) {
    return {
      sign: async (challenge) => {
        const bundle = this.#bundle();
        return `${bundle} ${await keys.sign(this.#kept.signer, AUTHENTICATION, challenge, bundle, this.id, this.peer.id)}`;
      },
      verify: async (challenge, response) => {
        const [signer, current, open, signature] = response.split(" ");
        const bundle = [signer, current, open].join(" ");
        const { id, signer: known } = this.peer;
        const isGood =
          (known ?? signer) === signer &&
          (announced ?? bundle) === bundle &&
          (await keys.verify(signer, signature, AUTHENTICATION, challenge, bundle, id, this.id));
        if (!isGood) return false;
        Object.assign(this.peer, { signer, current, publics: { ...this.peer.publics, [current]: open } });
        this.#keep();
        // The side that answers has the last signature; the other side waits for its consent.
        if (announced) await this.#trust();
        return true;
      },
    };
  }

  async #trust() {
    this.peer.number = await keys.safetyNumber(this.#kept.signer.public, this.peer.signer);
    this.peer.isTrusted = true;
    this.#keep();
    this.#wakeSender();
  }

  /** Opens what the other device has sealed. */
  #open(data) {
    const [of, to, sealed] = data.split(".");
    return keys.open(this.#pair(to), this.peer.publics[of], [this.peer.id, this.id], sealed);
  }

  async #receive({ from, id, data }) {
    if (from !== this.peer?.id) return this.note("A message of a device that is not known was dropped.");
    try {
      this.#add({ id, text: await this.#open(data), key: data.split(".")[0] });
    } catch {
      this.note("A message could not be opened.");
    }
  }

  async #takeKey({ from, keyId, package: sealed }) {
    if (from !== this.peer?.id || !this.peer.isTrusted) return false;
    try {
      const { public: open, signature } = JSON.parse(await this.#open(sealed));
      if (!(await keys.verify(this.peer.signer, signature, ROTATION, keyId, open, from, this.id))) return false;
      this.peer.publics = withNewest(this.peer.publics, keyId, open);
      this.peer.current = keyId;
      this.note(`${this.#peerName} has a new key: ${keyId}.`);
      return true;
    } catch {
      return false;
    }
  }

  #mark(id, status, reason) {
    const entry = this.log.find((entry) => entry.own && entry.id === id);
    const order = ["sealing", "sending", "accepted", "delivered", "processed", "expired", "failed"];
    if (!entry || order.indexOf(status) <= order.indexOf(entry.status)) return;
    Object.assign(entry, { status, reason });
    this.#keep();
  }

  #add(entry) {
    this.#kept.log = [...this.log, entry].slice(-KEPT);
    this.#keep();
    return entry;
  }

  /** Stores the state and shows it. A text that has no seal yet is not stored: nobody would send it after a reload. */
  #keep() {
    if (this.#isEnded) return;
    const log = this.log.filter((entry) => entry.status !== "sealing");
    localStorage.setItem(this.#place, JSON.stringify({ ...this.#kept, log }));
    this.#changed(this);
  }
}

async function newKept() {
  const [signer, pair] = await Promise.all([keys.newSigningPair(), keys.newAgreementPair()]);
  return { signer, keysMade: 1, current: "key-1", pairs: { "key-1": pair }, peer: null, log: [] };
}

const withNewest = (all, id, key) => Object.fromEntries([...Object.entries(all), [id, key]].slice(-KEYS));
