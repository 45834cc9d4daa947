// Labels that survive, with the template that they go into: kept in this browser, or in the fragment of a link, which no server ever sees.

const KEY = 'siglip-web.labels';
/** Longer ones make no link that mail and chat programs leave whole. */
const LONGEST_LINK = 8000;

/** @returns {{labels?: string, template?: string}} what the address asks for; the skip link's #labels is nothing */
export function linked() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  return { labels: fragment.get('labels') || undefined, template: fragment.get('template') || undefined };
}

/**
 * A link to this page with these labels; undefined if it would be too long.
 * @param {string} labels @param {string} template @param {string} usual the template that needs no mention
 */
export function linkTo(labels, template, usual) {
  const fragment = new URLSearchParams({ labels, ...(template !== usual && { template }) });
  const url = new URL(location.href);
  url.hash = fragment.toString().replace(/\+/g, '%20');
  return url.href.length <= LONGEST_LINK ? url.href : undefined;
}

/** The address asks for nothing any more. @returns {boolean} whether it did */
export function unlink() {
  const { labels, template } = linked();
  if (!labels && !template) return false;
  history.replaceState(null, '', location.pathname + location.search);
  return true;
}

/** @returns {ReturnType<typeof linked>} what was typed the last time */
export function remembered() {
  try {
    const { labels, template } = JSON.parse(localStorage.getItem(KEY) ?? '{}');
    return { labels, template };
  } catch {
    return {}; // this browser keeps nothing for this page, or what it has is an older page's
  }
}

/** @param {string} labels @param {string} template @param {string} usual the template that needs no mention */
export function remember(labels, template, usual) {
  try {
    if (labels.trim()) localStorage.setItem(KEY, JSON.stringify({ labels, ...(template !== usual && { template }) }));
    else localStorage.removeItem(KEY);
  } catch {
    // It keeps nothing, or has no room: the labels are typed again the next time.
  }
}
