// The whole story of the demo, in a browser, against a real relay.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { closeBrowser, device, openDemo, openPage, startRelay } from "./support.js";

let relay;
before(async () => (relay = await startRelay()));
after(async () => {
  await relay?.stop();
  await closeBrowser();
});

test("who opens the page and types has sent an encrypted message", async (t) => {
  const { page, frames } = await openPage(t, relay.page);
  const [alice, bob] = ["Alice", "Bob"].map((name) => device(page, name));
  await alice.text.waitFor();
  await page.keyboard.type("The first words");
  await page.keyboard.press("Enter");
  await bob.message("The first words").waitFor();
  await alice.status("The first words", "processed");
  await bob.write("An answer");
  await alice.message("An answer").waitFor();
  await bob.status("An answer", "processed");

  const number = await alice.number();
  assert.ok(number, "a safety number");
  assert.equal(await bob.number(), number);
  const seen = await page.getByRole("region", { name: "The relay" }).innerText();
  for (const type of ["Register", "AuthRequest", "AuthResponse", "AuthVerify", "AuthSuccess", "Send", "Receive", "Ack"]) {
    assert.match(seen, new RegExp(`\\b${type}\\b`), type);
  }
  assert.ok(frames.some((frame) => frame.includes('"Send"')), "the frames were recorded");
  for (const text of ["The first words", "An answer"]) {
    assert.ok(!seen.includes(text), "the relay does not see a text");
    const traces = [text, Buffer.from(text).toString("base64").slice(0, 12)];
    assert.ok(!frames.some((frame) => traces.some((trace) => frame.includes(trace))), "no frame has a text");
  }
});

test("messages wait while a device is offline, and arrive in their order", async (t) => {
  const { alice, bob } = await openDemo(t, relay);
  await bob.button("Take offline").click();
  await bob.state("Offline");
  for (const text of ["one", "two", "three"]) await alice.write(text);
  await bob.state("3 waiting");
  await alice.status("three", "accepted");
  assert.deepEqual(await bob.texts(), []);
  await bob.write("written without a network");
  await bob.state("1 unsent");
  await bob.button("Bring online").click();
  await alice.message("written without a network").waitFor();
  await alice.status("three", "processed");
  assert.deepEqual(await bob.texts(), ["written without a network", "one", "two", "three"]);
  await bob.pane.getByText("waiting").waitFor({ state: "hidden" });
});

test("a message that expires is reported to its sender, and never shown", async (t) => {
  const { alice, bob } = await openDemo(t, relay);
  await bob.button("Take offline").click();
  await bob.state("Offline");
  await alice.pane.getByRole("checkbox").check();
  await alice.write("soon gone");
  await alice.status("soon gone", "expired: nobody took it in 5 s");
  await alice.pane.getByRole("checkbox").uncheck();
  await alice.write("to stay");
  await bob.button("Bring online").click();
  await alice.status("to stay", "processed");
  assert.deepEqual(await bob.texts(), ["to stay"]);
});

test("a new key is announced, taken and used, and texts under the old key are still read", async (t) => {
  const { page, alice, bob } = await openDemo(t, relay);
  await alice.write("under the first key");
  await bob.status("under the first key", "sealed with Alice's key-1");
  await bob.button("Take offline").click();
  await bob.state("Offline");
  await alice.write("waits under the first key");
  await alice.status("waits under the first key", "accepted");
  await alice.button("New key").click();
  await page.getByRole("region", { name: "The relay" }).getByText("KeyRotationUpdate").waitFor();
  await bob.button("Bring online").click();
  await alice.note("Alice uses key-2 from now on.").waitFor();
  await bob.note("Alice has a new key: key-2.").waitFor();
  await alice.write("under the second key");
  await bob.status("under the second key", "sealed with Alice's key-2");
  await bob.status("waits under the first key", "sealed with Alice's key-1");
  await bob.write("to the second key");
  await alice.message("to the second key").waitFor();
});

test("a dropped connection comes back by itself", async (t) => {
  const { alice, bob, sockets } = await openDemo(t, relay);
  const id = await bob.id();
  const before = sockets.length;
  await bob.button("Drop connection").click();
  await alice.write("across the gap");
  await bob.message("across the gap").waitFor();
  await alice.status("across the gap", "processed");
  assert.equal(sockets.length, before + 1);
  assert.equal(await bob.id(), id);
});

test("a reload resumes both devices, their keys and their conversation", async (t) => {
  const { page, alice, bob, frames } = await openDemo(t, relay);
  await alice.write("before the reload");
  await alice.status("before the reload", "processed");
  const before = [await alice.id(), await bob.id(), await alice.number()];
  await bob.button("Take offline").click();
  await bob.state("Offline");
  await alice.write("on its way");
  await alice.status("on its way", "accepted");
  frames.length = 0;
  await page.getByRole("button", { name: "Reload the page" }).click();
  await bob.message("on its way").waitFor();
  await alice.status("on its way", "processed");
  await Promise.all([alice.state("Online"), bob.state("Online")]);
  assert.deepEqual([await alice.id(), await bob.id(), await alice.number()], before);
  await alice.write("after the reload");
  await bob.message("after the reload").waitFor();
  assert.deepEqual(await bob.texts(), ["before the reload", "on its way", "after the reload"]);
  assert.ok(!frames.some((frame) => frame.includes("AuthRequest")), "nobody is verified twice");
});

test("another tab takes the devices over, and the first says so", async (t) => {
  const { page, context, alice } = await openDemo(t, relay);
  const other = await context.newPage();
  await other.goto(relay.page);
  await device(other, "Alice").state("Online");
  await alice.state("Open in another tab");
  await page.getByRole("button", { name: "Use it here, Alice" }).click();
  await alice.state("Online");
  await device(other, "Alice").state("Open in another tab");
});

test("start over ends both devices, and others take their place", async (t) => {
  const { page, alice, bob } = await openDemo(t, relay);
  await alice.write("to be forgotten");
  await alice.status("to be forgotten", "processed");
  const before = [await alice.id(), await bob.id(), await alice.number()];
  await page.getByRole("button", { name: "Start over" }).click();
  await bob.message("to be forgotten").waitFor({ state: "detached" });
  await Promise.all([alice.verified(), bob.verified(), alice.state("Online"), bob.state("Online")]);
  const fresh = [await alice.id(), await bob.id(), await alice.number()];
  fresh.forEach((value, at) => assert.notEqual(value, before[at]));
  assert.deepEqual(await alice.texts(), []);
});

test("what is typed before the devices know each other is sent when they do", async (t) => {
  // Bob's half of the page finds no relay at first.
  const script = () => {
    const Native = WebSocket;
    let opened = 0;
    globalThis.WebSocket = class extends Native {
      constructor(url) {
        opened += 1;
        super(opened === 2 ? `${url}-nowhere` : url);
      }
    };
  };
  const { page, complaints } = await openPage(t, relay.page, { script });
  const [alice, bob] = ["Alice", "Bob"].map((name) => device(page, name));
  await alice.state("Online");
  await alice.write("early");
  await alice.write("and soon after");
  await alice.status("and soon after", "processed");
  assert.deepEqual(await bob.texts(), ["early", "and soon after"]);
  complaints.splice(0, complaints.length, ...complaints.filter((complaint) => !complaint.includes("/ws-nowhere")));
});

test("a relay that has forgotten the devices gets new ones, with the same safety number", async (t) => {
  const first = await startRelay();
  t.after(() => first.stop());
  const { alice, bob, complaints } = await openDemo(t, first);
  const [id, number] = [await alice.id(), await alice.number()];
  await first.stop();
  const second = await startRelay({ listen: first.address });
  t.after(() => second.stop());
  for (const one of [alice, bob]) await one.note("it registers anew").waitFor();
  await Promise.all([alice.verified(), bob.verified()]);
  await alice.write("to a new id");
  await bob.message("to a new id").waitFor();
  await alice.status("to a new id", "processed");
  assert.notEqual(await alice.id(), id);
  assert.equal(await alice.number(), number);
  // The browser itself says that the relay was not there for a while.
  const others = complaints.splice(0).filter((complaint) => !complaint.includes("ERR_CONNECTION_REFUSED"));
  assert.deepEqual(others, []);
});

test("a browser without the newer curves uses P-256", async (t) => {
  const script = () => {
    const generate = SubtleCrypto.prototype.generateKey;
    SubtleCrypto.prototype.generateKey = function (algorithm, ...rest) {
      const isNew = ["Ed25519", "X25519"].includes(algorithm.name);
      return isNew ? Promise.reject(new DOMException("", "NotSupportedError")) : generate.call(this, algorithm, ...rest);
    };
  };
  const { alice, bob, frames } = await openDemo(t, relay, { script });
  await alice.write("over older curves");
  await bob.message("over older curves").waitFor();
  assert.ok(frames.some((frame) => frame.includes("AuthRequest") && frame.includes("P-256:")));
  assert.ok(!frames.some((frame) => frame.includes("25519:")));
});
