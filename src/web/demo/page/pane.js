// How a device and the relay look: the DOM follows the state, piece by piece, so that a screen reader hears only news.

import { describe } from "./wire.js";

/** How many frames are shown. */
const FRAMES = 150;

const STATUS = {
  sealing: "not sealed yet",
  sending: "not sent yet",
  accepted: "✓ accepted",
  delivered: "✓✓ delivered",
  processed: "✓✓ processed",
  expired: "✗ expired",
  failed: "✗ refused",
};

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const isAtEnd = (list) => list.scrollHeight - list.scrollTop - list.clientHeight < 48;
const toEnd = (list) => (list.scrollTop = list.scrollHeight);

/** The pane of a device. */
export class Pane {
  #entries = new Map();

  constructor(section, name, peer) {
    section.append(document.querySelector("template#device").content.cloneNode(true));
    this.section = section;
    this.name = name;
    this.peer = peer;
    const find = (selector) => section.querySelector(selector);
    this.log = find(".log");
    this.list = find(".log ol");
    this.form = find("form");
    this.text = find(".text");
    this.offline = find(".offline");
    this.drop = find(".drop");
    this.rotate = find(".rotate");
    setText(find(".face"), name[0]);
    setText(find("h2"), name);
    find("h2").id = `${section.id}-name`;
    this.log.setAttribute("aria-label", `${name}: conversation with ${peer}`);
    this.text.id = `${section.id}-text`;
    this.text.placeholder = `Write to ${peer}`;
    find("label.unseen").htmlFor = this.text.id;
    setText(find("label.unseen"), `${name}: message to ${peer}`);
    for (const button of section.querySelectorAll("button")) {
      button.setAttribute("aria-label", `${button.textContent}, ${name}`);
    }
  }

  /** Whether what is written now shall expire soon. */
  get isShort() {
    return this.section.querySelector(".short input").checked;
  }

  /** `waiting` is how many messages wait at the relay for this device. */
  show(device, waiting) {
    const { name: state, reason } = device.connection;
    const isOnline = state === "online";
    this.section.classList.toggle("online", isOnline);
    setText(this.section.querySelector(".state"), describeState(device, state, reason));
    const badge = this.section.querySelector(".waiting");
    badge.hidden = isOnline || !waiting;
    setText(badge, `${waiting} waiting`);
    setText(this.offline, labelOfOffline(device));
    this.offline.setAttribute("aria-label", `${this.offline.textContent}, ${this.name}`);
    this.drop.disabled = !isOnline;
    this.rotate.disabled = !isOnline || !device.peer?.isTrusted || device.isRotating;
    this.#showTrust(device);
    this.#showLog(device.log);
  }

  #showTrust({ peer }) {
    const line = this.section.querySelector(".trust");
    const number = peer?.isTrusted ? peer.number : "";
    if (line.dataset.number === number) return;
    line.dataset.number = number;
    if (!number) return line.replaceChildren(`Verifying ${this.peer} …`);
    const verified = element("b", { textContent: `✓ ${this.peer} is verified.` });
    line.replaceChildren(verified, " Safety number ", element("code", { textContent: number }));
  }

  #showLog(log) {
    const wasAtEnd = isAtEnd(this.log);
    const fresh = new Set(log);
    for (const [entry, shown] of this.#entries) {
      if (fresh.has(entry)) continue;
      shown.remove();
      this.#entries.delete(entry);
    }
    for (const entry of log) {
      const shown = this.#entries.get(entry) ?? this.#add(entry);
      if (entry.own) this.#showStatus(shown.lastChild, entry);
    }
    if (wasAtEnd) toEnd(this.log);
  }

  #add(entry) {
    const item = entry.note
      ? element("li", { className: "note", textContent: entry.note })
      : element("li", { className: entry.own ? "message own" : "message" }, element("p", { textContent: entry.text }));
    if (entry.own) item.append(element("small"));
    else if (entry.key) item.append(element("small", { textContent: `sealed with ${this.peer}'s ${entry.key}` }));
    this.#entries.set(entry, item);
    this.list.append(item);
    return item;
  }

  #showStatus(line, { status, ttl, reason }) {
    const more = { expired: ttl ? `: nobody took it in ${ttl} s` : "", failed: reason ? `: ${reason}` : "" }[status];
    const limit = ttl && ["sealing", "sending", "accepted"].includes(status) ? `, for ${ttl} s` : "";
    setText(line, STATUS[status] + (more ?? limit));
    line.className = ["expired", "failed"].includes(status) ? "failed" : status;
  }
}

function labelOfOffline({ isCut, isResting, connection }) {
  if (connection.name === "replaced") return "Use it here";
  return isCut ? "Bring online" : isResting ? "Connect again" : "Take offline";
}

function describeState(device, state, reason) {
  const unsent = device.unsent ? `, ${device.unsent} unsent` : "";
  if (device.isCut) return `Offline${unsent}`;
  switch (state) {
    case "online":
      return `Online as ${device.id?.slice(0, 8)} with ${device.key}${unsent}`;
    case "replaced":
      return "Open in another tab";
    case "offline":
      return `Offline: ${reason ?? "no connection"}${unsent}`;
    default:
      return `Connecting${unsent}`;
  }
}

/** The pane of the relay. */
export class RelayPane {
  #frames = 0;
  #bytes = 0;

  constructor(list, totals, nameOf) {
    this.list = list;
    this.totals = totals;
    this.nameOf = nameOf;
  }

  add({ device, out, bytes, frame }) {
    this.#frames += 1;
    this.#bytes += bytes;
    const { line, sealed } = describe(frame, this.nameOf);
    const way = out ? `${device.name} → relay` : `relay → ${device.name}`;
    const head = element(
      "div",
      {},
      element("span", { className: "way", textContent: way }),
      element("strong", { textContent: frame.type }),
      element("span", { className: "size", textContent: `${bytes} B` }),
    );
    const isSmall = frame.type === "Ping" || frame.type === "Pong";
    const item = element("li", { className: `frame ${device.name.toLowerCase()}${isSmall ? " small" : ""}` }, head);
    if (line) item.append(element("code", { textContent: line }));
    if (sealed !== undefined) item.append(element("code", { className: "sealed", textContent: sealed }));
    const wasAtEnd = isAtEnd(this.list);
    this.list.append(item);
    if (this.list.childElementCount > FRAMES) this.list.firstChild.remove();
    if (wasAtEnd) toEnd(this.list);
    setText(this.totals, `${this.#frames} frames, ${(this.#bytes / 1024).toFixed(1)} KiB, no text that it could read`);
  }
}
