/** The relay restarts. */
export const GOING_AWAY = 1001;

/** A message was far too large. */
export const TOO_LARGE = 1009;

/** Another connection took up this device. */
export const REPLACED = 4409;

/** After these a person should look: the next attempt would end alike. */
export function isFinal(code: number): boolean {
    return [1002, 1003, 1007, 1008, 4403].includes(code);
}
