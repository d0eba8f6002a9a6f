// What the relay sees: every frame of every connection of this page, taken from the sockets themselves.

let listener = () => {};

/** Calls `seen` for each frame: `{device, out, bytes, frame}`. */
export function watchFrames(seen) {
  listener = seen;
}

/**
 * Makes the WebSockets of a device. The page shows their frames; `sockets.newest` is there for a button that ends it, and while
 * `sockets.cut` is set, nothing is reached.
 */
export function watchedSocket(device, sockets) {
  const see = (out, data) => listener({ device, out, bytes: new TextEncoder().encode(data).length, frame: JSON.parse(data) });
  return function WatchedSocket(url) {
    if (sockets.cut) return unreachable();
    const socket = new WebSocket(url);
    const send = socket.send.bind(socket);
    socket.send = (data) => {
      see(true, data);
      send(data);
    };
    socket.addEventListener("message", ({ data }) => see(false, data));
    sockets.newest = socket;
    return socket;
  };
}

/** What a socket is without a network. */
function unreachable() {
  const socket = Object.assign(new EventTarget(), { readyState: WebSocket.CLOSED, send() {}, close() {} });
  setTimeout(() => socket.dispatchEvent(new CloseEvent("close", { code: 1006 })));
  return socket;
}

const short = (id) => String(id).slice(0, 8);
const excerpt = (text, length = 44) => (text.length > length ? `${text.slice(0, length)}…` : text);

/** What the relay can read in a frame, in a line, and an excerpt of what it cannot. */
export function describe({ type, payload }, nameOf) {
  const who = (id) => nameOf(id) ?? short(id);
  const said = payload ?? {};
  const route = () => `${who(said.sender_id)} to ${who(said.recipient_id)}`;
  switch (type) {
    case "Register":
      return { line: said.resume_token ? "resume token, receipts" : "a new device that can resume" };
    case "RegisterResponse":
      return { line: `${said.resumed ? "resumed" : "new"} device ${short(said.device_id)}, ${said.queued ?? 0} waiting` };
    case "Send":
    case "Receive":
      return {
        line: `${route()}, message ${short(said.message_id)}${said.ttl === undefined ? "" : `, ttl ${said.ttl} s`}`,
        sealed: excerpt(said.encrypted_data),
      };
    case "Ack":
      return { line: `message ${short(said.message_id)}${said.status ? `, ${said.status}` : ""}` };
    case "Error":
      return { line: `${said.code} ${said.message}` };
    case "AuthRequest":
      return { line: `key ${excerpt(said.public_key, 16)}, challenge ${excerpt(said.challenge, 6)}` };
    case "AuthResponse":
      return { line: `signature ${excerpt(said.challenge_response.split(" ").pop(), 10)}, challenge ${excerpt(said.challenge, 6)}` };
    case "AuthVerify":
      return { line: `signature ${excerpt(said.challenge_response.split(" ").pop(), 24)}` };
    case "AuthSuccess":
      return { line: `${who(said.device_id)} is ${said.trusted ? "trusted" : "not trusted"}` };
    case "KeyRotationUpdate":
      return { line: `${route()}, ${said.key_id}`, sealed: excerpt(said.encrypted_key_package) };
    case "KeyRotationAck":
      return { line: `${route()}, ${said.key_id} ${said.success ? "taken" : "refused"}` };
    case "Status":
      return { line: said.status };
    default:
      return { line: "" };
  }
}
