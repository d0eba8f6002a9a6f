import assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { WebSocket } from "ws";
import { connect, type State } from "../src/index.js";

async function serve(status: number, headers: Record<string, string>): Promise<Server> {
    const server = createServer();
    server.on("upgrade", (_request, socket) => {
        const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
        socket.end(`HTTP/1.1 ${String(status)} Refused\r\n${lines.join("")}Connection: close\r\n\r\n`);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return server;
}

async function firstRest(url: string): Promise<State & { name: "offline" }> {
    const client = connect(url, { WebSocket, random: () => 0.5 });
    const state = await new Promise<State & { name: "offline" }>((resolve) => {
        client.on("state", (next) => {
            if (next.name === "offline") resolve(next);
        });
    });
    await client.close();
    return state;
}

void test("An HTTP refusal is waited for as long as it says, and half as long again by chance", async () => {
    const server = await serve(503, { "Retry-After": "1000" });
    const before = Date.now();
    const state = await firstRest(`ws://127.0.0.1:${String((server.address() as AddressInfo).port)}/ws`);
    server.close();
    assert.equal(state.reason, "HTTP 503");
    assert.ok(Number(state.nextAttempt) >= before + 1_500_000);
});

void test("An HTTP refusal without a time, and a server that is not there, are backed off from", async () => {
    const server = await serve(404, {});
    const url = `ws://127.0.0.1:${String((server.address() as AddressInfo).port)}/ws`;
    const refused = await firstRest(url);
    assert.equal(refused.reason, "HTTP 404");
    await new Promise((resolve) => server.close(resolve));
    const gone = await firstRest(url);
    assert.match(gone.reason, /ECONNREFUSED/);
    assert.ok(gone.nextAttempt !== undefined);
});

void test("A runtime without WebSocket and an address that is none are told at once", () => {
    const { WebSocket: own } = globalThis;
    Reflect.deleteProperty(globalThis, "WebSocket");
    assert.throws(() => connect("ws://relay.test/ws"), /no WebSocket.*ws/);
    if (own as unknown) globalThis.WebSocket = own;
    assert.throws(() => connect("http://relay.test/ws", { WebSocket }), /url must be ws/);
});
