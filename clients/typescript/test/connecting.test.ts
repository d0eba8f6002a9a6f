import assert from "node:assert/strict";
import { test } from "node:test";
import { GaveUpError } from "../src/index.js";
import { settle } from "./support/clock.js";
import { ANN, Harness, ME, outcome, TOKEN } from "./support/harness.js";

void test("A fresh client registers with extensions and its access token, and stores who it is before anything else leaves", async () => {
    const kit = new Harness();
    let stored!: () => void;
    const identity = {
        ...kit.storage.identity,
        save: () => new Promise<void>((resolve) => (stored = resolve)),
    };
    await kit.start({ accessToken: "sealpost_1", accept: "correspondents", identity });
    kit.client.send(ANN, "hello");
    const socket = await kit.register();
    assert.deepEqual(socket.sent, [
        {
            type: "Register",
            payload: { resumable: true, receipts: true, accept: "correspondents", access_token: "sealpost_1" },
        },
    ]);
    assert.equal(kit.client.state.name, "connecting");
    stored();
    await settle();
    assert.deepEqual(socket.data, ["hello"]);
    assert.equal(kit.client.deviceId, ME);
    assert.deepEqual(kit.events("registered"), [{ deviceId: ME, resumed: false }]);
});

void test("A client with an identity resumes without its access token", async () => {
    const kit = new Harness();
    await kit.storage.identity.save({ deviceId: ME, resumeToken: TOKEN });
    await kit.start({ accessToken: "sealpost_1" });
    await kit.socket.accept();
    assert.deepEqual(kit.socket.frames("Register"), [{ resumable: true, receipts: true, resume_token: TOKEN }]);
});

void test("An identity that cannot be stored is resumed by the next attempt, and nothing leaves before it is stored", async () => {
    const kit = new Harness();
    let fails = true;
    const identity = {
        ...kit.storage.identity,
        save: async () => {
            if (fails) throw new Error("disk full");
        },
    };
    await kit.start({ identity });
    kit.client.send(ANN, "hello");
    const first = await kit.register();
    assert.deepEqual(first.data, []);
    assert.match(JSON.stringify(kit.client.state), /disk full/);
    fails = false;
    await kit.clock.advance(1000);
    const second = await kit.register({ resumed: true });
    assert.equal(second.frames("Register")[0]?.["resume_token"], TOKEN);
    assert.deepEqual(second.data, ["hello"]);
});

void test("401 in answer to a resume: the identity is lost, and the same connection registers afresh", async () => {
    const kit = new Harness();
    await kit.storage.identity.save({ deviceId: ME, resumeToken: TOKEN });
    await kit.storage.identity.addHandled({ sender: ANN, id: "1" });
    await kit.start();
    await kit.socket.accept();
    await kit.socket.says("Error", { code: 401, message: "Resume token refused: register afresh." });
    assert.deepEqual(kit.events("identityLost"), [{ deviceId: ME }]);
    assert.equal(await kit.storage.identity.load(), undefined);
    assert.equal((await kit.storage.identity.loadHandled()).length, 1);
    assert.equal(kit.sockets.length, 1);
    assert.deepEqual(kit.socket.frames("Register")[1], { resumable: true, receipts: true });
});

for (const [code, message] of [
    [401, "A valid access token is needed to register."],
    [403, "The access token has all the devices that it may have."],
] as const) {
    void test(`${String(code)} in answer to a fresh Register: offline with the reason, and no attempt by itself`, async () => {
        const kit = await new Harness().start();
        await kit.socket.accept();
        await kit.socket.says("Error", { code, message });
        assert.deepEqual(kit.client.state, { name: "offline", reason: message });
        await kit.clock.advance(3_600_000);
        assert.equal(kit.sockets.length, 1);
        kit.client.connect();
        await settle();
        assert.equal(kit.sockets.length, 2);
    });
}

void test("A blocked device keeps its identity and makes no attempt by itself", async () => {
    const kit = new Harness();
    await kit.storage.identity.save({ deviceId: ME, resumeToken: TOKEN });
    await kit.start();
    await kit.socket.accept();
    await kit.socket.says("Error", { code: 403, message: "This device is blocked." });
    assert.deepEqual(kit.client.state, { name: "offline", reason: "This device is blocked." });
    assert.deepEqual(await kit.storage.identity.load(), { deviceId: ME, resumeToken: TOKEN });
});

void test("429 in answer to Register: the told time passes, and the back-off after it", async () => {
    const kit = await new Harness().start();
    await kit.socket.accept();
    await kit.socket.says("Error", { code: 429, message: "Rate limit exceeded.", retry_after_ms: 7000 });
    await kit.clock.advance(7499);
    assert.equal(kit.sockets.length, 1);
    await kit.clock.advance(1);
    assert.equal(kit.sockets.length, 2);
});

void test("Back-off: full jitter that doubles up to a minute, and begins anew after a minute of being registered", async () => {
    const kit = await new Harness().start();
    const waits = async (): Promise<number> => {
        const before = kit.clock.now();
        const count = kit.sockets.length;
        await kit.socket.ends(1006);
        while (kit.sockets.length === count) await kit.clock.advance(500);
        return kit.clock.now() - before;
    };
    const seen = [];
    for (let attempt = 0; attempt < 9; attempt++) seen.push(await waits());
    assert.deepEqual(seen, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
    await kit.register();
    await kit.clock.advance(20_000);
    assert.equal(await waits(), 30_000);
    const socket = await kit.register({ resumed: true });
    for (let at = 0; at < 4; at++) {
        await kit.clock.advance(15_000);
        await socket.says("Pong");
    }
    assert.equal(await waits(), 500);
});

void test("After 1001 the first wait is at least a random time up to ten seconds, times the scale of the back-off", async () => {
    const kit = new Harness();
    await kit.online({ backoff: { base: 100 } });
    await kit.socket.ends(1001, "restarting");
    assert.match(JSON.stringify(kit.client.state), /restarting/);
    await kit.clock.advance(499);
    assert.equal(kit.sockets.length, 1);
    await kit.clock.advance(60);
    assert.equal(kit.sockets.length, 2);
});

for (const code of [1002, 1003, 1007, 1008, 4403]) {
    void test(`After ${String(code)} no attempt is made by itself`, async () => {
        const kit = new Harness();
        await (await kit.online()).ends(code, "a person should look");
        assert.deepEqual(kit.client.state, { name: "offline", reason: "a person should look" });
        await kit.clock.advance(3_600_000);
        assert.equal(kit.sockets.length, 1);
    });
}

for (const code of [1000, 1006, 1009, 1011, 1012, 1013, 1999, 4401, 4408, 4499]) {
    void test(`After ${String(code)} the client backs off and tries again`, async () => {
        const kit = new Harness();
        await (await kit.online()).ends(code);
        assert.equal(kit.client.state.name, "offline");
        await kit.clock.advance(1000);
        assert.equal(kit.sockets.length, 2);
    });
}

void test("After 4409 the client is replaced, and connects again only when it is asked to", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    await socket.says("Error", { code: 409, message: "Replaced by a newer connection of this device." });
    await socket.ends(4409, "replaced");
    assert.deepEqual(kit.client.state, { name: "replaced" });
    await kit.clock.advance(3_600_000);
    assert.equal(kit.sockets.length, 1);
    kit.client.connect();
    await settle();
    assert.equal(kit.sockets.length, 2);
});

void test("What an old socket says late is not heard", async () => {
    const kit = new Harness();
    const old = await kit.online();
    const seen: string[] = [];
    kit.client.onMessage((message) => seen.push(message.data));
    const fresh = await kit.reconnect();
    await old.says("Receive", { recipient_id: ME, sender_id: ANN, message_id: ANN, encrypted_data: "late" });
    await old.ends(1008, "late");
    assert.deepEqual(seen, []);
    assert.equal(kit.client.state.name, "online");
    assert.equal(fresh.closedWith, undefined);
});

void test("A socket that ends while the identity is being stored does not become online", async () => {
    const kit = new Harness();
    let stored!: () => void;
    const save = (): Promise<void> => new Promise((resolve) => (stored = resolve));
    await kit.start({ identity: { ...kit.storage.identity, save } });
    const first = await kit.register();
    await first.ends(1006);
    stored();
    await settle();
    assert.equal(kit.client.state.name, "offline");
    await kit.clock.advance(1000);
    const second = await kit.register({ resumed: true });
    assert.equal(kit.client.state.name, "online");
    assert.equal(second.frames("Register")[0]?.["resume_token"], TOKEN);
});

void test("Frames that come while the identity is being stored are taken after it", async () => {
    const kit = new Harness();
    let stored!: () => void;
    const save = (): Promise<void> => new Promise((resolve) => (stored = resolve));
    await kit.start({ identity: { ...kit.storage.identity, save } });
    const seen: string[] = [];
    kit.client.onMessage((message) => seen.push(message.data));
    const socket = await kit.register();
    await socket.says("Receive", { recipient_id: ME, sender_id: ANN, message_id: ANN, encrypted_data: "early" });
    assert.deepEqual(seen, []);
    stored();
    await settle();
    assert.deepEqual(seen, ["early"]);
    assert.deepEqual(socket.frames("Ack"), [{ message_id: ANN, sender_id: ANN }]);
});

void test("Watchdog: a Ping after 30 s without a frame, and a new connection after 10 s more", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    await kit.clock.advance(20_000);
    await socket.says("Pong");
    await kit.clock.advance(29_999);
    assert.equal(socket.frames("Ping").length, 0);
    await kit.clock.advance(1);
    assert.equal(socket.frames("Ping").length, 1);
    await kit.clock.advance(9_000);
    await socket.says("Pong");
    await kit.clock.advance(30_000);
    assert.equal(socket.frames("Ping").length, 2);
    await kit.clock.advance(10_000);
    assert.equal(socket.closedWith !== undefined, true);
    assert.match(JSON.stringify(kit.client.state), /does not answer/);
    await kit.clock.advance(1000);
    assert.equal(kit.sockets.length, 2);
});

void test("A timer that comes late shows that the system slept: a Ping leaves at once", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    await kit.clock.advance(5_000);
    await socket.says("Pong");
    kit.clock.shiftWall(3_600_000);
    await kit.clock.advance(25_000);
    assert.equal(socket.frames("Ping").length, 1);
});

void test("When the network comes back: a Ping at once while online, an attempt at once while offline", async () => {
    const target = new EventTarget();
    const page = Object.assign(new EventTarget(), { visibilityState: "hidden" });
    Object.assign(globalThis, { addEventListener: target.addEventListener.bind(target), document: page });
    try {
        const kit = new Harness();
        const socket = await kit.online();
        page.dispatchEvent(new Event("visibilitychange"));
        assert.equal(socket.frames("Ping").length, 0);
        page.visibilityState = "visible";
        page.dispatchEvent(new Event("visibilitychange"));
        assert.equal(socket.frames("Ping").length, 1);
        await socket.ends(1006);
        target.dispatchEvent(new Event("online"));
        await settle();
        assert.equal(kit.sockets.length, 2);
        await kit.socket.ends(1008);
        target.dispatchEvent(new Event("online"));
        await settle();
        assert.equal(kit.sockets.length, 2);
    } finally {
        Object.assign(globalThis, { addEventListener: undefined, document: undefined });
    }
});

void test("A server that takes the connection and says nothing is left", async () => {
    const kit = await new Harness().start();
    await kit.socket.accept();
    await kit.clock.advance(40_000);
    assert.match(JSON.stringify(kit.client.state), /did not answer in time/);
});

void test("Each Ping of the relay gets a Pong, before the registration too", async () => {
    const kit = await new Harness().start();
    await kit.socket.accept();
    await kit.socket.says("Ping");
    await kit.register();
    await kit.socket.says("Ping");
    assert.equal(kit.socket.frames("Pong").length, 2);
});

void test("What cannot be read is an error event and ends nothing", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    socket.fire("message", { data: "{" });
    socket.fire("message", { data: "null" });
    await socket.says("Receive", {});
    await socket.says("AuthRequest", {});
    await socket.says("SomethingNew", { of: "a later version" });
    assert.equal(kit.events("error").length, 4);
    assert.equal(kit.client.state.name, "online");
});

void test("close() says goodbye, tries nothing again, and leaves no timer", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    kit.client.send(ANN, "waits", { ttl: 600 });
    await settle();
    const closed = kit.client.close();
    assert.equal(socket.closedWith, 1000);
    assert.deepEqual(kit.client.state, { name: "closed" });
    await socket.ends(1000);
    await closed;
    assert.equal(kit.clock.timers, 0);
    assert.equal((await kit.storage.outbox.load()).length, 1);
});

void test("unregister() ends the device and clears the identity", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    const handle = kit.client.send(ANN, "hello");
    await settle();
    await socket.says("Ack", { message_id: handle.id, status: "queued" });
    const left = kit.client.unregister();
    await settle();
    assert.equal(socket.frames("Unregister").length, 1);
    await socket.ends(1000);
    await left;
    assert.equal(await kit.storage.identity.load(), undefined);
    assert.deepEqual(kit.client.state, { name: "closed" });
    assert.ok((await outcome(handle.processed)) instanceof GaveUpError);
});

void test("unregister() while offline: as soon as there is a connection; a connection that breaks before the answer is followed by another", async () => {
    const kit = new Harness();
    await (await kit.online()).ends(1006);
    const left = kit.client.unregister();
    await settle();
    const second = await kit.register({ resumed: true });
    assert.equal(second.frames("Unregister").length, 1);
    await second.ends(1006);
    await kit.clock.advance(2000);
    await kit.socket.accept();
    await kit.socket.says("Error", { code: 401, message: "Resume token refused: register afresh." });
    await left;
    assert.equal(kit.socket.frames("Register").length, 1);
});

void test("Stores that cannot be read: offline with the reason, sends are given up, and connect() reads again", async () => {
    const kit = new Harness();
    let fails = true;
    const load = async (): Promise<undefined> => {
        if (fails) throw new Error("damaged");
        return undefined;
    };
    await kit.start({ identity: { ...kit.storage.identity, load } });
    const handle = kit.client.send(ANN, "hello");
    assert.match(JSON.stringify(kit.client.state), /damaged/);
    assert.ok((await outcome(handle.accepted)) instanceof GaveUpError);
    fails = false;
    kit.client.connect();
    await settle();
    await kit.register();
    assert.equal(kit.client.state.name, "online");
});
