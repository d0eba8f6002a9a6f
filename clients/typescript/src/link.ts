import { type Clock, createTimer } from "./clock.js";
import type { ClientFrame, ServerFrame } from "./frames.js";

/** What this package uses of a WebSocket. */
export interface WebSocketLike {
    readonly readyState: number;
    send(data: string): void;
    close(code?: number, reason?: string): void;
    // The libraries have event types of their own; `any` fits them all.
    // eslint-disable-next-line @typescript-eslint/no-explicit-any
    addEventListener(type: "open" | "message" | "close" | "error", listener: (event: any) => void): void;
}

export type WebSocketConstructor = new (url: string) => WebSocketLike;

/** What the `ws` package has beyond the standard. */
interface WsExtras {
    on?(event: "unexpected-response", listener: (request: unknown, response: HttpAnswer) => void): void;
    terminate?(): void;
}

interface HttpAnswer {
    statusCode?: number;
    headers: Record<string, string | string[] | undefined>;
}

export interface LinkEvents {
    opened(): void;
    frame(frame: ServerFrame): void;
    /** `retryAfter`: milliseconds that an HTTP refusal named. */
    ended(code: number, reason: string, retryAfter?: number): void;
    fault(error: unknown): void;
}

export interface Link {
    /** Writes a frame, or its text. A socket that is closing takes nothing any more. */
    send(frame: ClientFrame | string): void;
    /** Ends the link without another event. */
    drop(): void;
    /** The same with a Close. Resolves when the socket is closed, or the server did not answer in time. */
    goodbye(clock: Clock): Promise<void>;
}

const OPEN = 1;

/** Milliseconds that the server has to answer a Close. */
const GOODBYE = 2000;

/**
 * One WebSocket, from its opening to its end. After `ended`, `drop` and `goodbye` no event comes any more, whatever the
 * socket says late: so nobody has to ask to which connection an event belongs.
 */
export function createLink(WebSocket: WebSocketConstructor, url: string, events: LinkEvents): Link {
    const socket: WebSocketLike & WsExtras = new WebSocket(url);
    let isLive = true;

    const drop = (): void => {
        isLive = false;
        if (socket.terminate) socket.terminate();
        else socket.close();
    };
    const end: LinkEvents["ended"] = (...how) => {
        if (!isLive) return;
        drop();
        events.ended(...how);
    };

    socket.addEventListener("open", () => {
        if (isLive) events.opened();
    });
    socket.addEventListener("message", ({ data }: { data: string }) => {
        if (!isLive) return;
        try {
            events.frame(JSON.parse(data) as ServerFrame);
        } catch (error) {
            // The relay sent what cannot be read.
            events.fault(error);
        }
    });
    socket.addEventListener("close", ({ code, reason }: { code: number; reason: string }) => {
        end(code, reason);
    });
    // Not all libraries send `close` after `error`; what ends with an error has no close code but 1006.
    socket.addEventListener("error", ({ message = "" }: { message?: string }) => {
        end(1006, message);
    });
    socket.on?.("unexpected-response", (_request, { statusCode, headers }) => {
        end(1006, `HTTP ${String(statusCode)}`, (Number(headers["retry-after"]) || 0) * 1000);
    });

    return {
        send(frame) {
            if (isLive && socket.readyState === OPEN)
                socket.send(typeof frame === "string" ? frame : JSON.stringify(frame));
        },
        drop,
        goodbye: (clock) =>
            new Promise((resolve) => {
                isLive = false;
                const timer = createTimer(clock);
                timer.set(GOODBYE, () => {
                    drop();
                    resolve();
                });
                socket.addEventListener("close", () => {
                    timer.clear();
                    resolve();
                });
                socket.close(1000);
            }),
    };
}
