import type { Clock } from "./clock.js";
import type { Limits } from "./frames.js";

/** The part of the told limits that is used, so that a clock that runs a little fast is not refused. */
const SHARE = 0.9;

export interface Pacing {
    /** Takes over the limits, and how many frames may leave at once; undefined: what this process has left. */
    configure(limits: Limits, tokens: number | undefined): void;
    /** Milliseconds until a new frame may leave; infinite while refused ones are not through. */
    delay(): number;
    /** A frame leaves. It may be one that could not wait: then the next ones wait longer. */
    spend(): void;
    /** Frames that got 429 and are not through yet: their places are promised, and nothing new may take them. */
    refused: Set<object>;
}

/** Says when a new frame may leave without being refused: a token bucket, and a gate that a refusal closes. */
export function createPacing(clock: Clock): Pacing {
    const refused = new Set<object>();
    let tokens = 0;
    let capacity = 1;
    let perMs = 0;
    let filledAt = 0;

    const refill = (): void => {
        const now = clock.now();
        tokens = Math.min(capacity, tokens + (now - filledAt) * perMs);
        filledAt = now;
    };

    return {
        configure({ burst, messages_per_minute }, fresh) {
            refill();
            capacity = Math.max(1, Math.floor(burst * SHARE));
            perMs = (messages_per_minute * SHARE) / 60_000;
            tokens = Math.min(fresh ?? tokens, capacity);
        },

        delay() {
            refill();
            if (refused.size > 0) return Infinity;
            return tokens < 1 ? Math.ceil((1 - tokens) / perMs) : 0;
        },

        spend() {
            refill();
            tokens--;
        },

        refused,
    };
}
