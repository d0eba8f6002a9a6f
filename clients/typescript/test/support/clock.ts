import type { Clock } from "../../src/index.js";

/** Lets all that is ready run: with stores in memory, nothing takes longer. */
export async function settle(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
}

/** A clock that stands still until a test moves it. */
export class FakeClock implements Clock {
    #now = 1000;
    #wall = Date.UTC(2026, 0, 1);
    readonly #timers = new Set<{ at: number; run: () => void }>();

    now(): number {
        return this.#now;
    }

    wall(): number {
        return this.#wall;
    }

    setTimeout(run: () => void, ms: number): unknown {
        const timer = { at: this.#now + ms, run };
        this.#timers.add(timer);
        return timer;
    }

    clearTimeout(timer: unknown): void {
        this.#timers.delete(timer as { at: number; run: () => void });
    }

    get timers(): number {
        return this.#timers.size;
    }

    /** Passes time, and runs what falls due. */
    async advance(ms: number): Promise<void> {
        const end = this.#now + ms;
        await settle();
        for (;;) {
            const [next] = [...this.#timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at);
            if (!next) break;
            this.#timers.delete(next);
            this.#move(Math.max(next.at, this.#now));
            next.run();
            await settle();
        }
        this.#move(end);
        await settle();
    }

    /** Sets the wall clock forwards or back, as an operator or a sleeping system does. */
    shiftWall(ms: number): void {
        this.#wall += ms;
    }

    #move(to: number): void {
        this.#wall += to - this.#now;
        this.#now = to;
    }
}
