import type { Control, MakeFrame } from "./control.js";
import { RefusedError, type SealpostError } from "./errors.js";
import type { ErrorPayload, KeyId, KeyRotationAckPayload } from "./frames.js";
import { type Deferred, deferred } from "./promises.js";
import { isPassing, toError } from "./refusals.js";

interface Rotation {
    frame: MakeFrame;
    outcome: Deferred<void>;
}

export interface Rotations {
    start(peer: string, keyPackage: string, keyId: KeyId): Promise<void>;
    online(): void;
    acked(ack: KeyRotationAckPayload): void;
    /** An Error that names a key. */
    refused(error: ErrorPayload): void;
    /** Rejects all that are open. */
    close(error: SealpostError): void;
}

/** New keys for peers: each is repeated on every connection until the peer answers. */
export function createRotations(control: Control): Rotations {
    const open = new Map<string, Rotation>();

    /** The number 7 and the string "7" are two key ids. */
    const keyOf = (peer: string, keyId: KeyId): string => peer + JSON.stringify(keyId);

    const end = (key: string, error?: SealpostError): void => {
        const outcome = open.get(key)?.outcome;
        open.delete(key);
        if (error) outcome?.reject(error);
        else outcome?.resolve();
    };

    return {
        start(peer, keyPackage, keyId) {
            const key = keyOf(peer, keyId);
            end(key, new RefusedError("begun anew"));
            const outcome = deferred();
            const frame: MakeFrame = (self) =>
                open.has(key)
                    ? {
                          type: "KeyRotationUpdate",
                          payload: {
                              sender_id: self,
                              recipient_id: peer,
                              encrypted_key_package: keyPackage,
                              key_id: keyId,
                          },
                      }
                    : undefined;
            open.set(key, { frame, outcome });
            control.add(frame);
            return outcome.promise;
        },

        online() {
            for (const { frame } of open.values()) control.add(frame);
        },

        acked({ sender_id, key_id, success }) {
            end(
                keyOf(sender_id.toLowerCase(), key_id),
                success ? undefined : new RefusedError("the peer refused the key"),
            );
        },

        refused(error) {
            const key = keyOf(error.recipient_id ?? "", error.key_id ?? "");
            const frame = open.get(key)?.frame;
            if (frame && isPassing(error)) control.repeat(frame, error);
            else end(key, toError(error));
        },

        close(error) {
            for (const key of open.keys()) end(key, error);
        },
    };
}
