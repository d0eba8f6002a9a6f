import { type Clock, createTimer } from "./clock.js";

export interface WatchdogSettings {
    /** Milliseconds without a frame after which a `Ping` leaves. */
    ping: number;
    /** Milliseconds more after which the connection counts as dead. */
    timeout: number;
}

export interface Watchdog {
    start(): void;
    stop(): void;
    /** A frame came. */
    frame(): void;
    /** Asks at once. */
    check(): void;
}

/** A timer that comes this much too late shows that the system slept. */
const SLEPT = 10_000;

/** Notices that a connection is dead. Browsers hide the pings of WebSocket, so this one counts frames. */
export function createWatchdog(clock: Clock, settings: WatchdogSettings, ping: () => void, dead: () => void): Watchdog {
    const timer = createTimer(clock);
    let lastFrame = 0;
    /** Whether a Ping left that no frame has followed yet. */
    let asked = false;

    const frame = (): void => {
        lastFrame = clock.now();
        asked = false;
    };
    const wait = (ms: number): void => {
        const due = clock.wall() + ms;
        timer.set(ms, () => {
            const left = lastFrame + settings.ping - clock.now();
            if (clock.wall() - due > SLEPT) check();
            else if (asked) dead();
            else if (left > 0) wait(left);
            else check();
        });
    };
    const check = (): void => {
        asked = true;
        ping();
        wait(settings.timeout);
    };

    return {
        start() {
            frame();
            wait(settings.ping);
        },
        stop: timer.clear,
        frame,
        check,
    };
}
