import type { MessagePayload } from "./frames.js";
import type { OutboxEntry } from "./storage/types.js";

/** Seconds that are left of the ttl. A clock that was set back gives no more than the whole ttl. */
export function secondsLeft(createdAt: number, ttl: number, now: number): number {
    return Math.min(ttl, ttl - (now - createdAt) / 1000);
}

/** The text of a `Send`. It carries what is left of the ttl, also where it is repeated. */
export function sendFrame(
    { id, to, data, createdAt, ttl, signature, contentType, fields }: OutboxEntry,
    sender: string,
    now: number,
): string {
    // A field that is undefined is absent from the text.
    const payload: MessagePayload = {
        ...fields,
        recipient_id: to,
        sender_id: sender,
        message_id: id,
        encrypted_data: data,
        timestamp: Math.floor(createdAt / 1000),
        ttl: ttl && Math.max(1, Math.ceil(secondsLeft(createdAt, ttl, now))),
        signature,
        content_type: contentType,
    };
    return JSON.stringify({ type: "Send", payload });
}
