import assert from "node:assert/strict";
import { test } from "node:test";
import { ExpiredError, GaveUpError, RefusedError } from "../src/index.js";
import { settle } from "./support/clock.js";
import { ack, ANN, BOB, Harness, ME, outcome, refuse, TOKEN } from "./support/harness.js";

void test("A message leaves with what the application said, and its handle follows what becomes of it", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    const handle = kit.client.send(ANN.toUpperCase(), new Uint8Array([1, 2, 255]), {
        ttl: 300,
        contentType: "Image",
        signature: "c2ln",
        fields: { "x-thread": { id: 7 } },
    });
    await settle();
    assert.deepEqual(socket.frames("Send"), [
        {
            "x-thread": { id: 7 },
            recipient_id: ANN,
            sender_id: ME,
            message_id: handle.id,
            encrypted_data: "AQL/",
            timestamp: Date.UTC(2026, 0, 1) / 1000,
            ttl: 300,
            signature: "c2ln",
            content_type: "Image",
        },
    ]);
    assert.equal(await outcome(handle.accepted), "open");
    await ack(socket, 0);
    assert.equal(await outcome(handle.accepted), "resolved");
    assert.equal(await outcome(handle.delivered), "open");
    assert.equal(kit.client.unsent, 0);
    await ack(socket, 0, "processed");
    assert.equal(await outcome(handle.delivered), "resolved");
    assert.equal(await outcome(handle.processed), "processed");
});

void test("The first Ack may be the last: a plain recipient took the message", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    const handle = kit.client.send(ANN, "hello");
    await settle();
    await ack(socket, 0, "delivered");
    assert.deepEqual(await Promise.all([handle.accepted, handle.delivered, handle.processed]), [
        undefined,
        undefined,
        "delivered",
    ]);
});

void test("A message is stored before it is written", async () => {
    const kit = new Harness();
    let stored!: () => void;
    const put = (): Promise<void> => new Promise((resolve) => (stored = resolve));
    const socket = await kit.online({ outbox: { ...kit.storage.outbox, put } });
    kit.client.send(ANN, "hello");
    await settle();
    assert.deepEqual(socket.data, []);
    stored();
    await settle();
    assert.deepEqual(socket.data, ["hello"]);
});

void test("A message that cannot be stored is given up", async () => {
    const kit = new Harness();
    const put = async (): Promise<void> => {
        throw new Error("disk full");
    };
    const socket = await kit.online({ outbox: { ...kit.storage.outbox, put } });
    const handle = kit.client.send(ANN, "hello");
    const error = await outcome(handle.accepted);
    assert.ok(error instanceof GaveUpError);
    assert.match(error.reason, /disk full/);
    assert.deepEqual(socket.data, []);
    assert.equal(kit.client.unsent, 0);
});

void test("One message is under way to a recipient; others do not wait for it", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    for (const data of ["a1", "a2", "a3"]) kit.client.send(ANN, data);
    kit.client.send(BOB, "b1");
    await settle();
    assert.deepEqual(socket.data, ["a1", "b1"]);
    await ack(socket, 0);
    assert.deepEqual(socket.data, ["a1", "b1", "a2"]);
    await ack(socket, 2);
    assert.deepEqual(socket.data, ["a1", "b1", "a2", "a3"]);
});

void test("At most 32 messages are under way", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    for (let at = 0; at < 40; at++) kit.client.send(`00000000-0000-4000-8000-0000000000${String(10 + at)}`, String(at));
    await settle();
    assert.equal(socket.data.length, 32);
    await ack(socket, 0);
    assert.equal(socket.data.length, 33);
});

void test("Messages that were sent while offline leave in their order", async () => {
    const kit = await new Harness().start();
    const counts: number[] = [];
    kit.client.on("unsent", (count) => counts.push(count));
    for (const data of ["1", "2"]) kit.client.send(ANN, data);
    const socket = await kit.register();
    await ack(socket, 0);
    await ack(socket, 1);
    assert.deepEqual(socket.data, ["1", "2"]);
    assert.deepEqual(counts, [1, 2, 1, 0]);
});

void test("What was not answered is written again on the next connection, oldest first and under its own id", async () => {
    const kit = new Harness();
    const first = await kit.online();
    const handle = kit.client.send(ANN, "a1");
    kit.client.send(BOB, "b1");
    kit.client.send(ANN, "a2");
    await settle();
    await ack(first, 1);
    const second = await kit.reconnect();
    assert.deepEqual(second.data, ["a1"]);
    assert.equal(second.frames("Send")[0]?.["message_id"], handle.id);
    await ack(second, 0);
    assert.deepEqual(second.data, ["a1", "a2"]);
});

void test("An Ack of an earlier connection's message that comes as a notice removes it before it is written again", async () => {
    const kit = new Harness();
    await kit.online();
    kit.client.send(ANN, "a1");
    const handle = kit.client.send(ANN, "a2");
    await settle();
    const second = await kit.reconnect();
    await ack(second, 0, "processed");
    await ack(second, 1, "processed");
    assert.deepEqual(second.data, ["a1", "a2"]);
    assert.equal(await outcome(handle.processed), "processed");
    assert.deepEqual(await kit.storage.outbox.load(), []);
});

void test("429: the same frame again when its time has come, and nothing new before it is through", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    kit.client.send(ANN, "a1");
    await settle();
    await refuse(socket, 0, 429, { retry_after_ms: 2000 });
    kit.client.send(BOB, "b1");
    await kit.clock.advance(1999);
    assert.deepEqual(socket.data, ["a1"]);
    await kit.clock.advance(1);
    assert.deepEqual(socket.data, ["a1", "a1"]);
    assert.equal(socket.frames("Send")[0]?.["message_id"], socket.frames("Send")[1]?.["message_id"]);
    await kit.clock.advance(10_000);
    assert.deepEqual(socket.data, ["a1", "a1"]);
    await ack(socket, 1);
    assert.deepEqual(socket.data, ["a1", "a1", "b1"]);
});

void test("Several that got 429 leave each at its own time", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    kit.client.send(ANN, "a1");
    kit.client.send(BOB, "b1");
    await settle();
    await refuse(socket, 0, 429, { retry_after_ms: 1000 });
    await refuse(socket, 1, 429, { retry_after_ms: 2000 });
    await kit.clock.advance(1000);
    assert.deepEqual(socket.data, ["a1", "b1", "a1"]);
    await kit.clock.advance(1000);
    assert.deepEqual(socket.data, ["a1", "b1", "a1", "b1"]);
});

for (const [code, more] of [
    [507, {}],
    [503, {}],
    [401, {}],
    [403, { limit: "queued_bytes" }],
] as const) {
    void test(`${String(code)}: the same message again after 30 s, doubled up to ten minutes; later ones to this recipient wait`, async () => {
        const kit = new Harness();
        const socket = await kit.online({ watchdog: { ping: 1e9 } });
        kit.client.send(ANN, "a1");
        kit.client.send(ANN, "a2");
        await settle();
        kit.client.send(BOB, "b1");
        for (const [at, wait] of [30, 60, 120, 240, 480, 600, 600].entries()) {
            await refuse(socket, at === 0 ? 0 : at + 1, code, more);
            await kit.clock.advance(wait * 1000 - 1);
            assert.equal(socket.data.length, at + 2);
            await kit.clock.advance(1);
            assert.equal(socket.data.at(-1), "a1");
            assert.equal(socket.data.length, at + 3);
        }
        await ack(socket, 8);
        assert.equal(socket.data.at(-1), "a2");
    });
}

void test("503 with a time: again after that time, scaled or not", async () => {
    const kit = new Harness();
    const socket = await kit.online({ backoff: { base: 10 } });
    kit.client.send(ANN, "a1");
    await settle();
    await refuse(socket, 0, 503, { retry_after_ms: 400 });
    await kit.clock.advance(400);
    await refuse(socket, 1, 507);
    await kit.clock.advance(300);
    assert.equal(socket.data.length, 3);
});

for (const code of [400, 403, 404, 409, 413]) {
    void test(`${String(code)} refuses the message, and the next one leaves`, async () => {
        const kit = new Harness();
        const socket = await kit.online();
        const handle = kit.client.send(ANN, "a1");
        kit.client.send(ANN, "a2");
        await settle();
        await refuse(socket, 0, code);
        const error = await outcome(handle.accepted);
        assert.ok(error instanceof RefusedError);
        assert.equal(error.code, code);
        assert.equal(await outcome(handle.delivered), error);
        assert.deepEqual(socket.data, ["a1", "a2"]);
    });
}

void test("A rejection is told when the entry is gone from the store", async () => {
    const kit = new Harness();
    let removed!: () => void;
    const remove = (): Promise<void> => new Promise((resolve) => (removed = resolve));
    const socket = await kit.online({ outbox: { ...kit.storage.outbox, remove } });
    const handle = kit.client.send(ANN, "a1");
    await settle();
    await refuse(socket, 0, 404);
    assert.equal(await outcome(handle.accepted), "open");
    removed();
    assert.ok((await outcome(handle.accepted)) instanceof RefusedError);
});

void test("410 expires the message, before the Ack and after it", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    const handle = kit.client.send(ANN, "a1");
    const later = kit.client.send(BOB, "b1");
    await settle();
    await refuse(socket, 0, 410);
    assert.ok((await outcome(handle.accepted)) instanceof ExpiredError);
    await ack(socket, 1);
    await refuse(socket, 1, 410);
    assert.equal(await outcome(later.accepted), "resolved");
    assert.ok((await outcome(later.delivered)) instanceof ExpiredError);
    assert.ok((await outcome(later.processed)) instanceof ExpiredError);
});

void test("A notice that comes again is no news", async () => {
    const kit = new Harness();
    const first = await kit.online();
    kit.client.send(ANN, "a1");
    const handle = kit.client.send(BOB, "b1");
    await settle();
    await ack(first, 0, "processed");
    await ack(first, 1);
    await refuse(first, 1, 410);
    const second = await kit.reconnect();
    await second.says("Ack", { message_id: first.frames("Send")[0]?.["message_id"], status: "processed" });
    await second.says("Error", { code: 410, message: "Expired.", message_id: handle.id });
    assert.deepEqual([kit.events("receipt"), kit.events("expired")], [[], []]);
});

void test("What becomes of messages of an earlier process is told by events", async () => {
    const kit = new Harness();
    await kit.online();
    for (const [to, data] of [
        [ANN, "a1"],
        [BOB, "b1"],
        [ME, "m1"],
    ] as const)
        kit.client.send(to, data);
    await settle();
    await kit.start();
    const socket = await kit.register({ resumed: true });
    await kit.clock.advance(5000);
    const [a1, b1, m1] = socket.frames("Send").map((payload) => payload["message_id"] as string);
    await ack(socket, 0, "processed");
    await refuse(socket, 1, 410);
    await refuse(socket, 2, 404);
    assert.deepEqual(kit.events("receipt"), [{ id: a1, status: "processed" }]);
    assert.deepEqual(
        kit.events("expired").map(({ id }) => id),
        [b1],
    );
    assert.deepEqual(
        kit.events("failed").map(({ id }) => id),
        [m1],
    );
});

void test("Pacing: nine tenths of the told burst at once, then nine tenths of the told rate", async () => {
    const kit = new Harness();
    await kit.start();
    const socket = await kit.register({ limits: { burst: 10, messages_per_minute: 60 } });
    for (let at = 0; at < 12; at++) kit.client.send(`00000000-0000-4000-8000-0000000000${String(10 + at)}`, String(at));
    await settle();
    assert.equal(socket.data.length, 9);
    await kit.clock.advance(1111);
    assert.equal(socket.data.length, 9);
    await kit.clock.advance(1);
    assert.equal(socket.data.length, 10);
});

void test("Pacing: a device that is taken up by a new process begins with one; the same process goes on", async () => {
    const kit = new Harness();
    await kit.storage.identity.save({ deviceId: ME, resumeToken: TOKEN });
    await kit.start();
    const first = await kit.register({ resumed: true });
    for (let at = 0; at < 5; at++) kit.client.send(`00000000-0000-4000-8000-0000000000${String(10 + at)}`, String(at));
    await settle();
    assert.equal(first.data.length, 1);
    await kit.clock.advance(20_000);
    await first.says("Pong");
    assert.equal(first.data.length, 5);
    for (let at = 0; at < 5; at++) await ack(first, at);
    await kit.clock.advance(20_000);
    const second = await kit.reconnect();
    for (let at = 0; at < 20; at++) kit.client.send(`00000000-0000-4000-8000-0000000000${String(10 + at)}`, String(at));
    await settle();
    assert.equal(second.data.length, 20);
});

void test("ttl 0 without a connection: expired at once, and nothing is stored", async () => {
    const kit = await new Harness().start();
    const handle = kit.client.send(ANN, "now", { ttl: 0 });
    assert.ok((await outcome(handle.accepted)) instanceof ExpiredError);
    assert.equal(kit.client.unsent, 0);
});

void test("ttl 0: when the connection ends before the Ack, it is given up", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    const handle = kit.client.send(ANN, "now", { ttl: 0 });
    await settle();
    assert.equal(socket.frames("Send")[0]?.["ttl"], 0);
    assert.deepEqual(await kit.storage.outbox.load(), []);
    await socket.ends(1006);
    assert.ok((await outcome(handle.accepted)) instanceof GaveUpError);
});

void test("A ttl that passes in the outbox expires the message, also one of an earlier process", async () => {
    const kit = await new Harness().start();
    const handle = kit.client.send(ANN, "a1", { ttl: 10 });
    await kit.clock.advance(9_999);
    assert.equal(await outcome(handle.accepted), "open");
    await kit.start();
    await kit.clock.advance(1);
    assert.equal(kit.events("expired").length, 1);
    assert.deepEqual(await kit.storage.outbox.load(), []);
});

void test("A repeat carries what is left of the ttl, at least 1, and no more than all of it where the clock was set back", async () => {
    const kit = await new Harness().start();
    kit.client.send(ANN, "a1", { ttl: 300 });
    kit.client.send(BOB, "b1", { ttl: 5000 });
    await kit.clock.advance(100_000);
    await kit.start();
    kit.clock.shiftWall(-1_000_000);
    const socket = await kit.register();
    assert.deepEqual(
        socket.frames("Send").map((payload) => payload["ttl"]),
        [300, 5000],
    );
    kit.clock.shiftWall(1_000_000 + 199_500);
    await socket.ends(1006);
    kit.client.connect();
    await settle();
    const next = await kit.register({ resumed: true });
    assert.deepEqual(
        next.frames("Send").map((payload) => payload["ttl"]),
        [1, 4701],
    );
});

void test("After 1009 the largest message under way is refused", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    kit.client.send(BOB, "small");
    const large = kit.client.send(ANN, "large".repeat(100));
    await settle();
    await socket.ends(1009);
    const error = await outcome(large.accepted);
    assert.ok(error instanceof RefusedError);
    assert.equal(error.code, 413);
    await kit.clock.advance(1000);
    assert.deepEqual((await kit.register({ resumed: true })).data, ["small"]);
});

void test("A message that is larger than the relay takes is refused without being written", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    const error = await outcome(kit.client.send(ANN, "x".repeat(65536)).accepted);
    assert.ok(error instanceof RefusedError);
    assert.equal(error.code, 413);
    assert.deepEqual(socket.data, []);
});

void test("Identity lost: what was never written leaves under the new id, what may have been written is given up", async () => {
    const kit = new Harness();
    const first = await kit.online();
    const accepted = kit.client.send(BOB, "accepted");
    const written = kit.client.send(ANN, "written");
    const unwritten = kit.client.send(ANN, "unwritten");
    await settle();
    await ack(first, 0);
    await first.ends(1006);
    await kit.clock.advance(1000);
    await kit.socket.accept();
    await kit.socket.says("Error", { code: 401, message: "Resume token refused: register afresh." });
    await kit.socket.says("RegisterResponse", {
        device_id: BOB,
        resume_token: TOKEN.replace("9", "8"),
        resumed: false,
        limits: { burst: 60, messages_per_minute: 60, message_bytes: 65536 },
    });
    assert.ok((await outcome(written.accepted)) instanceof GaveUpError);
    assert.ok((await outcome(accepted.processed)) instanceof GaveUpError);
    assert.equal(await outcome(unwritten.accepted), "open");
    assert.deepEqual(kit.socket.data, ["unwritten"]);
    assert.equal(kit.socket.frames("Send")[0]?.["sender_id"], BOB);
});

void test("Identity lost while no process ran: the store knows what may have been written", async () => {
    const kit = new Harness();
    await kit.online();
    kit.client.send(ANN, "written");
    kit.client.send(ANN, "unwritten");
    await settle();
    await kit.storage.identity.clear();
    await kit.start();
    const socket = await kit.register({ deviceId: BOB, token: TOKEN.replace("9", "8") });
    assert.deepEqual(socket.data, ["unwritten"]);
    assert.equal(kit.events("failed").length, 1);
});

void test("A message that is being stored when the connection breaks leaves on the next one", async () => {
    const kit = new Harness();
    const { outbox } = kit.storage;
    let stored!: () => void;
    const put: typeof outbox.put = async (entry) => {
        await new Promise<void>((resolve) => (stored = resolve));
        await outbox.put(entry);
    };
    const first = await kit.online({ outbox: { ...outbox, put } });
    kit.client.send(ANN, "hello");
    await settle();
    await first.ends(1006);
    stored();
    await kit.clock.advance(1000);
    const second = await kit.register({ resumed: true });
    assert.deepEqual([first.data, second.data], [[], ["hello"]]);
});

void test("Bad input is refused at once, with a sentence", async () => {
    const kit = await new Harness().start();
    const { client } = kit;
    assert.throws(() => client.send("bob", "x"), /a device id must be a UUID/);
    assert.throws(() => client.send("00000000-0000-0000-0000-000000000000", "x"), /not nil/);
    for (const ttl of [-1, 1.5, NaN, 2 ** 60]) assert.throws(() => client.send(ANN, "x", { ttl }), /ttl must be/);
    let deep: Record<string, unknown> = {};
    for (let at = 0; at < 130; at++) deep = { deep };
    assert.throws(() => client.send(ANN, "x", { fields: deep }), /fields must be/);
    assert.throws(() => {
        client.setStatus("Busy" as "Away");
    }, /status must be/);
    await assert.rejects(client.peer(ANN).rotateKey("k", 1.5), /a key id must be/);
    await assert.rejects(client.peer(ANN).rotateKey("k", "k".repeat(255)), /a key id must be/);
    assert.equal(client.unsent, 0);
});
