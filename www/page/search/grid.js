// Thousands of pictures in a grid that scrolls with the page: only those in sight, and a little beyond, are there.

import { $ } from './elements.js';

/** @typedef {{id: string, score?: string}} Item score: as people read it */
/**
 * @typedef {object} Source
 * @property {(id: string) => Promise<ImageBitmap | undefined>} picture small; undefined if it can't be shown
 * @property {() => void} changed the selection is another
 * @property {(id: string) => void} like more like this one is wanted
 */
/** `state`: what it was last drawn as. @typedef {{node: HTMLElement, canvas: HTMLCanvasElement, called: HTMLElement, score: HTMLElement, state: string}} Tile */

/** Pixels: the least side of a tile, between tiles, below a tile for its line, and what is made beyond the edges of the window. */
const SIDE = 136;
const GAP = 12;
const LINE = 26;
const BEYOND = 600;
/** Pictures that are read at the same time. */
const AT_ONCE = 4;
/** Tiles out of sight that are remembered: 240 × 240 pixels take 230 kB. */
const REMEMBERED = 300;

export class Grid {
  /** What is selected, by id. @type {Set<string>} */
  selected = new Set();
  #source;
  /** @type {Item[]} */
  #items = [];
  /** @type {Map<string, Tile>} */
  #tiles = new Map();
  /** Out of sight, with their pictures. Oldest first. @type {Map<string, Tile>} */
  #rest = new Map();
  /** Of pictures in sight that aren't drawn yet. @type {Set<string>} */
  #wanted = new Set();
  /** Of pictures that are being read. Another set for other pictures altogether, which may be called the same. @type {Set<string>} */
  #reading = new Set();
  /** The one that keys move. */
  #active = 0;
  #columns = 1;
  #side = SIDE;
  #due = false;

  /** @param {Source} source */
  constructor(source) {
    this.#source = source;
    const later = () => this.#later();
    addEventListener('scroll', later, { passive: true });
    new ResizeObserver(later).observe($.grid);
    addEventListener('resize', later);
    $.grid.addEventListener('click', (event) => {
      const tile = event.target instanceof Element ? event.target.closest('.tile') : null;
      const at = this.#items.findIndex(({ id }) => id === tile?.getAttribute('data-id'));
      if (at < 0) return;
      if (event.shiftKey) for (let i = Math.min(at, this.#active); i <= Math.max(at, this.#active); i++) this.#select(i, true);
      else this.#select(at);
      this.#active = at;
      this.#changed();
    });
    $.grid.addEventListener('keydown', (event) => this.#key(event));
    $.grid.addEventListener('focus', later);
  }

  get items() {
    return this.#items;
  }

  /** @param {Item[]} items in their order */
  show(items) {
    const active = this.#items[this.#active]?.id;
    this.#items = items;
    this.#active = Math.max(0, items.findIndex(({ id }) => id === active));
    this.#later();
  }

  /** Other pictures altogether. */
  forget() {
    this.#rest.clear();
    this.#wanted.clear();
    this.#reading = new Set();
    this.#tiles.clear();
    $.grid.replaceChildren();
    this.selected.clear();
    this.#items = [];
  }

  selectNone() {
    this.selected.clear();
    this.#changed();
  }

  /** @param {number} at @param {boolean} [on] the other way round unless given */
  #select(at, on) {
    const id = this.#items[at]?.id;
    if (id === undefined) return;
    if (on ?? !this.selected.has(id)) this.selected.add(id);
    else this.selected.delete(id);
  }

  #changed() {
    this.#source.changed();
    this.#later();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const last = this.#items.length - 1;
    const page = this.#columns * Math.max(1, Math.floor(innerHeight / (this.#side + LINE + GAP)) - 1);
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.#columns, ArrowUp: -this.#columns, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    const move = moves[/** @type {keyof typeof moves} */ (event.key)];
    const id = this.#items[this.#active]?.id;
    if (move !== undefined) {
      this.#active = Math.min(last, Math.max(0, this.#active + move));
      if (event.shiftKey) this.#select(this.#active, true);
      this.#reveal();
      this.#changed();
    } else if (event.key === ' ') {
      this.#select(this.#active);
      this.#changed();
    } else if (event.key === 'Enter' && id !== undefined) {
      this.#source.like(id);
    } else if (event.key === 'a' && (event.ctrlKey || event.metaKey)) {
      for (let i = 0; i <= last; i++) this.#select(i, true);
      this.#changed();
    } else if (event.key === 'Escape' && this.selected.size > 0) {
      this.selectNone();
    } else {
      return;
    }
    event.preventDefault();
  }

  /** Scrolls so far that the active one is in sight. */
  #reveal() {
    const top = $.grid.getBoundingClientRect().top + Math.floor(this.#active / this.#columns) * (this.#side + LINE + GAP);
    const bottom = top + this.#side + LINE;
    const floor = innerHeight - ($.selection.hidden ? 0 : $.selection.offsetHeight + 16);
    if (top < 8) scrollBy(0, top - 8);
    else if (bottom > floor - 8) scrollBy(0, bottom - floor + 8);
  }

  #later() {
    if (this.#due) return;
    this.#due = true;
    requestAnimationFrame(() => {
      this.#due = false;
      this.#draw();
    });
  }

  #draw() {
    const count = this.#items.length;
    $.grid.hidden = count === 0;
    if (count === 0) return this.#place([]);
    const width = $.grid.clientWidth;
    this.#columns = Math.max(2, Math.floor((width + GAP) / (SIDE + GAP)));
    this.#side = (width - GAP * (this.#columns - 1)) / this.#columns;
    const step = this.#side + LINE + GAP;
    $.grid.style.height = `${Math.ceil(count / this.#columns) * step - GAP}px`;
    const top = -$.grid.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor((top - BEYOND) / step)) * this.#columns;
    const end = Math.min(count, Math.ceil((top + innerHeight + BEYOND) / step) * this.#columns);
    const places = [];
    for (let i = first; i < end; i++) places.push(i);
    // The active one is named by aria-activedescendant: it is there wherever it is.
    if (this.#active < first) places.unshift(this.#active);
    else if (this.#active >= end) places.push(this.#active);
    this.#place(places);
  }

  /** @param {number[]} places */
  #place(places) {
    const step = this.#side + LINE + GAP;
    /** @type {Map<string, Tile>} */
    const tiles = new Map();
    this.#wanted.clear();
    const nodes = places.map((at) => {
      const item = /** @type {Item} */ (this.#items[at]);
      const tile = this.#tiles.get(item.id) ?? this.#rest.get(item.id) ?? this.#make(item.id);
      const { node, called, score } = tile;
      tiles.set(item.id, tile);
      if (!('ready' in tile.canvas.dataset) && !this.#reading.has(item.id)) this.#wanted.add(item.id);
      const state = [at, this.#items.length, this.#columns, this.#side, item.score, at === this.#active, this.selected.has(item.id)].join();
      if (tile.state === state) return node; // most of them, while one scrolls
      tile.state = state;
      node.id = `tile-${at}`;
      node.toggleAttribute('data-active', at === this.#active);
      node.setAttribute('aria-selected', String(this.selected.has(item.id)));
      node.setAttribute('aria-setsize', String(this.#items.length));
      node.setAttribute('aria-posinset', String(at + 1));
      node.setAttribute('aria-label', item.score ? `${item.id} ${item.score}` : item.id);
      node.style.width = `${this.#side}px`;
      node.style.height = `${this.#side + LINE}px`;
      node.style.transform = `translate(${(at % this.#columns) * (this.#side + GAP)}px, ${Math.floor(at / this.#columns) * step}px)`;
      called.textContent = item.id.slice(item.id.lastIndexOf('/') + 1);
      node.title = item.id;
      score.textContent = item.score ?? '';
      return node;
    });
    for (const [id, tile] of this.#tiles) {
      if (tiles.has(id)) continue;
      tile.node.remove();
      if ('ready' in tile.canvas.dataset) this.#rest.set(id, tile);
    }
    for (const id of this.#rest.keys()) if (tiles.has(id) || this.#rest.size > REMEMBERED) this.#rest.delete(id);
    this.#tiles = tiles;
    let next = $.grid.firstElementChild;
    for (const node of nodes) {
      if (node === next) next = next.nextElementSibling;
      else $.grid.insertBefore(node, next);
    }
    if (nodes.length > 0) $.grid.setAttribute('aria-activedescendant', `tile-${this.#active}`);
    else $.grid.removeAttribute('aria-activedescendant');
    this.#read();
  }

  /** @param {string} id @returns {Tile} */
  #make(id) {
    const [node, line, called, score] = ['div', 'span', 'span', 'span'].map((name) => document.createElement(name));
    const canvas = document.createElement('canvas');
    if (!node || !line || !called || !score) throw new TypeError();
    Object.assign(canvas, { width: 1, height: 1 });
    node.className = 'tile';
    node.setAttribute('role', 'option');
    node.dataset.id = id;
    [line.className, called.className, score.className] = ['line', 'called', 'score'];
    line.append(called, ' ', score);
    node.append(canvas, line);
    return { node, canvas, called, score, state: '' };
  }

  /** Reads pictures that are in sight, a few at a time. */
  #read() {
    const reading = this.#reading;
    while (reading.size < AT_ONCE) {
      const [id] = this.#wanted;
      if (id === undefined) return;
      this.#wanted.delete(id);
      reading.add(id);
      this.#source.picture(id).catch(() => undefined).then((bitmap) => {
        if (reading !== this.#reading) return bitmap?.close();
        reading.delete(id);
        const tile = this.#tiles.get(id);
        if (tile) paint(tile.canvas, bitmap);
        bitmap?.close();
        this.#read();
      });
    }
  }
}

/** @param {HTMLCanvasElement} canvas @param {ImageBitmap | undefined} bitmap */
export function paint(canvas, bitmap) {
  canvas.dataset.ready = '';
  if (!bitmap?.width) return;
  Object.assign(canvas, { width: bitmap.width, height: bitmap.height });
  canvas.getContext('2d')?.drawImage(bitmap, 0, 0);
}
