// The demo for everybody: by keyboard alone, for a screen reader, in the dark, on a small phone.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { closeBrowser, openDemo, openPage, startRelay } from "./support.js";

const PHONE = { viewport: { width: 360, height: 640 }, hasTouch: true };

let relay;
let axe;
before(async () => {
  axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
  relay = await startRelay();
});
after(async () => {
  await relay?.stop();
  await closeBrowser();
});

/** A demo in which everything has happened that looks different. */
async function openFullDemo(t, options) {
  const demo = await openDemo(t, relay, { reducedMotion: "reduce", ...options });
  const { alice, bob } = demo;
  await alice.write("hello");
  await bob.write("hello to you");
  await bob.status("hello to you", "processed");
  await alice.button("New key").click();
  await alice.note("uses key-2").waitFor();
  await bob.button("Take offline").click();
  await alice.pane.getByRole("checkbox").check();
  await alice.write("in vain");
  await alice.status("in vain", "expired");
  await alice.pane.getByRole("checkbox").uncheck();
  await alice.write("later");
  await alice.status("later", "accepted");
  return demo;
}

for (const [name, options] of Object.entries({
  "in the light": { colorScheme: "light" },
  "in the dark": { colorScheme: "dark" },
  "on a phone": PHONE,
})) {
  test(`axe finds nothing to improve ${name}`, async (t) => {
    const { page } = await openFullDemo(t, options);
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => globalThis.axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"] }));
    const found = violations.map(({ id, nodes }) => `${id}, ${nodes.length} times: ${nodes[0].target}: ${nodes[0].failureSummary}`);
    assert.deepEqual(found, []);
  });
}

test("light and dark are two palettes", async (t) => {
  const colors = [];
  for (const colorScheme of ["light", "dark"]) {
    const { page } = await openPage(t, relay.page, { colorScheme });
    colors.push(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
  }
  assert.notEqual(colors[0], colors[1]);
});

test("at 360 pixels nothing is cut off and both devices can write", async (t) => {
  const { page, alice, bob } = await openFullDemo(t, PHONE);
  await alice.write("averylongwordthatdoesnotfit".repeat(6));
  const { width, cut } = await page.evaluate(() => ({
    width: document.scrollingElement.scrollWidth,
    cut: [...document.querySelectorAll("button, input, p, li, h1, h2")]
      .filter((node) => node.getBoundingClientRect().right > innerWidth + 0.5)
      .map((node) => node.outerHTML.slice(0, 80)),
  }));
  assert.deepEqual([width, cut], [360, []]);
  await bob.button("Bring online").click();
  await bob.write("from a phone");
  await alice.message("from a phone").waitFor();
});

test("every control is reached and used by keyboard, and its focus is seen", async (t) => {
  const { page, alice, bob } = await openDemo(t, relay);
  const focused = () =>
    page.evaluate(() => {
      const node = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(node);
      const label = node.getAttribute("aria-label") ?? node.labels?.[0]?.textContent.trim() ?? node.textContent.trim();
      return { label, id: node.id, isSeen: outlineStyle !== "none" && outlineWidth !== "0px" };
    });
  const tabTo = async (label) => {
    for (let step = 0; step < 40; step += 1) {
      if ((await focused()).label === label) return;
      await page.keyboard.press("Tab");
    }
    assert.fail(`${label} is not reached`);
  };
  assert.equal((await focused()).label, "Alice: message to Bob", "writing needs no step");

  const reached = new Set();
  for (let step = 0; step < 30; step += 1) {
    await page.keyboard.press("Tab");
    const { label, id, isSeen } = await focused();
    const where = id === "frames" ? "the frames" : label;
    if (!where || (await page.evaluate(() => document.activeElement === document.body))) continue;
    assert.ok(isSeen, `the focus of ${where} is seen`);
    reached.add(where);
  }
  for (const name of ["Alice", "Bob"]) {
    for (const label of ["Take offline", "Drop connection", "New key", "Send"]) {
      assert.ok(reached.has(`${label}, ${name}`), `${label}, ${name} is among ${[...reached].join(" | ")}`);
    }
  }
  for (const label of ["Reload the page", "Start over", "the frames", "Expires after 5 seconds"]) assert.ok(reached.has(label), label);

  await tabTo("Take offline, Bob");
  await page.keyboard.press("Space");
  await bob.state("Offline");
  await tabTo("Alice: message to Bob");
  await page.keyboard.type("by keyboard");
  await page.keyboard.press("Enter");
  await bob.state("1 waiting");
  await tabTo("Bring online, Bob");
  await page.keyboard.press("Enter");
  await alice.status("by keyboard", "processed");
});

test("a screen reader is told of new messages and of a changed state, and not of every frame", async (t) => {
  const { page, alice, bob } = await openDemo(t, relay);
  await page.getByRole("log", { name: "Alice: conversation with Bob" }).waitFor();
  await page.getByRole("log", { name: "Bob: conversation with Alice" }).waitFor();
  await alice.state("Online");
  assert.equal(await bob.pane.getByRole("status").first().isVisible(), true);
  const frames = page.getByRole("region", { name: "The relay" }).getByRole("list");
  assert.equal(await frames.getAttribute("aria-live"), null);
});

test("who wants less motion sees none", async (t) => {
  const { page, alice } = await openDemo(t, relay, { reducedMotion: "reduce" });
  await alice.write("still");
  await alice.message("still").waitFor();
  assert.equal(await page.evaluate(() => document.getAnimations().length), 0);
});
