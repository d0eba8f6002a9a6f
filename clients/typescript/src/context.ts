import type { ClientEvents } from "./api.js";
import type { Clock } from "./clock.js";
import type { ClientFrame } from "./frames.js";
import type { Pacing } from "./pacing.js";

/** What the parts of one client share. */
export interface Context {
    clock: Clock;
    /** What the waits of the design page are multiplied with. */
    scale: number;
    pacing: Pacing;
    /** The id of this device while the connection is online, else undefined. */
    self: string | undefined;
    emit<Name extends keyof ClientEvents>(name: Name, event: ClientEvents[Name]): void;
    /** Writes a frame, or its text, if the connection is online. */
    write(frame: ClientFrame | string): void;
    /** Writes what may leave now. */
    pump(): void;
}
