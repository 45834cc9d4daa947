// The search page: a place with pictures, its index, and what is asked of it. The index itself is behind siglip-index.js.

import '../policy.js';
import { FITS, fits } from '../../lib/client/scores.js';
import { RELAXED } from '../../lib/worker/backend.js';
import { addressIn, mayHoldPictures, picturesAmong } from '../../lib/client/transfer.js';
import { Problem, fetchPicture, isText } from '../arriving.js';
import { MODELS, bestFor, downloadOf, forPhotographs, lookAtDevice } from '../catalogue.js';
import { FIRST, chooseNot, chooseSoon, listModels, sourceOf, titleOf } from '../choices.js';
import { csv, download } from '../export.js';
import { number, onLanguage, texts } from '../language.js';
import { keepModule, keepPage } from '../offline.js';
import { bytes, percent, remaining } from '../results.js';
import { $ } from './elements.js';
import { ofEntry, ofFiles, ofGallery, ofHandle } from './folder.js';
import { Grid, paint } from './grid.js';
import { forget, knownFolders, recognize, remember } from './known.js';
import { smallOf } from './small.js';
import { zip } from './zip.js';

/** @typedef {import('../../lib/siglip-index.js').SiglipIndex} SiglipIndex */
/** @typedef {import('../../lib/siglip-index.js').Hit} Hit */
/** @typedef {import('../../lib/siglip-index.js').IndexEntry} IndexEntry */
/** @typedef {import('../../lib/siglip-index.js').IndexProgress} Progress */
/** @typedef {import('../../lib/siglip-index.js').QueryTerm} QueryTerm */
/** @typedef {import('../../lib/siglip-web.js').SiglipClassifier} SiglipClassifier */
/** @typedef {import('./folder.js').Place} Place */
/** @typedef {import('./known.js').Known} Known */
/** @typedef {() => string} Message */
/** A picture that is searched for: one of the index, or a file from elsewhere. @typedef {{name: string, id?: string, image?: File, minus: boolean}} Term */

/** Words that find something among the drawings, and some that don't: tests/browser/search.test.mjs looks. */
const EXAMPLES = ['a flower', 'an insect', 'food', 'vehicle -car', 'a submarine'];
/** Milliseconds after a key. */
const PAUSE = 150;
/** The cut that a search begins with: for words where a label fits (the small demo model takes too much for half right), for pictures a likeness, of the best a part. */
const CUTS = { words: FITS, pictures: 0.6, best: 0.5 };
const DEMO_CUT = 0.5;

/** `wanted`: what is on its way. @type {{classifier?: SiglipClassifier, loading?: AbortController, wanted?: string, id: string}} */
const model = { id: FIRST };
/**
 * `known`: of a folder; the drawings have no place in this browser. `opening`: the newest call of `open`, unless it was interrupted. `done`: all that is
 * there has been looked at.
 * @type {{place?: Place, known?: Known, index?: SiglipIndex, opening?: object, adding?: AbortController, entries: IndexEntry[], done: boolean}}
 */
const now = { entries: [], done: false };
/** Those of earlier visits, the last one first. @type {Known[]} */
let folders = [];
/** @type {Term[]} */
const terms = [];
/** What the index answered, best first; undefined: nothing is asked. @type {{hits: Hit[], kind: 'words' | 'pictures', what: Message} | undefined} */
let answer;
/** Something was asked, and nothing has been said of it yet. */
let unanswered = false;
/** Moved by the person, for words and for pictures. */
const cuts = { ...CUTS };
/** @type {AbortController | undefined} */
let searching;
/** A picture that is searched for. @type {AbortController | undefined} */
let fetching;
/** @type {number | undefined} */
let timer;
/** @type {import('../catalogue.js').Device | undefined} */
let machine;

const grid = new Grid({
  picture: small,
  changed: showSelection,
  like: (id) => askLike([id]),
});

// ---- What the page says -------------------------------------------------------------------------------------------

/** @type {{state: string, message: Message, way?: {text: Message, go: () => void}}} */
let said = { state: 'busy', message: () => texts.loading(texts.demo) };

/** @param {string} state @param {Message} message @param {{text: Message, go: () => void}} [way] what the button beside it does */
function say(state, message, way) {
  said = { state, message, way };
  $.answer.dataset.state = state;
  const text = message();
  if ($.status.textContent !== text) $.status.textContent = text;
  $.way.hidden = !way;
  $.way.textContent = way?.text() ?? '';
  $.way.onclick = way ? () => way.go() : null;
}

/** @param {any} error */
const reason = (error) => (error instanceof Problem ? error.tell() : (error?.code && texts.errors[/** @type {'network'} */ (error.code)]) || error?.message || String(error));
const count = (/** @type {number} */ value) => value.toLocaleString(texts.locale);
const placeName = () => (now.place?.builtIn ? texts.search.gallery : texts.search.folder(now.known?.index ?? now.place?.name ?? ''));

function showSource() {
  const { place, known } = now;
  const within = place ? texts.search.within(placeName(), now.entries.length, count(now.entries.length)) : '';
  $.source.textContent = known && known.index !== known.name ? `${within} ${texts.search.namesake(known.name, known.index)}` : within;
  $.gallery.hidden = !now.place || Boolean(now.place.builtIn);
  $.drawings.hidden = model.id !== 'demo' || !now.place || Boolean(now.place.builtIn) || Boolean(model.loading);
  const best = forPhotographs(texts.locale, (one) => !machine || bestFor(one, machine) !== undefined);
  $.photographs.textContent = texts.photographs(best.title, bytes(downloadOf(best)));
  $.photographs.onclick = () => load(best.id);
  const languages = model.id === 'demo' ? 'en' : MODELS.find(({ id }) => id === model.id)?.languages;
  $.queryLanguage.textContent = languages === 'en' ? texts.readsEnglish : languages === 'many' ? texts.readsMany : '';
  $.queryLanguage.hidden = !$.queryLanguage.textContent;
  for (const node of [$.query, $.examples]) node.lang = languages === 'en' ? 'en' : '';
}

// ---- The model ----------------------------------------------------------------------------------------------------

/** @param {string} id */
async function load(id) {
  chooseNot();
  model.loading?.abort();
  const job = model.loading = new AbortController();
  model.wanted = id;
  const title = () => titleOf(id);
  $.model.value = id;
  interrupt();
  busy(() => job.abort());
  say('busy', () => texts.loading(title()));
  showSource();
  try {
    const { SiglipClassifier } = await import('../../lib/siglip-web.js');
    machine ??= await lookAtDevice();
    const found = MODELS.find((one) => one.id === id);
    const classifier = await SiglipClassifier.load(sourceOf(id), {
      signal: job.signal,
      dtype: (found && bestFor(found, machine)) ?? 'auto',
      onProgress: ({ file, stage, loaded, total }) => {
        keepModule(file);
        if (model.loading !== job || (stage !== 'download' && stage !== 'load')) return;
        if (total > 0) $.progress.value = loaded / total;
        $.bytes.textContent = total > 1e5 ? texts.of(bytes(loaded), bytes(total)) : '';
      },
    });
    if (model.loading !== job) return void classifier.dispose();
    const before = model.classifier;
    cuts.words = id === 'demo' ? DEMO_CUT : CUTS.words;
    Object.assign(model, { classifier, id, loading: undefined, wanted: undefined });
    busy();
    const opening = open(now.place ?? await ofGallery('gallery'));
    // Its index is closed. Two large ones don't share the memory while pictures are looked at.
    before?.dispose();
    await opening;
  } catch (error) {
    if (model.loading !== job) return;
    model.loading = model.wanted = undefined;
    busy();
    if (model.classifier) $.model.value = model.id; // with none in use, any other can be chosen
    const { aborted } = job.signal;
    const text = () => (aborted ? texts.stoppedLoading(title()) : texts.notLoaded(title(), reason(error)));
    if (model.classifier && now.place && !now.done) say('error', () => `${text()} ${texts.search.unfinished}`, { text: () => texts.search.goOn, go: goOn });
    else say('error', text, { text: () => texts.tryAgain, go: () => load(id) });
    showSource();
    // What was asked meanwhile is shown; what is said stays.
    unanswered = false;
    await refresh();
  }
}

// ---- The pictures -------------------------------------------------------------------------------------------------

/** @param {(() => void) | undefined} [stop] shows progress that can be stopped; without it, none @param {boolean} [pausable] */
function busy(stop, pausable = false) {
  if (!stop && $.busy.contains(document.activeElement)) $.query.focus();
  $.busy.hidden = !stop;
  $.pause.hidden = !pausable;
  $.bytes.textContent = '';
  $.progress.removeAttribute('value');
  $.stop.onclick = stop ?? null;
}

/** Ends what is under way in the place: it says nothing any more. */
function interrupt() {
  now.adding?.abort();
  now.opening = now.adding = undefined;
}

/** Looks at what hasn't been looked at yet. */
function goOn() {
  const { place, index } = now;
  index?.resume();
  if (place && index) add(index, place);
  else if (place) open(place);
}

/** Searches in another place. @param {Place} place @param {{again?: boolean}} [how] again: an index by another model is given up */
async function open(place, { again = false } = {}) {
  const { classifier } = model;
  interrupt();
  now.index?.close();
  Object.assign(now, { place, known: undefined, index: undefined, entries: [], done: false });
  for (const one of terms.filter(({ id }) => id !== undefined)) terms.splice(terms.indexOf(one), 1);
  showTerms();
  answer = undefined;
  unanswered = true;
  grid.forget();
  showSelection();
  showUnreadable([]);
  showSource();
  if (!classifier || model.loading) return; // `load` comes here
  busy();
  const job = now.opening = {};
  try {
    const { SiglipIndex } = await import('../../lib/siglip-index.js');
    const known = place.builtIn ? undefined : await recognize(place);
    if (now.opening !== job) return;
    now.known = known;
    showSource();
    const index = await SiglipIndex.open(classifier, { name: known?.index ?? place.name, memory: !known, again });
    if (now.opening !== job) return void index.close();
    now.index = index;
    // An index searches on the CPU, on one thread.
    keepModule(`siglip_web_cpu${RELAXED ? '_relaxed' : ''}_bg.wasm`);
    index.onchange = () => refresh();
    await add(index, place);
  } catch (error) {
    if (now.opening !== job) return;
    const { SiglipIndex } = await import('../../lib/siglip-index.js');
    // One by another model is refused as bad input, and so is whatever else can't be opened.
    const kept = /** @type {any} */ (error).code === 'bad-input' ? await SiglipIndex.list().catch(() => []) : [];
    if (now.opening !== job) return;
    const before = kept.find(({ name }) => name === now.known?.index);
    if (before) say('error', () => texts.search.otherModel(placeName(), `${before.model} (${before.dtype})`), { text: () => texts.search.indexAgain, go: () => open(place, { again: true }) });
    else say('error', () => texts.search.failed(reason(error)), { text: () => texts.tryAgain, go: () => open(place) });
  }
}

/** Looks at what is new there. @param {SiglipIndex} index @param {Place} place */
async function add(index, place) {
  const job = now.adding = new AbortController();
  const pause = () => {
    $.pause.textContent = index.paused ? texts.search.resume : texts.search.pause;
  };
  $.pause.onclick = () => {
    if (index.paused) index.resume();
    else index.pause();
    pause();
  };
  let shown = false;
  /** Said rarely: at every tenth. */
  let tenth = -1;
  const progress = (/** @type {Progress} */ { done, total, counted, perSecond, secondsLeft, paused, waiting }) => {
    if (now.adding !== job) return;
    if (!shown) busy(() => job.abort(), true);
    shown = true;
    pause();
    if (total > 0 && counted) $.progress.value = done / total;
    $.bytes.textContent = [perSecond > 0 && texts.search.rate(number(perSecond, perSecond < 10 ? 1 : 0)), secondsLeft !== undefined && secondsLeft > 5 && texts.aboutLeft(remaining(secondsLeft)), waiting].filter(Boolean).join(' · ');
    const step = counted ? Math.floor((10 * done) / Math.max(1, total)) : 0;
    if (answer || step === tenth) return;
    tenth = step;
    say('busy', () => (paused ? texts.search.paused : total === 0 ? texts.search.counting : texts.search.indexing(count(done), counted ? count(total) : '')));
  };
  say('busy', () => texts.search.counting);
  const finish = () => {
    now.adding = undefined;
    busy();
  };
  /** Something else has begun meanwhile, which says what is to be said. */
  const left = () => now.index !== index || Boolean(model.loading);
  try {
    const { unreadable } = await index.add(place.source(), { signal: job.signal, onProgress: progress });
    if (now.adding !== job) return;
    finish();
    now.done = true;
    unanswered = true;
    await refresh();
    await keepKnown();
    if (left()) return;
    showUnreadable(unreadable);
    if (now.entries.length === 0) say('error', () => texts.search.empty);
    else if (!isAsked()) showAnswer();
  } catch (error) {
    if (now.adding !== job) return;
    finish();
    await refresh();
    await keepKnown();
    if (left()) return;
    if (job.signal.aborted) say('hint', () => texts.search.stopped, { text: () => texts.search.goOn, go: goOn });
    else say('error', () => texts.search.failed(reason(error)), { text: () => texts.tryAgain, go: goOn });
  }
}

/** @type {Promise<void> | undefined} */
let refreshing;
let stale = false;

/** Pictures came or went: the grid and what is asked are brought up to date, one after the other. */
async function refresh() {
  stale = true;
  if (!now.index) return undefined; // of a place that was left
  refreshing ??= (async () => {
    try {
      while (stale && now.index) {
        stale = false;
        const { index } = now;
        const entries = await index.entries();
        if (index !== now.index) {
          stale = true;
          continue;
        }
        now.entries = entries;
        showSource();
        // At once: the page may be closed before all of them have been looked at.
        if (now.known && now.known.pictures === 0 && entries.length > 0) await keepKnown();
        // Also what was asked before there was anything to ask.
        if (isAsked()) await search({ quietly: true });
        else showGrid();
      }
    } finally {
      refreshing = undefined;
    }
  })();
  return refreshing;
}

/** @param {string} id @param {Place} [place] @returns {Promise<File>} */
async function fileOf(id, place = now.place) {
  const file = await place?.file(id).catch(() => undefined);
  if (!file) throw new Error(texts.search.gone(id));
  return file;
}

/** @param {string} id @returns {Promise<ImageBitmap | undefined>} */
async function small(id) {
  return smallOf(await fileOf(id));
}

/** @param {readonly import('../../lib/siglip-index.js').Unreadable[]} list */
function showUnreadable(list) {
  $.unreadable.hidden = list.length === 0;
  $.unreadableTitle.textContent = texts.search.unreadable(list.length);
  $.unreadableList.replaceChildren(...list.map(({ id, message }) => {
    const item = document.createElement('li');
    const why = Object.assign(document.createElement('span'), { lang: 'en', textContent: message });
    item.append(`${id}: `, why);
    return item;
  }));
}

// ---- Folders of earlier visits ------------------------------------------------------------------------------------

/** Remembers the folder that is open, as it is now. */
async function keepKnown() {
  const { known, entries } = now;
  if (!known) return;
  await remember(known, entries);
  await showFolders();
}

async function showFolders() {
  folders = await knownFolders();
  listFolders();
}

function listFolders() {
  const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset.key : undefined;
  $.folders.hidden = $.foldersTitle.hidden = folders.length === 0;
  $.folders.replaceChildren(...folders.map((known) => {
    const { index, handle, pictures, sample, opened } = known;
    const item = document.createElement('li');
    const name = Object.assign(document.createElement('strong'), { textContent: index });
    const example = sample[0]?.id ?? '';
    const about = Object.assign(document.createElement('span'), { className: 'note' });
    about.textContent = texts.search.known(pictures, count(pictures), example.slice(example.lastIndexOf('/') + 1), new Date(opened).toLocaleDateString(texts.locale, { dateStyle: 'medium' }));
    const button = (/** @type {string} */ text, /** @type {string} */ label, /** @type {() => void} */ go) => {
      const made = Object.assign(document.createElement('button'), { type: 'button', className: 'button small', textContent: text });
      made.dataset.key = label;
      made.setAttribute('aria-label', label);
      made.addEventListener('click', go);
      return made;
    };
    const words = document.createElement('div');
    words.append(name, ' ', about);
    item.append(words);
    if (handle) item.append(button(texts.search.reopen, texts.search.again(index), () => openAgain(index, handle)));
    item.append(button(texts.search.forget, texts.search.forgetFolder(index), () => askToForget(known)));
    return item;
  }));
  for (const button of $.folders.querySelectorAll('button')) if (focused && button.dataset.key === focused) button.focus({ preventScroll: true });
}

/** @param {string} index @param {FileSystemDirectoryHandle} handle */
async function openAgain(index, handle) {
  const granted = !handle.requestPermission || (await handle.requestPermission({ mode: 'read' }).catch(() => 'denied')) === 'granted';
  if (granted) open(ofHandle(handle));
  else say('error', () => texts.search.refused(index));
}

/** Says what would be dropped, and asks. @param {Known} known */
async function askToForget(known) {
  const { SiglipIndex } = await import('../../lib/siglip-index.js');
  const kept = (await SiglipIndex.list().catch(() => [])).filter(({ name }) => name === known.index);
  const size = bytes(kept.reduce((sum, one) => sum + one.bytes, 0));
  $.forgetTitle.textContent = texts.search.forgetTitle(known.index);
  $.forgetWhat.textContent = [
    texts.search.forgetIndex(known.pictures, count(known.pictures), size, kept.map(({ model: made, dtype }) => `${made} (${dtype})`).join(', ')),
    known.handle && texts.search.forgetHandle, texts.search.forgetStays,
  ].filter(Boolean).join(' ');
  $.forgetYes.onclick = async () => {
    $.forgetDialog.close();
    await forgetFolder(known, size);
  };
  $.forgetDialog.showModal();
}

/** @param {Known} known @param {string} size of its index */
async function forgetFolder({ index }, size) {
  const isOpen = now.known?.index === index;
  const { place } = now;
  try {
    if (isOpen) {
      interrupt();
      const closing = now.index?.close();
      // What is under way there remembers nothing any more.
      Object.assign(now, { known: undefined, index: undefined });
      await closing;
    }
    const { SiglipIndex } = await import('../../lib/siglip-index.js');
    await SiglipIndex.delete(index);
    await forget(index);
    await showFolders();
    if (isOpen) await open(await ofGallery('gallery'));
    say('hint', () => texts.search.forgotten(index, size));
  } catch {
    if (isOpen && place) await open(place);
    say('error', () => texts.search.notForgotten(index));
  }
  $.choose.focus({ preventScroll: true });
}

// ---- The search ---------------------------------------------------------------------------------------------------

const isAsked = () => $.query.value.trim() !== '' || terms.length > 0;

/** Asks the index about what stands there now. @param {{quietly?: boolean}} [how] quietly: the same as before, of more pictures */
async function search({ quietly = false } = {}) {
  if (!quietly) {
    clearTimeout(timer);
    unanswered = true;
  }
  const { index } = now;
  const text = $.query.value.trim();
  if (!index || model.loading) return; // `refresh` asks when it can be answered
  /** What is known already is not said over what is under way, nor over an error. @param {() => void} what */
  const tell = (what) => {
    if (unanswered || (!now.adding && said.state !== 'error')) what();
    unanswered = false;
  };
  if (!isAsked()) {
    searching?.abort();
    answer = undefined;
    unanswered = false;
    showGrid();
    if (!now.adding) showAnswer();
    return;
  }
  const { SiglipIndex } = await import('../../lib/siglip-index.js');
  const typed = text ? SiglipIndex.parse(text) : [];
  /** @type {QueryTerm[]} */
  const words = (Array.isArray(typed) ? typed : [typed]).map((one) => (typeof one === 'string' ? { text: one } : one));
  /** @type {QueryTerm[]} */
  const query = [...words, ...terms.map(({ id, image, minus }) => ({ ...(id === undefined ? { image } : { id }), minus }))];
  const plus = terms.filter(({ minus }) => !minus).length;
  searching?.abort();
  if (!query.some(({ minus }) => !minus)) {
    answer = undefined;
    showGrid();
    return tell(() => say('hint', () => texts.search.onlyMinus));
  }
  const job = searching = new AbortController();
  const outdated = () => job !== searching || job.signal.aborted || index !== now.index || Boolean(model.loading);
  try {
    const hits = await index.search(query.length === 1 && query[0] ? query[0] : query, { limit: Math.max(1, index.size), signal: job.signal });
    if (outdated()) return;
    const what = () => [words.length > 0 && texts.quote(text), plus > 0 && texts.search.pictures(plus)].filter((one) => one !== false).reduce((a, b) => texts.search.and(a, b));
    answer = { hits, kind: words.some(({ minus }) => !minus) ? 'words' : 'pictures', what };
    showGrid();
    tell(showAnswer);
  } catch (error) {
    if (outdated()) return;
    say('error', () => texts.search.failed(reason(error)), { text: () => texts.tryAgain, go: () => search() });
  }
}

// Probabilities differ by powers of ten, and the range has them from a hundredth of a percent up; the rest is even.
const LOW = -4;
const scaleOf = () => ($.measure.value === 'best' ? 'best' : answer?.kind ?? 'words');
const toValue = (/** @type {number} */ place) => (scaleOf() === 'words' ? 10 ** (LOW * (1 - place / 100)) : place / 100);
const toPlace = (/** @type {number} */ value) => Math.round(100 * (scaleOf() === 'words' ? 1 - Math.log10(Math.max(1e-4, value)) / LOW : value));

/** What is above the cut, in its order. @returns {Hit[]} */
function above() {
  if (!answer) return [];
  const { hits } = answer;
  const cut = scaleOf() === 'best' ? cuts.best * (hits[0]?.score ?? 0) : cuts[answer.kind];
  return sorted(hits.filter(({ score }) => score >= cut));
}

/** In the chosen order; as it is given, where that is the score's. @template {{modified?: number}} T @param {T[]} list @returns {T[]} */
function sorted(list) {
  const sign = { score: 0, new: -1, old: 1 }[$.sort.value] ?? 0;
  return sign ? list.toSorted((a, b) => sign * ((a.modified ?? 0) - (b.modified ?? 0))) : list;
}

function showGrid() {
  const cut = cuts[scaleOf()];
  $.cut.value = String(toPlace(cut));
  $.cut.disabled = $.measure.disabled = !answer;
  $.cutValue.textContent = answer ? percent(cut) : '';
  $.cut.setAttribute('aria-valuetext', texts.search.cutText(percent(cut), scaleOf() === 'best'));
  if (answer) return grid.show(above().map(({ id, score }) => ({ id, score: percent(score) })));
  grid.show(sorted(now.entries).map(({ id }) => ({ id })));
}

/** Says what came of it. */
function showAnswer() {
  if (!answer) return say('hint', () => texts.search.all(count(now.entries.length)));
  const { hits, kind, what } = answer;
  const shown = above().length;
  const best = hits[0];
  if (shown > 0) {
    const state = kind === 'pictures' || fits(best?.score ?? 0) === 'yes' ? 'good' : 'unsure';
    return say(state, () => (kind === 'words' ? texts.search.found : texts.search.alike)(shown, count(shown), what()));
  }
  if (!best) return;
  const words = () => (kind === 'words' ? texts.search.nothing : texts.search.nothingAlike)(what(), percent(best.score));
  // A dozen of them.
  const nearest = hits[Math.min(hits.length, 12) - 1];
  say('none', words, { text: () => texts.search.showNearest, go: () => {
    cuts[kind] = Math.min(cuts[kind], nearest?.score ?? 0);
    $.measure.value = 'own';
    showGrid();
    showAnswer();
    $.grid.focus({ preventScroll: true });
  } });
}

function later() {
  clearTimeout(timer);
  timer = setTimeout(() => search(), PAUSE);
}

// ---- Pictures as a query ------------------------------------------------------------------------------------------

/** @param {readonly string[]} ids of the index */
function askLike(ids) {
  terms.splice(0, Infinity, ...ids.map((id) => ({ name: id, id, minus: false })));
  $.query.value = '';
  asked();
}

/** @param {readonly File[]} files from elsewhere */
function askLikeFiles(files) {
  terms.push(...files.map((image) => ({ name: image.name, image, minus: false })));
  asked();
}

/** @param {string} address of a picture on another page */
async function askLikeAddress(address) {
  fetching?.abort();
  const job = fetching = new AbortController();
  const again = { text: () => texts.tryAgain, go: () => askLikeAddress(address) };
  say('busy', () => texts.fetchingPicture, { text: () => texts.search.stop, go: () => job.abort() });
  try {
    const { blob, name } = await fetchPicture(address, job.signal);
    if (job === fetching) askLikeFiles([new File([blob], name, { type: blob.type })]);
  } catch (error) {
    if (job !== fetching) return;
    if (job.signal.aborted) say('hint', () => texts.notFetched, again);
    else say('error', () => texts.search.failed(reason(error)), again);
  }
}

function asked() {
  grid.selectNone();
  showTerms();
  search();
  $.query.scrollIntoView({ block: 'nearest' });
}

function showTerms() {
  const focused = document.activeElement instanceof HTMLElement ? document.activeElement.dataset.key : undefined;
  $.terms.hidden = terms.length === 0;
  $.terms.replaceChildren(...terms.map((term, i) => {
    const item = document.createElement('li');
    const canvas = Object.assign(document.createElement('canvas'), { width: 1, height: 1 });
    canvas.setAttribute('aria-hidden', 'true');
    (term.image ? smallOf(term.image) : small(term.id ?? '')).then((bitmap) => bitmap && paint(canvas, bitmap)).catch(() => {});
    item.dataset.minus = String(term.minus);
    const short = term.name.slice(term.name.lastIndexOf('/') + 1);
    const name = Object.assign(document.createElement('span'), { className: 'name', textContent: short, title: term.name });
    const minus = Object.assign(document.createElement('button'), { type: 'button', textContent: '−' });
    minus.setAttribute('aria-label', texts.search.without(short));
    minus.setAttribute('aria-pressed', String(term.minus));
    minus.dataset.key = `minus-${i}`;
    minus.addEventListener('click', () => {
      term.minus = !term.minus;
      showTerms();
      search();
    });
    const remove = Object.assign(document.createElement('button'), { type: 'button', textContent: '×' });
    remove.setAttribute('aria-label', texts.search.remove(short));
    remove.addEventListener('click', () => {
      terms.splice(terms.indexOf(term), 1);
      showTerms();
      search();
      $.query.focus();
    });
    item.append(canvas, name, minus, remove);
    return item;
  }));
  for (const button of $.terms.querySelectorAll('button')) if (focused && button.dataset.key === focused) button.focus();
}

// ---- The selection ------------------------------------------------------------------------------------------------

function showSelection() {
  const { size } = grid.selected;
  if (size === 0 && $.selection.contains(document.activeElement)) $.grid.focus({ preventScroll: true });
  $.selection.hidden = size === 0;
  $.selected.textContent = texts.search.selected(size, count(size));
  $.like.textContent = size === 1 ? texts.search.likeThis : texts.search.likeThese;
}

/** What is selected, with its scores where something is asked. */
function chosen() {
  const scores = new Map(answer?.hits.map((hit) => [hit.id, hit]));
  return [...grid.selected].map((id) => ({ id, score: scores.get(id)?.score, cosine: scores.get(id)?.cosine }));
}

async function saveCopies() {
  const ids = [...grid.selected];
  const { place } = now; // another folder may be opened meanwhile
  say('busy', () => texts.search.zipping);
  try {
    const blob = await zip((async function* () {
      for (const id of ids) yield { name: id, file: await fileOf(id, place) };
    })());
    if (!blob) return say('error', () => texts.search.tooMuch);
    download('pictures.zip', blob.type, blob);
    say('hint', () => texts.search.zipped(ids.length));
  } catch (error) {
    say('error', () => texts.search.failed(reason(error)));
  }
}

// ---- Doors --------------------------------------------------------------------------------------------------------

$.forgetNo.addEventListener('click', () => $.forgetDialog.close());
$.choose.addEventListener('click', async () => {
  if (!window.showDirectoryPicker) return $.files.click();
  try {
    open(ofHandle(await window.showDirectoryPicker({ id: 'pictures' })));
  } catch (error) {
    if (/** @type {Error} */ (error).name !== 'AbortError') say('error', () => texts.search.failed(reason(error)));
  }
});
$.files.addEventListener('change', () => {
  const files = [...($.files.files ?? [])];
  $.files.value = '';
  if (files.length > 0) open(ofFiles(files, texts.search.loose));
});
$.gallery.addEventListener('click', async () => open(await ofGallery('gallery')));

let depth = 0;
const lower = () => {
  depth = 0;
  $.drop.hidden = true;
};
addEventListener('dragenter', (event) => {
  if (!mayHoldPictures(event.dataTransfer)) return;
  event.preventDefault();
  depth += 1;
  $.drop.hidden = false;
});
addEventListener('dragover', (event) => mayHoldPictures(event.dataTransfer) && event.preventDefault());
addEventListener('dragleave', () => {
  depth -= 1;
  if (depth <= 0) lower();
});
addEventListener('dragend', lower);
addEventListener('drop', async (event) => {
  const data = event.dataTransfer;
  if (!data || !mayHoldPictures(data)) return;
  event.preventDefault();
  lower();
  const items = [...data.items].filter(({ kind }) => kind === 'file');
  const files = picturesAmong(data.files);
  const address = addressIn(data);
  const entry = items.map((item) => item.webkitGetAsEntry?.()).find((one) => one?.isDirectory);
  const handles = entry ? items.map((item) => item.getAsFileSystemHandle?.().catch(() => undefined)) : []; // refused for some folders, whose files can be read all the same
  const handle = (await Promise.all(handles)).find((one) => one?.kind === 'directory');
  if (handle) open(ofHandle(/** @type {FileSystemDirectoryHandle} */ (handle)));
  else if (entry) open(ofEntry(/** @type {FileSystemDirectoryEntry} */ (entry)));
  else if (files.length > 0) askLikeFiles(files);
  else if (address) askLikeAddress(address);
  else say('error', () => texts.nothingDropped);
});
addEventListener('paste', (event) => {
  if (isText(event)) return;
  const files = picturesAmong(event.clipboardData?.files ?? []);
  if (files.length === 0) return;
  event.preventDefault();
  askLikeFiles(files);
});

$.query.addEventListener('input', later);
$.query.addEventListener('keydown', (event) => {
  if (event.key === 'Enter') search();
});
$.byPicture.addEventListener('change', () => {
  const files = picturesAmong($.byPicture.files ?? []);
  $.byPicture.value = '';
  if (files.length > 0) askLikeFiles(files);
});
$.cut.addEventListener('input', () => {
  cuts[scaleOf()] = toValue($.cut.valueAsNumber);
  showGrid();
  showAnswer();
});
for (const control of [$.measure, $.sort]) {
  control.addEventListener('change', () => {
    showGrid();
    if (answer) showAnswer();
  });
}
$.like.addEventListener('click', () => askLike([...grid.selected]));
$.csv.addEventListener('click', () => download('pictures.csv', 'text/csv', csv([['image', 'score', 'cosine'], ...chosen().map(({ id, score, cosine }) => [id, score, cosine])])));
$.json.addEventListener('click', () => download('pictures.json', 'application/json', `${JSON.stringify({ model: model.id, query: $.query.value.trim(), pictures: chosen() }, null, 2)}\n`));
$.zip.addEventListener('click', saveCopies);
$.none.addEventListener('click', () => grid.selectNone());
$.model.addEventListener('change', () => {
  const { value } = $.model;
  chooseNot();
  if (value === (model.wanted ?? (model.classifier && model.id))) return; // keys have come back to it
  chooseSoon(value, () => load(value));
});

// ---- Start --------------------------------------------------------------------------------------------------------

const label = document.createElement('span');
label.className = 'hint';
$.examples.append(label, ...EXAMPLES.map((text) => {
  const button = Object.assign(document.createElement('button'), { type: 'button', className: 'button small', textContent: text });
  button.addEventListener('click', () => {
    $.query.value = text;
    terms.length = 0;
    showTerms();
    search();
  });
  return button;
}));

/** All that the page's language has a part in. */
function tell() {
  label.textContent = texts.search.examples;
}

listModels();
onLanguage(() => {
  tell();
  showSource();
  listFolders();
  showTerms();
  showSelection();
  showGrid();
  say(said.state, said.message, said.way);
});
tell();
showGrid();
showFolders();
keepPage(load(model.id));
