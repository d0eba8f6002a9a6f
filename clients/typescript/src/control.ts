import type { Context } from "./context.js";
import type { ClientFrame, ErrorPayload } from "./frames.js";
import { waitBeforeRepeat } from "./refusals.js";

/** Makes a frame when it may leave, or nothing if it is not wanted any more. `self` is the id of this device. */
export type MakeFrame = (self: string) => ClientFrame | undefined;

export interface Control {
    /** Lets a frame leave, if the connection is online. */
    add(make: MakeFrame): void;
    /** A frame was refused for now: it leaves again when its time has come. */
    repeat(make: MakeFrame, error: ErrorPayload): void;
    /** Writes what may leave; returns the milliseconds until more may. */
    pump(): number;
    /** The connection ended: what is still wanted is added anew on the next one. */
    clear(): void;
}

/** Frames of the flows and of the status: they share the allowance with messages, and leave before them. */
export function createControl(context: Context): Control {
    const { pacing, clock, scale } = context;
    let queue: MakeFrame[] = [];
    /** Refused frames, and when they may leave again. */
    const refused = new Map<{ make: MakeFrame }, number>();
    const refusals = new Map<MakeFrame, number>();

    const write = (make: MakeFrame): void => {
        const frame = context.self && make(context.self);
        if (frame) context.write(frame);
    };

    return {
        add(make) {
            if (!context.self) return;
            queue.push(make);
            context.pump();
        },

        repeat(make, { code, retry_after_ms }) {
            const again = { make };
            const count = refusals.get(make) ?? 0;
            refusals.set(make, count + 1);
            refused.set(again, clock.now() + waitBeforeRepeat(retry_after_ms, count, scale));
            if (code === 429) pacing.refused.add(again);
            context.pump();
        },

        pump() {
            const now = clock.now();
            let wait = Infinity;
            for (const [again, at] of refused) {
                if (at > now) wait = Math.min(wait, at - now);
                else {
                    refused.delete(again);
                    // The place of one that got 429 is promised, and these frames have no answer that would say that
                    // they are through.
                    if (pacing.refused.delete(again)) write(again.make);
                    else queue.push(again.make);
                }
            }
            while (queue[0]) {
                const delay = pacing.delay();
                if (delay > 0) return Math.min(wait, delay);
                const make = queue.shift();
                pacing.spend();
                if (make) write(make);
            }
            return wait;
        },

        clear() {
            queue = [];
            for (const again of refused.keys()) pacing.refused.delete(again);
            refused.clear();
            refusals.clear();
        },
    };
}
