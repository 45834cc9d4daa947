// The keeper of an index, which is in a worker, as the page asks it.

/** @typedef {import("./keeper.js").Keeper} Keeper */
/** @typedef {import("./keeper.js").Status} Status */
/** What can be asked, and what each gives. @typedef {{[M in keyof Keeper as Keeper[M] extends Function ? M : never]: Keeper[M]}} Methods */

export class Remote {
  #link;
  /** As of the last answer. @type {Status} */
  status = { size: 0, kept: false, keptReason: "", damaged: 0 };

  /** @param {import("../client/link.js").Link} link */
  constructor(link) {
    this.#link = link;
  }

  /**
   * @template {keyof Methods | "start"} M
   * @param {M} method
   * @param {M extends keyof Methods ? Parameters<Methods[M]> : any[]} given
   * @returns {Promise<M extends keyof Methods ? Awaited<ReturnType<Methods[M]>> : undefined>}
   */
  async ask(method, ...given) {
    const { value, status } = await this.#link.request(/** @type {any} */ ({ method, given })).reply;
    if (status) this.status = status;
    return value;
  }

  /** @param {import("../error.js").SiglipError} reason what is answered from now on */
  close(reason) {
    this.#link.close(reason);
  }
}
