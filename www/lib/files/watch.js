// Requests that come to an end, whatever the other side does.

/** Ends a request that gives nothing for too long. */
export class Watch {
  #stop = new AbortController();
  #timers = [0, 0];
  #slow;

  /** @param {number} time @param {AbortSignal} signal of the caller @param {(seconds: number) => void} [slow] told before that */
  constructor(time, signal, slow = () => {}) {
    this.time = time;
    this.#slow = slow;
    this.signal = AbortSignal.any([signal, this.#stop.signal]);
  }

  /** @template T @param {Promise<T>} work @returns {Promise<T>} */
  async during(work) {
    const late = new Promise((_, reject) => {
      const slow = this.time / 3;
      this.#timers = [
        setTimeout(() => this.#slow(Math.round(slow / 1000)), slow),
        setTimeout(() => {
          reject(STALLED);
          this.#stop.abort();
        }, this.time),
      ];
    });
    try {
      return await Promise.race([work, late]);
    } finally {
      this.#timers.forEach(clearTimeout);
    }
  }
}

export const STALLED = new Error("stalled");
