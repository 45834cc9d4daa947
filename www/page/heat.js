// The map over the picture: what in it moved the score of a label. It is made when somebody asks for it, never before an answer.

import { fits } from '../lib/client/scores.js';
import { $ } from './elements.js';
import { texts } from './language.js';
import { percent } from './results.js';

/** @typedef {import('../lib/siglip-web.js').HeatMap} HeatMap */
/** @typedef {import('./page.d.ts').Answer} Answer */

/** Labels whose maps make the scale, beside the chosen one: the best of those that may fit. */
const SCALE_OVER = 6;
/** Pixels of the longer side that a map is drawn in. */
const SIDE = 512;
/** From little to most, as red, green and blue: legible on a picture that has lost its colours. */
const COLOURS = /** @type {const} */ ([[88, 28, 135], [219, 39, 119], [251, 146, 60], [253, 224, 71]]);

export class HeatMaps {
  #tell;
  #fail;
  /** @type {Answer | undefined} */
  #answer;
  /** @type {string | undefined} */
  #chosen;
  /** By label, of the answer that `#made` is. @type {Map<string, HeatMap>} */
  #maps = new Map();
  /** @type {Answer | undefined} */
  #made;
  /** @type {AbortController | undefined} */
  #asking;

  /** @param {{tell: (chosen: string | undefined) => void, fail: (error: unknown) => void}} page tell: which label is chosen now */
  constructor({ tell, fail }) {
    this.#tell = tell;
    this.#fail = fail;
  }

  /** Shows the map of a label, or no map any more if it was there. @param {string} label */
  choose(label) {
    this.#chosen = this.#chosen === label ? undefined : label;
    this.#tell(this.#chosen);
    this.#show();
  }

  /** The answer on the page is this one now; none while it is an old one. @param {Answer | undefined} answer */
  follow(answer) {
    if (answer === this.#answer) return;
    this.#answer = answer;
    if (!answer) return this.#hide();
    const before = this.#made;
    this.#made = answer;
    if (before?.picture !== answer.picture || before.template !== answer.template || before.classifier !== answer.classifier) this.#maps.clear();
    if (this.#chosen !== undefined && (!answer.labels.includes(this.#chosen) || before?.picture !== answer.picture)) this.#chosen = undefined;
    this.#tell(this.#chosen);
    this.#show();
  }

  /** Says what it says once more, in another language. */
  say() {
    this.#show();
  }

  #hide() {
    this.#asking?.abort();
    $.heat.hidden = true;
    $.heatNote.hidden = true;
    $.stage.style.removeProperty('--heat');
  }

  async #show() {
    const [answer, chosen] = [this.#answer, this.#chosen];
    const score = answer?.scores.find(({ label }) => label === chosen)?.score;
    if (!answer || chosen === undefined || score === undefined) return this.#hide();
    this.#asking?.abort();
    const job = this.#asking = new AbortController();
    const tuned = answer.classifier.info.task === 'image-classification';
    if (fits(score, tuned) === 'no') {
      this.#hide();
      return this.#note(texts.heatAbsent(chosen, percent(score)));
    }
    try {
      const { classifier, picture } = answer;
      const template = tuned ? undefined : answer.template;
      const others = answer.scores.filter((one) => fits(one.score, tuned) !== 'no').slice(0, SCALE_OVER).map(({ label }) => label);
      for (const label of new Set([chosen, ...others])) {
        if (this.#maps.has(label)) continue;
        const map = await classifier.explain(picture.blob, label, { template, signal: job.signal });
        if (job !== this.#asking || job.signal.aborted) return;
        this.#maps.set(label, map);
      }
      const map = /** @type {HeatMap} */ (this.#maps.get(chosen));
      const scale = [...this.#maps.values()].reduce((most, { values }) => values.reduce((a, b) => Math.max(a, b), most), 0);
      const at = map.values.indexOf(Math.max(...map.values));
      if (!((map.values[at] ?? 0) > 0)) {
        this.#hide();
        return this.#note(texts.heatNowhere(chosen));
      }
      // A square root, as eyes tell light from light: 10 % of the probability is a third of the strength.
      const strength = Math.sqrt(score);
      if (picture.viewable) {
        draw(map, scale, strength);
        $.stage.style.setProperty('--heat', String(strength));
        $.heat.hidden = false;
      }
      const third = (/** @type {number} */ place, /** @type {number} */ count) => Math.floor((3 * (place + 0.5)) / count);
      const where = texts.places[third(Math.floor(at / map.columns), map.rows)]?.[third(at % map.columns, map.columns)] ?? '';
      this.#note(texts.heat(chosen, where, percent(score)));
    } catch (error) {
      if (job.signal.aborted || job !== this.#asking) return;
      this.#chosen = undefined;
      this.#tell(undefined);
      this.#hide();
      this.#fail(error);
    }
  }

  /** @param {string} text */
  #note(text) {
    $.heatNote.textContent = text;
    $.heatNote.hidden = false;
  }
}


/** @param {HeatMap} map @param {number} scale the value that is drawn strongest @param {number} strength of the whole map, 0 to 1 */
function draw({ rows, columns, values }, scale, strength) {
  const pixels = new ImageData(columns, rows);
  values.forEach((value, i) => {
    const t = Math.max(0, value) / scale;
    const step = Math.min(COLOURS.length - 2, Math.floor(t * (COLOURS.length - 1)));
    const part = t * (COLOURS.length - 1) - step;
    const [from, to] = [COLOURS[step] ?? COLOURS[0], COLOURS[step + 1] ?? COLOURS[0]];
    pixels.data.set([...from.map((one, k) => one + part * ((to[k] ?? 0) - one)), 255 * strength * 0.85 * t], 4 * i);
  });
  const small = Object.assign(document.createElement('canvas'), { width: columns, height: rows });
  small.getContext('2d')?.putImageData(pixels, 0, 0);
  // The model sees the whole picture, squeezed into a square: its places lie over the whole picture.
  const { naturalWidth: width, naturalHeight: height } = $.preview;
  const zoom = SIDE / Math.max(width, height);
  Object.assign($.heat, { width: Math.max(1, Math.round(width * zoom)), height: Math.max(1, Math.round(height * zoom)) });
  const context = $.heat.getContext('2d');
  if (!context) return;
  context.imageSmoothingQuality = 'high';
  context.drawImage(small, 0, 0, $.heat.width, $.heat.height);
}
