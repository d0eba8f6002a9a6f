import type { StatusPayload } from "./frames.js";
import type { WebSocketConstructor } from "./link.js";

/** The relay closes a connection after ten malformed frames in a row, so none may leave. */
function check(isGood: boolean, what: string, rule: string): void {
    if (!isGood) throw new TypeError(`${what} must be ${rule}`);
}

/** The id in small letters, as ids are compared. */
export function checkDeviceId(id: string): string {
    const isUuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(id);
    check(isUuid && /[1-9a-f]/i.test(id), "a device id", "a UUID, not nil");
    return id.toLowerCase();
}

export function checkUrl(url: string): void {
    check(/^wss?:\/\//i.test(url), "url", "ws:// or wss://");
}

export function checkTtl(ttl: number | undefined): void {
    check(ttl === undefined || (Number.isSafeInteger(ttl) && ttl >= 0), "ttl", "a whole number of seconds");
}

export function checkKeyId(keyId: string | number): void {
    const isShort = new TextEncoder().encode(JSON.stringify(keyId)).length <= 256;
    check(
        isShort && (typeof keyId === "string" || Number.isSafeInteger(keyId)),
        "a key id",
        "a whole number or a short string",
    );
}

export function checkStatus(status: StatusPayload["status"]): void {
    check(["Online", "Away", "Offline"].includes(status), "status", "Online, Away or Offline");
}

/** A copy of the fields as JSON has them. */
export function checkFields(fields: Record<string, unknown>): Record<string, unknown> {
    const copy = JSON.parse(JSON.stringify(fields)) as Record<string, unknown>;
    check(depth(copy) < 128, "fields", "nested less deep");
    return copy;
}

function depth(value: unknown): number {
    return typeof value === "object" && value ? 1 + Math.max(0, ...Object.values(value).map(depth)) : 0;
}

/** The WebSocket to use: the given one, else that of the runtime. */
export function checkWebSocket(given: WebSocketConstructor | undefined): WebSocketConstructor {
    const chosen = given ?? (globalThis as { WebSocket?: WebSocketConstructor }).WebSocket;
    if (!chosen) throw new TypeError("this runtime has no WebSocket: pass that of the package ws");
    return chosen;
}
