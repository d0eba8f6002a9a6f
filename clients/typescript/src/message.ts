import { fromBase64 } from "./bytes.js";
import type { MessagePayload } from "./frames.js";

/** A message from another device. The relay vouches for `from`; all else is the sender's word. */
export interface Message {
    readonly from: string;
    readonly id: string;
    /** As the sender wrote it: usually base64 of what is encrypted. */
    readonly data: string;
    /** The data as bytes, if it is base64. */
    bytes(): Uint8Array;
    readonly contentType: string | undefined;
    readonly ttl: number | undefined;
    readonly signature: string | undefined;
    /** All fields, also those that this package does not know. */
    readonly payload: Readonly<MessagePayload>;
}

/** The relay checks some fields and carries others unseen: these may be anything. */
export function createMessage(payload: MessagePayload): Message {
    const { encrypted_data: data, content_type, ttl, signature } = payload;
    const text = (value: unknown): string | undefined => (typeof value === "string" ? value : undefined);
    return {
        from: payload.sender_id.toLowerCase(),
        id: payload.message_id.toLowerCase(),
        data,
        bytes: () => fromBase64(data),
        contentType: text(content_type),
        ttl: typeof ttl === "number" ? ttl : undefined,
        signature: text(signature),
        payload,
    };
}
