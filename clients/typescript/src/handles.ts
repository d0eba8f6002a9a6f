import type { SendHandle } from "./api.js";
import type { Context } from "./context.js";
import { ExpiredError, type SealpostError } from "./errors.js";
import type { AckPayload } from "./frames.js";
import { type Deferred, deferred } from "./promises.js";
import { trim } from "./trim.js";

interface Open {
    accepted: Deferred<void>;
    delivered: Deferred<void>;
    processed: Deferred<"delivered" | "processed">;
}

export interface Handles {
    open(id: string): SendHandle;
    /** The relay has the message, or more. */
    acked(id: string, status?: AckPayload["status"]): void;
    /** Rejects what is open of a message. */
    reject(id: string, error: SealpostError): void;
    /**
     * Rejects what is open of all messages that the relay has: their device is gone, and with it whom the relay would
     * tell.
     */
    rejectAccepted(error: SealpostError): void;
}

/** How many messages are remembered after their last word, because the relay may say it twice. */
const ENDED = 1000;

/** Tells the application what became of its messages. */
export function createHandles({ emit }: Pick<Context, "emit">): Handles {
    const handles = new Map<string, Open>();
    /** Those of `handles` that the relay has. */
    const accepted = new Set<string>();
    const ended = new Set<string>();

    const end = (id: string): void => {
        handles.delete(id);
        accepted.delete(id);
        ended.add(id);
        trim(ended, ENDED);
    };

    const reject = (id: string, error: SealpostError): void => {
        const open = handles.get(id);
        if (open) {
            open.accepted.reject(error);
            open.delivered.reject(error);
            open.processed.reject(error);
        } else if (ended.has(id)) return;
        else if (error instanceof ExpiredError) emit("expired", { id, error });
        else emit("failed", { id, error });
        end(id);
    };

    return {
        open(id) {
            const open: Open = { accepted: deferred(), delivered: deferred(), processed: deferred() };
            handles.set(id, open);
            return {
                id,
                accepted: open.accepted.promise,
                delivered: open.delivered.promise,
                processed: open.processed.promise,
            };
        },

        acked(id, status = "queued") {
            const open = handles.get(id);
            if (open) {
                accepted.add(id);
                open.accepted.resolve();
            } else if (!ended.has(id)) emit("receipt", { id, status });
            if (status === "queued") return;
            open?.delivered.resolve();
            open?.processed.resolve(status);
            end(id);
        },

        reject,

        rejectAccepted(error) {
            for (const id of accepted) reject(id, error);
        },
    };
}
