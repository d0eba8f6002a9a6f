export interface Emitter<Events> {
    /** Calls the listener at each event of this name, until the function that is returned is called. */
    on<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): () => void;
    emit<Name extends keyof Events>(name: Name, event: Events[Name]): void;
}

/** Typed events. */
export function createEmitter<Events>(): Emitter<Events> {
    const all = new Set<{ name: keyof Events; listener: (event: never) => void }>();
    return {
        on(name, listener) {
            const one = { name, listener };
            all.add(one);
            return () => void all.delete(one);
        },

        emit(name, event) {
            for (const one of [...all]) {
                if (one.name !== name) continue;
                try {
                    one.listener(event as never);
                } catch (error) {
                    // A fault of a listener is the application's, and must not stop the client in the middle of a step.
                    queueMicrotask(() => {
                        throw error;
                    });
                }
            }
        },
    };
}
