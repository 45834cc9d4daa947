// Ways of asking: names put into a sentence, sentences as they stand, a blank to fill in. Each is a template; two have an example, on a sample.

import { $ } from './elements.js';
import { onLanguage, texts } from './language.js';

/** @typedef {'names' | 'sentences' | 'blank'} Way */
/** @typedef {{template: string, sample: string, labels: string[]}} Example */

/** The templates that sentences and blanks begin with. */
const TEMPLATES = { sentences: '{}', blank: 'The car is {}.' };
/** They work with the demo model: tests/browser/page.test.mjs looks. @type {Record<Exclude<Way, 'names'>, Example>} */
export const EXAMPLES = {
  sentences: { template: TEMPLATES.sentences, sample: 'penguin.png', labels: ['There is a penguin in this picture.', 'A train is crossing a bridge.', 'A guitar leans on a chair.'] },
  blank: { template: 'The balloon is {}.', sample: 'balloon.png', labels: ['red', 'blue', 'green', 'yellow'] },
};

/** How a template asks. @param {string} template @returns {Way} */
export function wayOf(template) {
  const text = template.trim();
  return text === $.template.defaultValue ? 'names' : text === TEMPLATES.sentences ? 'sentences' : 'blank';
}

/** Marks the way that the template has now. */
export function markWay() {
  const now = wayOf($.template.value);
  for (const button of $.ways.querySelectorAll('button[data-way]')) button.setAttribute('aria-pressed', String(/** @type {HTMLElement} */ (button).dataset.way === now));
}

/**
 * @param {{change: () => void, show: (example: Example) => void}} page change: the template is another
 */
export function connectAsking({ change, show }) {
  const items = /** @type {Way[]} */ (['names', 'sentences', 'blank']).map((way) => {
    const [item, choose, hint, example] = /** @type {const} */ (['li', 'button', 'p', 'button']).map((name) => document.createElement(name));
    if (!item || !(choose instanceof HTMLButtonElement) || !hint || !(example instanceof HTMLButtonElement)) throw new TypeError();
    Object.assign(choose, { type: 'button', className: 'button small' });
    choose.dataset.way = way;
    hint.className = 'hint';
    hint.id = `way-${way}`;
    choose.setAttribute('aria-describedby', hint.id);
    choose.addEventListener('click', () => {
      $.template.value = way === 'names' ? $.template.defaultValue : TEMPLATES[way];
      change();
      if (way !== 'blank') return $.labels.focus();
      $.template.focus();
      $.template.setSelectionRange('The '.length, 'The car'.length); // to be typed over
    });
    item.append(choose, hint);
    if (way !== 'names') {
      Object.assign(example, { type: 'button', className: 'text' });
      example.addEventListener('click', () => show(EXAMPLES[way]));
      item.append(example);
    }
    const call = () => {
      const { name, hint: words, example: title } = texts.ways[way];
      choose.textContent = name;
      hint.textContent = words;
      example.textContent = title;
    };
    call();
    onLanguage(call);
    return item;
  });
  $.ways.replaceChildren(...items);
  markWay();
}
