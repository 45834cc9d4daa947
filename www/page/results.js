// Labels as people type them, scores as people read them.

import { SEPARATORS, fits, percent as english } from '../lib/client/scores.js';
import { number, texts } from './language.js';

const lines = /[\n\r]+/;

/**
 * Splits what was typed into labels. The model reads lower case, so "Cat" and "cat" are one label; it leaves out
 * punctuation, so that "?!" is none.
 * @param {string} text
 * @param {{sentences?: boolean}} [how] sentences: one to a line, whatever they hold
 * @returns {{labels: string[], repeated: string[], empty: string[]}}
 */
export function parseLabels(text, { sentences = false } = {}) {
  const seen = new Map();
  const repeated = new Set();
  const empty = new Set();
  for (const part of text.split(sentences ? lines : SEPARATORS)) {
    const label = part.replace(/\s+/g, ' ').trim();
    if (!label) continue;
    if (/^[!-/:-@[-`{-~ ]+$/.test(label)) {
      empty.add(label);
      continue;
    }
    const key = label.toLowerCase();
    if (seen.has(key)) repeated.add(seen.get(key));
    else seen.set(key, label);
  }
  return { labels: [...seen.values()], repeated: [...repeated], empty: [...empty] };
}

/** The same logits as CLIP would read them: shares that add up to one. @param {number[]} logits */
export function softmax(logits) {
  const top = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

/** 98600000 → "99 MB". @param {number} count */
export function bytes(count) {
  if (count >= 1e9) return `${number(count / 1e9, 1)} GB`;
  if (count >= 1e7) return `${number(count / 1e6)} MB`;
  if (count >= 1e6) return `${number(count / 1e6, 1)} MB`;
  return `${number(Math.max(count > 0 ? 1 : 0, count / 1e3))} kB`;
}

/** 1234 → "1.23 s". @param {number} ms */
export function duration(ms) {
  if (ms < 1) return '<1 ms';
  if (ms < 1000) return `${number(ms)} ms`;
  return `${number(ms / 1000, ms < 10000 ? 2 : 1)} s`;
}

/** 95 → "2 minutes". @param {number} seconds */
export function remaining(seconds) {
  if (seconds < 55) return texts.seconds(Math.max(5, 5 * Math.round(seconds / 5)));
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return texts.minutes(minutes);
  const hours = Math.round(minutes / 6) / 10;
  return texts.hours(hours, number(hours, Number.isInteger(hours) ? 0 : 1));
}

/** How fast something arrives, of late, and how long the rest will take. */
export class Rate {
  /** @type {{time: number, loaded: number}[]} oldest first */
  #marks = [];

  /**
   * @param {number} time in milliseconds
   * @param {number} loaded bytes so far
   * @param {number} total of them
   * @returns {{rate?: number, left?: number}} bytes a second, and seconds; once there is something to go by
   */
  add(time, loaded, total) {
    const last = this.#marks.at(-1);
    if (last && loaded < last.loaded) this.#marks = []; // another file
    if (!last || this.#marks.length === 0 || time - last.time >= 250) this.#marks.push({ time, loaded });
    while (this.#marks.length > 2 && time - this.#first.time > 10_000) this.#marks.shift();
    const past = time - this.#first.time;
    if (past < 1000) return {};
    const rate = (1000 * (loaded - this.#first.loaded)) / past;
    return rate > 0 ? { rate, left: total > loaded ? (total - loaded) / rate : 0 } : {};
  }

  get #first() {
    return /** @type {{time: number, loaded: number}} */ (this.#marks[0]);
  }
}

/** 0.9312 → "93.1%". @param {number} score */
export function percent(score) {
  const [point] = number(0.5, 1).match(/[^\d]/) ?? ['.'];
  return texts.percent(english(score).replace('%', '').replace('.', point));
}

/** @template T @param {T[]} list */
const first = (list) => /** @type {T} */ (list[0]);

/**
 * One honest sentence about sigmoid probabilities, best first.
 * @param {{label: string, score: number}[]} scores at least one
 * @param {boolean} guess from a model that knows nothing of such pictures: nothing "fits"
 * @returns {{state: "good" | "unsure" | "none", text: string}}
 */
export function verdict(scores, guess = false) {
  const best = first(scores);
  if (guess) {
    return fits(best.score) === 'no'
      ? { state: 'none', text: texts.nothingClose(best.label, percent(best.score)) }
      : { state: 'unsure', text: texts.guess(best.label, percent(best.score)) };
  }
  return judge(scores, false, false);
}

/**
 * The same for a fine-tuned model, whose labels may exclude each other.
 * @param {{label: string, score: number}[]} scores @param {boolean} exclusive @returns {ReturnType<typeof verdict>}
 */
export function tunedVerdict(scores, exclusive) {
  return judge(scores, true, exclusive);
}

/** @param {{label: string, score: number}[]} scores @param {boolean} tuned @param {boolean} exclusive one of them is right @returns {ReturnType<typeof verdict>} */
function judge(scores, tuned, exclusive) {
  const best = first(scores);
  const fitting = scores.filter(({ score }) => fits(score, tuned) === 'yes');
  if (fitting.length > 3) return { state: 'good', text: texts.manyFit(fitting.length, best.label, percent(best.score)) };
  if (fitting.length > 1) return { state: 'good', text: texts.fit(fitting.map(({ label, score }) => ({ label, percent: percent(score) }))) };
  if (fitting.length > 0) return { state: 'good', text: texts.fits(best.label, percent(best.score)) };
  if (exclusive || fits(best.score, tuned) === 'maybe') return { state: 'unsure', text: texts.perhaps(best.label, percent(best.score)) };
  return { state: 'none', text: texts.noneFits(best.label, percent(best.score)) };
}

/**
 * The same for softmax: it names the forced winner, then what the winner is worth on its own.
 * @param {{label: string, score: number, alone: number}[]} rows @returns {ReturnType<typeof verdict>}
 */
export function softmaxVerdict(rows, guess = false) {
  const best = first(rows);
  const alone = verdict(rows.map(({ label, alone: score }) => ({ label, score })).sort((a, b) => b.score - a.score), guess);
  const winner = texts.softmaxPicks(best.label, percent(best.score));
  if (alone.state === 'good') return { state: 'good', text: winner };
  if (guess) return { state: alone.state, text: `${winner} ${alone.text}` };
  const truth = alone.state === 'none' ? texts.softmaxNone : texts.softmaxUnsure;
  return { state: alone.state, text: `${winner} ${truth(percent(best.alone))}` };
}

/** @template {keyof HTMLElementTagNameMap} T @param {T} name @param {string} className */
function make(name, className) {
  return Object.assign(document.createElement(name), { className });
}

/** @param {() => void} choose */
function row(choose) {
  const item = document.createElement('li');
  const fill = make('span', 'fill');
  const bar = make('span', 'bar');
  bar.setAttribute('aria-hidden', 'true');
  bar.append(fill);
  const where = Object.assign(make('button', 'where'), { type: 'button' });
  const [icon, use] = ['svg', 'use'].map((name) => document.createElementNS('http://www.w3.org/2000/svg', name));
  use?.setAttribute('href', '#i-where');
  icon?.setAttribute('aria-hidden', 'true');
  if (icon && use) icon.append(use);
  where.append(icon ?? '');
  where.setAttribute('aria-pressed', 'false');
  where.addEventListener('click', choose);
  const parts = { item, name: make('span', 'name'), value: make('span', 'value'), fill, alone: make('span', 'alone'), where, seen: 0 };
  item.append(parts.name, ' ', parts.value, where, bar, parts.alone);
  return parts;
}

/** Milliseconds that a live bar takes for two thirds of its way. */
const SMOOTHING = 250;

/** The list of results. Items live on from one answer to the next, so bars grow and rows change places smoothly. */
export class ResultList {
  #list;
  #choose;
  /** When the last live results came. */
  #last = 0;
  /** @type {Map<string, ReturnType<typeof row>>} */
  #rows = new Map();
  #calm = matchMedia('(prefers-reduced-motion: reduce)');

  /** @param {HTMLOListElement} list @param {(label: string) => void} choose where in the picture it is to be shown */
  constructor(list, choose) {
    this.#list = list;
    this.#choose = choose;
  }

  /**
   * @param {import('./page.d.ts').Row[]} results best first
   * @param {boolean} guess see `verdict`
   * @param {boolean} tuned of a fine-tuned model
   * @param {boolean} live one of many a second: rows keep the order that they are given in, and bars follow smoothly; the numbers are exact
   */
  show(results, guess = false, tuned = false, live = false) {
    const moving = !live && !this.#calm.matches && results.length <= 40;
    const now = performance.now();
    const step = live && !this.#calm.matches ? 1 - Math.exp((this.#last - now) / SMOOTHING) : 1;
    this.#last = now;
    const before = new Map();
    if (moving) for (const [label, { item }] of this.#rows) before.set(label, item.offsetTop);

    const rows = new Map();
    /** @type {[ReturnType<typeof row>, number][]} */
    const fresh = [];
    for (const { label, score, alone } of results) {
      // A model may have two labels of the same name.
      let key = label;
      while (rows.has(key)) key += '\n';
      let parts = this.#rows.get(key);
      if (!parts) {
        parts = row(() => this.#choose(label));
        parts.name.textContent = label;
        parts.name.dir = 'auto';
        parts.name.title = label.length > 80 ? label.slice(0, 400) : '';
        parts.seen = score;
        fresh.push([parts, score]);
      } else {
        parts.seen += step * (score - parts.seen);
        parts.fill.style.transform = `scaleX(${parts.seen})`;
      }
      parts.where.title = texts.where(label);
      parts.value.textContent = percent(score);
      parts.alone.textContent = alone === undefined ? '' : texts.alone(percent(alone));
      parts.alone.hidden = alone === undefined;
      const fit = fits(alone ?? score, tuned);
      parts.item.dataset.fit = guess && fit === 'yes' ? 'maybe' : fit;
      rows.set(key, parts);
    }
    this.#rows = rows;
    const items = [...rows.values()].map(({ item }) => item);
    // Items that are put in again lose the focus.
    if (items.length !== this.#list.children.length || items.some((item, i) => item !== this.#list.children[i])) this.#put(items);

    if (moving) {
      for (const [label, { item }] of rows) {
        const from = before.get(label);
        if (from === undefined) item.animate([{ opacity: 0 }, { opacity: 1 }], { duration: 200, easing: 'ease-out' });
        else if (from !== item.offsetTop) {
          item.animate([{ transform: `translateY(${from - item.offsetTop}px)` }, { transform: 'none' }], { duration: 260, easing: 'cubic-bezier(.2,.7,.2,1)' });
        }
      }
      void this.#list.offsetHeight; // new bars start at zero, then grow
    }
    for (const [parts, score] of fresh) parts.fill.style.transform = `scaleX(${score})`;
  }

  /** @param {HTMLLIElement[]} items */
  #put(items) {
    const focused = document.activeElement;
    this.#list.replaceChildren(...items);
    if (focused instanceof HTMLElement && this.#list.contains(focused)) focused.focus({ preventScroll: true });
  }

  /** Marks the label whose map is shown. @param {string | undefined} label */
  mark(label) {
    for (const [name, { where }] of this.#rows) where.setAttribute('aria-pressed', String(name === label));
  }

  clear() {
    this.#rows.clear();
    this.#list.replaceChildren();
  }
}
