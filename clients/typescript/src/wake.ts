/** What a browser has and other runtimes may lack. */
interface Target {
    addEventListener?: (type: string, listener: () => void, options: { signal: AbortSignal }) => void;
}

/** Calls `woke` when a network comes back or a page becomes visible, until the function that is returned is called. */
export function onWake(woke: () => void): () => void {
    const end = new AbortController();
    const page = globalThis as Target & { document?: Target & { visibilityState: string } };
    page.addEventListener?.("online", woke, end);
    page.document?.addEventListener?.(
        "visibilitychange",
        () => {
            if (page.document?.visibilityState === "visible") woke();
        },
        end,
    );
    return () => {
        end.abort();
    };
}
