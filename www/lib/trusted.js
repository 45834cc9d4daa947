// Pages that demand Trusted Types (require-trusted-types-for 'script') take addresses of scripts, and markup to be parsed, only from a policy that they allow by name.

/** @type {any} */
let policy;

/** @param {"createScriptURL" | "createHTML"} kind @param {string} text @returns {any} */
function pass(kind, text) {
  const { trustedTypes } = /** @type {any} */ (globalThis);
  if (!trustedTypes) return text;
  try {
    policy ??= trustedTypes.createPolicy("siglip-web", { createScriptURL: (/** @type {string} */ address) => address, createHTML: (/** @type {string} */ markup) => markup });
  } catch {
    // Not among those that the page allows. It need not demand any.
    return text;
  }
  return policy[kind](text);
}

export const trusted = {
  /** @param {string} address of the library's own worker */
  script: (address) => pass("createScriptURL", address),
  /** @param {string} markup that is parsed apart from the page, and never put into it */
  markup: (markup) => pass("createHTML", markup),
};
