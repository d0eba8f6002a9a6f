/** Where time comes from; tests put their own in its place. */
export interface Clock {
    /** Milliseconds that only grow, for waits. */
    now(): number;
    /** Unix milliseconds, for what outlives the process and to notice that the system slept. */
    wall(): number;
    setTimeout(run: () => void, ms: number): unknown;
    clearTimeout(timer: unknown): void;
}

export const systemClock: Clock = {
    now: () => performance.now(),
    wall: () => Date.now(),
    setTimeout: (run, ms) => setTimeout(run, ms),
    clearTimeout: (timer) => {
        clearTimeout(timer as ReturnType<typeof setTimeout>);
    },
};

/** The longest wait that timers of JavaScript can make. */
const LONGEST = 2 ** 31 - 1;

export interface Timer {
    set(ms: number, run: () => void): void;
    clear(): void;
}

/**
 * One timer that is set again and again; an infinite time sets none. It runs early where the wait is longer than 24
 * days.
 */
export function createTimer(clock: Clock): Timer {
    let timer: unknown;
    const clear = (): void => {
        clock.clearTimeout(timer);
    };
    return {
        set(ms, run) {
            clear();
            if (ms < Infinity) timer = clock.setTimeout(run, Math.min(ms, LONGEST));
        },
        clear,
    };
}
