import type { WebSocketLike } from "../../src/index.js";
import { settle } from "./clock.js";

type Listener = (event: never) => void;

/** A frame as a test reads and writes it. */
export interface AnyFrame {
    type: string;
    payload?: Record<string, unknown>;
}

/** The relay's side of a WebSocket, played by a test. */
export class FakeSocket implements WebSocketLike {
    readyState = 0;
    readonly sent: AnyFrame[] = [];
    /** With which code this side was closed. */
    closedWith: number | undefined;
    readonly #listeners = new Map<string, Listener[]>();

    constructor(readonly url: string) {}

    addEventListener(type: string, listener: Listener): void {
        this.#listeners.set(type, [...(this.#listeners.get(type) ?? []), listener]);
    }

    send(data: string): void {
        if (this.readyState !== 1) throw new Error("The socket is not open.");
        this.sent.push(JSON.parse(data) as AnyFrame);
    }

    close(code = 1005): void {
        if (this.closedWith !== undefined) return;
        this.closedWith = code;
        this.readyState = 2;
    }

    fire(type: string, event: object = {}): void {
        for (const listener of this.#listeners.get(type) ?? []) listener(event as never);
    }

    async accept(): Promise<void> {
        this.readyState = 1;
        this.fire("open");
        await settle();
    }

    /** The relay says something. */
    async says(type: string, payload?: Record<string, unknown>): Promise<void> {
        this.fire("message", { data: JSON.stringify(payload ? { type, payload } : { type }) });
        await settle();
    }

    /** The relay closes the connection, or it breaks. */
    async ends(code: number, reason = ""): Promise<void> {
        this.readyState = 3;
        this.fire("close", { code, reason });
        await settle();
    }

    /** All frames of a type that left. */
    frames(type: string): Record<string, unknown>[] {
        return this.sent.filter((frame) => frame.type === type).map(({ payload }) => payload ?? {});
    }

    /** What the data of all messages was that left. */
    get data(): unknown[] {
        return this.frames("Send").map((payload) => payload["encrypted_data"]);
    }
}
