import { ExpiredError, RefusedError, type SealpostError } from "./errors.js";
import type { ErrorPayload } from "./frames.js";

/** The error that tells the application of an `Error` of the relay. */
export function toError({ code, message }: ErrorPayload): SealpostError {
    return code === 410 ? new ExpiredError(message) : new RefusedError(message, code);
}

/** Whether the same frame may be served later. */
export function isPassing({ code, limit }: ErrorPayload): boolean {
    return [401, 429, 503, 507].includes(code) || (code === 403 && limit === "queued_bytes");
}

/** Milliseconds before a refused frame leaves again: as told, else 30 s, doubled each time, up to 10 minutes. */
export function waitBeforeRepeat(told: number | undefined, refusals: number, scale: number): number {
    return told ?? Math.min(30_000 * 2 ** refusals, 600_000) * scale;
}
