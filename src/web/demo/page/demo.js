// The demo: two devices in one page, and what the relay sees of them.

import { Device } from "./device.js";
import * as keys from "./keys.js";
import { Pane, RelayPane } from "./pane.js";
import { watchFrames } from "./wire.js";

const SHORT_TTL = 5;
const NAMES = ["Alice", "Bob"];

const find = (id) => document.getElementById(id);
const url = new URL("/ws", location.href);
url.protocol = url.protocol.replace("http", "ws");

const devices = NAMES.map(
  (name, at) => new Device({ name, peerName: NAMES[1 - at], url: url.href, changed: show, registered: introduce }),
);
const panes = NAMES.map((name, at) => new Pane(find(name.toLowerCase()), name, NAMES[1 - at]));
const nameOf = (id) => devices.find((device) => device.id === id)?.name;
const relay = new RelayPane(find("frames"), find("totals"), nameOf);
watchFrames((frame) => relay.add(frame));

/** What to try next: each hint with what makes it old. */
const HINTS = [
  ["Type something as Alice and press Enter.", () => devices[0].log.some((entry) => entry.own)],
  ["Bob can read it, the relay cannot. Now take Bob offline and write to him.", () => devices[1].isCut],
  ["What Alice writes waits at the relay. Bring Bob back.", () => !devices[1].isCut],
  ["Nothing was lost. Try a new key, a message that expires, or reload the page.", () => false],
];
let hint = 0;

function show(device) {
  const at = devices.indexOf(device);
  for (const [index, pane] of panes.entries()) {
    // A message that one sends is one that waits for the other.
    const waits = devices[1 - index].log.filter((entry) => entry.own && entry.status === "accepted").length;
    if (index === at || devices[index].log.length) pane.show(devices[index], waits);
  }
  while (HINTS[hint][1]()) hint += 1;
  if (find("hint").textContent !== HINTS[hint][0]) find("hint").textContent = HINTS[hint][0];
}

/** Tells each device the other's id; Alice begins the verification. */
function introduce() {
  if (devices.some((device) => !device.id)) return;
  devices.forEach((device, at) => device.meet(devices[1 - at].id, at === 0));
}

function wire(device, pane) {
  pane.form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = pane.text.value.trim();
    if (!text) return;
    pane.text.value = "";
    device.send(text, pane.isShort ? SHORT_TTL : undefined);
  });
  pane.offline.addEventListener("click", () => {
    // The other tab has changed what is stored.
    if (device.connection.name === "replaced") location.reload();
    else device.cut(!device.isCut && !device.isResting);
  });
  pane.drop.addEventListener("click", () => device.drop());
  pane.rotate.addEventListener("click", () => device.rotate());
}

function fail(text) {
  find("trouble").textContent = text;
  find("trouble").hidden = false;
}

find("reload").addEventListener("click", () => location.reload());
find("start-over").addEventListener("click", async () => {
  await Promise.all(devices.map((device) => device.end()));
  location.reload();
});

if (keys.available) {
  devices.forEach((device, at) => wire(device, panes[at]));
  panes[0].text.focus({ preventScroll: true });
  Promise.all(devices.map((device) => device.start())).catch((failed) => fail(`The demo does not run here: ${failed.message}`));
} else {
  fail("Browsers give cryptography only to pages of this machine and to https: open this page as http://127.0.0.1 or over TLS.");
}
