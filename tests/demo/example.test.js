// The page of docs/examples, served by a site of its own: the relay allows its Origin.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { closeBrowser, openPage, startRelay } from "./support.js";

const root = new URL("../../", import.meta.url);
const FILES = {
  "/page.html": ["docs/examples/page.html", "text/html"],
  "/sealpost.min.js": ["src/web/demo/page/sealpost.js", "text/javascript"],
};

let site;
let relay;
before(async () => {
  site = createServer(async (request, response) => {
    const [file, type] = FILES[new URL(request.url, root).pathname] ?? [];
    if (!file) return response.writeHead(204).end();
    response.writeHead(200, { "Content-Type": type }).end(await readFile(new URL(file, root)));
  });
  await new Promise((resolve) => site.listen(0, "127.0.0.1", resolve));
  relay = await startRelay({ settings: { SERVER__ALLOWED_ORIGINS: origin() } });
});
after(async () => {
  site?.close();
  await relay?.stop();
  await closeBrowser();
});

const origin = () => `http://127.0.0.1:${site.address().port}`;

test("the page is one of sixty lines", async () => {
  const lines = (await readFile(new URL(FILES["/page.html"][0], root), "utf8")).trimEnd().split("\n");
  assert.ok(lines.length <= 60, `${lines.length} lines`);
  const long = lines.filter((line) => line.length > 132);
  assert.deepEqual(long, []);
});

test("the page of sixty lines verifies, chats, rotates, leaves, comes back and resumes", async (t) => {
  const { page, frames } = await openPage(t, `${origin()}/page.html?relay=ws://${relay.address}/ws`);
  const pane = (name) => page.locator(`#${name}`);
  const sees = (name, text) => pane(name).getByText(text, { exact: true }).waitFor();
  const write = async (name, text) => {
    await pane(name).getByRole("textbox").fill(text);
    await pane(name).getByRole("textbox").press("Enter");
  };
  const press = (name, label) => pane(name).getByRole("button", { name: label }).click();
  await sees("Alice", "has verified Bob");
  await write("Alice", "hello");
  await sees("Bob", "reads: hello");
  await sees("Alice", "writes: hello, accepted, processed");
  await press("Bob", "New key");
  await sees("Bob", "has a new key");
  await write("Bob", "under a new key");
  await sees("Alice", "reads: under a new key");
  await press("Bob", "Leave or return");
  await write("Alice", "for later");
  await sees("Alice", "writes: for later, accepted");
  await press("Bob", "Leave or return");
  await sees("Bob", "reads: for later");
  await sees("Alice", "writes: for later, accepted, processed");

  await press("Bob", "Leave or return");
  await write("Alice", "across a reload");
  await sees("Alice", "writes: across a reload, accepted");
  await page.reload();
  await sees("Bob", "reads: across a reload");
  assert.ok(frames.some((frame) => frame.includes('"resumed":true')));
  await sees("Alice", "has verified Bob");
  await write("Bob", "as before");
  await sees("Alice", "reads: as before");
  assert.ok(!frames.some((frame) => frame.includes("hello") || frame.includes("as before")));
});
