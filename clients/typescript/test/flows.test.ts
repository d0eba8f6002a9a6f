import assert from "node:assert/strict";
import { test } from "node:test";
import { type Credentials, ExpiredError, GaveUpError, RefusedError, type Signer } from "../src/index.js";
import { settle } from "./support/clock.js";
import { ANN, BOB, Harness, ME, outcome } from "./support/harness.js";

/** Signs by writing its name behind a challenge, and knows the peer by its name. */
function signer(own: string, peer: string): Signer {
    return {
        sign: (challenge) => `${challenge} ${own}`,
        verify: async (challenge, response) => response === `${challenge} ${peer}`,
    };
}

const credentials: Credentials = { publicKey: "key of me", ...signer("me", "ann") };

void test("authenticate: asks, checks, answers, confirms; resolves when the peer confirms, too", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    const done = kit.client.peer(ANN.toUpperCase()).authenticate(credentials);
    await settle();
    const [request] = socket.frames("AuthRequest");
    assert.deepEqual(
        { ...request, challenge: "" },
        {
            device_id: ME,
            recipient_id: ANN,
            public_key: "key of me",
            challenge: "",
        },
    );
    assert.equal(Buffer.from(String(request?.["challenge"]), "base64").length, 32);
    const response = `${String(request?.["challenge"])} ann`;
    await socket.says("AuthResponse", { device_id: ANN, challenge_response: response, challenge: "theirs" });
    assert.deepEqual(socket.frames("AuthVerify"), [
        { device_id: ME, recipient_id: ANN, challenge_response: "theirs me" },
    ]);
    assert.deepEqual(socket.frames("AuthSuccess"), [
        { device_id: ANN, recipient_id: ANN, sender_id: ME, trusted: true },
    ]);
    assert.equal(await outcome(done), "open");
    await socket.says("AuthSuccess", { device_id: ME, sender_id: ANN, trusted: true });
    assert.equal(await outcome(done), "resolved");
    assert.deepEqual(kit.events("authenticated"), []);
});

void test("authenticate: a response that is not good is told to the peer and refused", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    const done = kit.client.peer(ANN).authenticate(credentials);
    await settle();
    await socket.says("AuthResponse", { device_id: ANN, challenge_response: "forged", challenge: "theirs" });
    assert.ok((await outcome(done)) instanceof RefusedError);
    assert.equal(socket.frames("AuthSuccess")[0]?.["trusted"], false);
});

void test("authenticate: refused by a peer that does not trust, and by a code", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    const distrusted = kit.client.peer(ANN).authenticate(credentials);
    const unknown = kit.client.peer(BOB).authenticate(credentials);
    await settle();
    const response = `${String(socket.frames("AuthRequest")[0]?.["challenge"])} ann`;
    await socket.says("AuthResponse", { device_id: ANN, challenge_response: response, challenge: "theirs" });
    await socket.says("AuthSuccess", { device_id: ME, sender_id: ANN, trusted: false });
    await socket.says("Error", { code: 404, message: "Unknown recipient.", recipient_id: BOB });
    assert.ok((await outcome(distrusted)) instanceof RefusedError);
    const error = await outcome(unknown);
    assert.ok(error instanceof RefusedError);
    assert.equal(error.code, 404);
});

void test("authenticate: gives up after a minute", async () => {
    const kit = new Harness();
    await kit.online({ watchdog: { ping: 1e9 } });
    const done = kit.client.peer(ANN).authenticate(credentials);
    await kit.clock.advance(59_999);
    assert.equal(await outcome(done), "open");
    await kit.clock.advance(1);
    assert.ok((await outcome(done)) instanceof GaveUpError);
});

void test("authenticate: one that is begun anew gives up the one before", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    const first = kit.client.peer(ANN).authenticate(credentials);
    const second = kit.client.peer(ANN).authenticate(credentials);
    await settle();
    assert.ok((await outcome(first)) instanceof GaveUpError);
    const response = `${String(socket.frames("AuthRequest")[1]?.["challenge"])} ann`;
    await socket.says("AuthResponse", { device_id: ANN, challenge_response: response, challenge: "theirs" });
    await socket.says("AuthSuccess", { device_id: ME, trusted: true });
    assert.equal(await outcome(second), "resolved");
});

void test("onAuthenticate answers, and the event tells when both trust each other", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    const asked: unknown[] = [];
    kit.client.onAuthenticate((request) => {
        asked.push(request);
        return signer("me", "ann");
    });
    await socket.says("AuthRequest", { device_id: ANN, public_key: "key of ann", challenge: "theirs" });
    assert.deepEqual(asked, [{ from: ANN, publicKey: "key of ann" }]);
    const [response] = socket.frames("AuthResponse");
    assert.deepEqual([response?.["challenge_response"], response?.["recipient_id"]], ["theirs me", ANN]);
    // The confirmation follows at once, while the own check takes its time.
    socket.fire("message", {
        data: JSON.stringify({
            type: "AuthVerify",
            payload: { device_id: ANN, challenge_response: `${String(response?.["challenge"])} ann` },
        }),
    });
    await socket.says("AuthSuccess", { device_id: ME, sender_id: ANN, trusted: true });
    assert.deepEqual(socket.frames("AuthSuccess"), [
        { device_id: ANN, recipient_id: ANN, sender_id: ME, trusted: true },
    ]);
    assert.deepEqual(kit.events("authenticated"), [{ from: ANN }]);
});

void test("onAuthenticate: without a handler, with one that gives nothing and with one that fails no answer leaves", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    const request = { device_id: ANN, public_key: "key of ann", challenge: "theirs" };
    await socket.says("AuthRequest", request);
    kit.client.onAuthenticate(() => undefined);
    await socket.says("AuthRequest", request);
    kit.client.onAuthenticate(() => {
        throw new Error("The handler fails.");
    });
    await socket.says("AuthRequest", request);
    assert.deepEqual(socket.frames("AuthResponse"), []);
    assert.equal(kit.events("error").length, 1);
});

void test("onAuthenticate: an exchange that the peer does not go on with is forgotten after a minute", async () => {
    const kit = new Harness();
    const socket = await kit.online({ watchdog: { ping: 1e9 } });
    kit.client.onAuthenticate(() => signer("me", "ann"));
    await socket.says("AuthRequest", { device_id: ANN, public_key: "key of ann", challenge: "theirs" });
    await kit.clock.advance(60_000);
    const response = `${String(socket.frames("AuthResponse")[0]?.["challenge"])} ann`;
    await socket.says("AuthVerify", { device_id: ANN, challenge_response: response });
    assert.deepEqual(socket.frames("AuthSuccess"), []);
});

for (const [who, firstError] of [
    ["the own", true],
    ["the own, whose 404 comes after the response", false],
] as const) {
    void test(`Both begin at once, and the relay goes on with ${who}: a 404 for the own answer is ignored`, async () => {
        const kit = new Harness();
        const socket = await kit.online();
        const done = kit.client.peer(ANN).authenticate(credentials);
        await settle();
        await socket.says("AuthRequest", { device_id: ANN, public_key: "key of ann", challenge: "theirs 1" });
        assert.equal(socket.frames("AuthResponse").length, 1);
        const refuse = (): Promise<void> =>
            socket.says("Error", { code: 404, message: "No open authentication exchange.", recipient_id: ANN });
        if (firstError) await refuse();
        const response = `${String(socket.frames("AuthRequest")[0]?.["challenge"])} ann`;
        await socket.says("AuthResponse", { device_id: ANN, challenge_response: response, challenge: "theirs 2" });
        if (!firstError) await refuse();
        await socket.says("AuthSuccess", { device_id: ME, sender_id: ANN, trusted: true });
        assert.equal(await outcome(done), "resolved");
    });
}

void test("Both begin at once, and the relay goes on with the peer's: it ends the own one, too", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    const done = kit.client.peer(ANN).authenticate(credentials);
    await settle();
    await socket.says("AuthRequest", { device_id: ANN, public_key: "key of ann", challenge: "theirs" });
    const response = `${String(socket.frames("AuthResponse")[0]?.["challenge"])} ann`;
    await socket.says("AuthVerify", { device_id: ANN, challenge_response: response });
    assert.equal(await outcome(done), "open");
    await socket.says("AuthSuccess", { device_id: ME, sender_id: ANN, trusted: true });
    assert.equal(await outcome(done), "resolved");
    assert.deepEqual(kit.events("authenticated"), []);
});

void test("An exchange outlives its connection: what was said is said again, and refusals of repeats are ignored", async () => {
    const kit = new Harness();
    const first = await kit.online();
    const done = kit.client.peer(ANN).authenticate(credentials);
    await settle();
    const response = `${String(first.frames("AuthRequest")[0]?.["challenge"])} ann`;
    await first.says("AuthResponse", { device_id: ANN, challenge_response: response, challenge: "theirs" });
    await first.ends(1006);
    await kit.clock.advance(1000);
    const second = await kit.register({ resumed: true });
    assert.deepEqual(second.frames("AuthVerify"), first.frames("AuthVerify"));
    assert.deepEqual(second.frames("AuthSuccess"), first.frames("AuthSuccess"));
    await second.says("Error", { code: 404, message: "No open authentication exchange.", recipient_id: ANN });
    await second.says("Error", {
        code: 403,
        message: "No authentication exchange has been verified.",
        recipient_id: ANN,
    });
    await second.says("AuthSuccess", { device_id: ME, sender_id: ANN, trusted: true });
    assert.equal(await outcome(done), "resolved");
});

void test("A peer that asks again with the same challenge gets the same answer", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    kit.client.onAuthenticate(() => signer("me", "ann"));
    const request = { device_id: ANN, public_key: "key of ann", challenge: "theirs" };
    await socket.says("AuthRequest", request);
    await socket.says("AuthRequest", request);
    const [one, two] = socket.frames("AuthResponse");
    assert.ok(one);
    assert.deepEqual(one, two);
});

void test("429 for frames of an exchange: all are said again, once, when the time has come", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    const done = kit.client.peer(ANN).authenticate(credentials);
    await settle();
    const response = `${String(socket.frames("AuthRequest")[0]?.["challenge"])} ann`;
    await socket.says("AuthResponse", { device_id: ANN, challenge_response: response, challenge: "theirs" });
    const error = { code: 429, message: "Rate limit exceeded.", recipient_id: ANN };
    await socket.says("Error", { ...error, retry_after_ms: 1000 });
    await socket.says("Error", { ...error, retry_after_ms: 2000 });
    await kit.clock.advance(2000);
    assert.deepEqual(
        socket.sent.slice(-4).map(({ type }) => type),
        ["AuthVerify", "AuthSuccess", "AuthVerify", "AuthSuccess"],
    );
    await socket.says("AuthSuccess", { device_id: ME, sender_id: ANN, trusted: true });
    assert.equal(await outcome(done), "resolved");
});

void test("close() gives up what is open", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    const open = [kit.client.peer(ANN).authenticate(credentials), kit.client.peer(ANN).rotateKey("k")];
    for (const promise of open) promise.catch(() => undefined);
    await settle();
    const closed = kit.client.close();
    await socket.ends(1000);
    await closed;
    for (const promise of open) assert.ok((await outcome(promise)) instanceof GaveUpError);
});

void test("rotateKey is repeated on each connection until the peer answers", async () => {
    const kit = new Harness();
    const first = await kit.online();
    const done = kit.client.peer(ANN).rotateKey("package");
    await settle();
    const second = await kit.reconnect();
    const [update] = first.frames("KeyRotationUpdate");
    assert.deepEqual(second.frames("KeyRotationUpdate"), [update]);
    assert.deepEqual(
        { ...update, key_id: "" },
        {
            sender_id: ME,
            recipient_id: ANN,
            encrypted_key_package: "package",
            key_id: "",
        },
    );
    await second.says("KeyRotationAck", {
        sender_id: ANN.toUpperCase(),
        recipient_id: ME,
        key_id: update?.["key_id"],
        success: true,
    });
    assert.equal(await outcome(done), "resolved");
    const third = await kit.reconnect();
    assert.deepEqual(third.frames("KeyRotationUpdate"), []);
});

void test("rotateKey: refused by the peer or by a code, expired by 410", async () => {
    const kit = new Harness();
    const socket = await kit.online();
    const peer = kit.client.peer(ANN);
    const [no, unknown, expired] = [peer.rotateKey("k", 1), peer.rotateKey("k", 2), peer.rotateKey("k", "3")];
    for (const promise of [no, unknown, expired]) promise.catch(() => undefined);
    await settle();
    await socket.says("KeyRotationAck", { sender_id: ANN, recipient_id: ME, key_id: 1, success: false });
    await socket.says("Error", { code: 404, message: "Unknown recipient.", key_id: 2, recipient_id: ANN });
    await socket.says("Error", { code: 410, message: "Key rotation expired.", key_id: "3", recipient_id: ANN });
    assert.ok((await outcome(no)) instanceof RefusedError);
    assert.ok((await outcome(unknown)) instanceof RefusedError);
    assert.ok((await outcome(expired)) instanceof ExpiredError);
});

void test("rotateKey: 429 and 507 are waited for, doubled where no time is told", async () => {
    const kit = new Harness();
    const socket = await kit.online({ watchdog: { ping: 1e9 } });
    const done = kit.client.peer(ANN).rotateKey("k", 1);
    await settle();
    const error = { message: "Later.", key_id: 1, recipient_id: ANN };
    for (const [code, retry_after_ms, wait] of [
        [429, 1000, 1000],
        [507, undefined, 60_000],
        [507, undefined, 120_000],
    ] as const) {
        const before = socket.frames("KeyRotationUpdate").length;
        await socket.says("Error", { ...error, code, retry_after_ms });
        await kit.clock.advance(wait - 1);
        assert.equal(socket.frames("KeyRotationUpdate").length, before);
        await kit.clock.advance(1);
        assert.equal(socket.frames("KeyRotationUpdate").length, before + 1);
    }
    await socket.says("KeyRotationAck", { sender_id: ANN, recipient_id: ME, key_id: 1, success: true });
    assert.equal(await outcome(done), "resolved");
});

void test("A status is said, and said again on each connection unless it is Online", async () => {
    const kit = new Harness();
    const first = await kit.online();
    kit.client.setStatus("Offline");
    assert.deepEqual(first.frames("Status"), [{ device_id: ME, status: "Offline" }]);
    const second = await kit.reconnect();
    assert.deepEqual(second.frames("Status"), [{ device_id: ME, status: "Offline" }]);
    kit.client.setStatus("Online");
    await second.says("Error", { code: 429, message: "Rate limit exceeded.", retry_after_ms: 1000 });
    await kit.clock.advance(1000);
    assert.deepEqual(
        second.frames("Status").map(({ status }) => status),
        ["Offline", "Online", "Online"],
    );
    const third = await kit.reconnect();
    assert.deepEqual(third.frames("Status"), []);
});

void test("Frames of flows share the allowance with messages, and leave before them", async () => {
    const kit = await new Harness().start();
    kit.client.send(ANN, "a1");
    kit.client.send(BOB, "b1");
    const done = kit.client.peer(ANN).rotateKey("k");
    done.catch(() => undefined);
    await settle();
    const socket = await kit.register({ limits: { burst: 2, messages_per_minute: 60 } });
    assert.deepEqual(
        socket.sent.map(({ type }) => type),
        ["Register", "KeyRotationUpdate"],
    );
    await kit.clock.advance(2300);
    assert.deepEqual(socket.data, ["a1", "b1"]);
});
