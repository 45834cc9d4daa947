// The page: holds what is chosen, asks the classifier, and says what happens. How pictures arrive is in
// pictures.js, which models there are in models.js, how results read in results.js; the model itself is behind siglip-web.js.

import './policy.js';
import { Problem } from './arriving.js';
import { connectAsking, markWay, wayOf } from './asking.js';
import { Live } from './camera.js';
import { chooseNot, chooseSoon } from './choices.js';
import { $ } from './elements.js';
import { download, toCsv, toJson } from './export.js';
import { named, source, takeFirst } from './first.js';
import { HeatMaps } from './heat.js';
import { linkTo, linked, remember, remembered, unlink } from './links.js';
import { ModelList, askToKeep, isModel, roomLeft, showKept, showStorage, willKeep } from './models.js';
import { number, onLanguage, texts } from './language.js';
import { connectApp, keepModule } from './offline.js';
import { connect, markSample, markStrip, nameOf, showSamples, showStrip } from './pictures.js';
import { bytes, duration, parseLabels, Rate, remaining, ResultList, softmax, softmaxVerdict, tunedVerdict, verdict } from './results.js';

/** @typedef {import('./page.d.ts').Answer} Answer */
/** @typedef {import('./page.d.ts').Choice} Choice */
/** @typedef {import('./page.d.ts').Job} Job */
/** @typedef {import('./page.d.ts').Message} Message */
/** @typedef {import('./page.d.ts').Notice} Notice */
/** @typedef {import('./page.d.ts').Picture} Picture */
/** @typedef {import('./page.d.ts').Subject} Subject */
/** @typedef {import('../lib/siglip-web.js').SiglipClassifier} SiglipClassifier */
/** @typedef {import('../lib/siglip-web.js').LabelScore} LabelScore */
/** @typedef {import('../lib/siglip-web.js').ModelInfo} ModelInfo */
/** @typedef {import('../lib/siglip-web.js').ProgressEvent} Progress */
/** @typedef {import('./models.js').Wish} Wish */
/** @typedef {import('./models.js').Backend} Backend */

const heat = new HeatMaps({ tell: (label) => list.mark(label), fail: (error) => fail(() => reason(error), { cause: error }) });
const list = new ResultList($.results, (label) => heat.choose(label));

/** @type {Choice} */
const demo = { id: 'demo', source: 'demo', title: () => texts.demo };
const site = (/** @type {string} */ title) => ({ id: 'site', source, title: () => title });
/** What the page opens with. @type {Choice} */
const first = named ? site(named.title) : demo;
/** What is loaded, as it was chosen, and what is being loaded. */
const model = {
  /** @type {SiglipClassifier | undefined} */
  classifier: undefined,
  choice: first,
  /** @type {Backend} */
  backend: 'auto',
  /** @type {Wish} */
  dtype: 'auto',
  whole: false,
  /** @type {AbortController | undefined} */
  loading: undefined,
  /** What is on its way. @type {Choice | undefined} */
  wanted: undefined,
  /** Whether the browser promised to keep it; undefined: it wasn't asked. @type {boolean | undefined} */
  persists: undefined,
};
/** What the list of models names, and what a change under Advanced is for. */
const listed = () => model.wanted ?? model.choice;
/** In the list, a folder or a model by its name: the options that lead to them can be chosen again, for another one. */
const own = new Option('', 'own');
const optionOf = (/** @type {Choice} */ { id }) => (id === 'folder' || id === 'other' ? own.value : id);
const wishes = () => ({ dtype: /** @type {Wish} */ ($.dtype.value), backend: /** @type {Backend} */ ($.backend.value) });
const models = new ModelList(wishes);
/** `next` is shown, but not yet accepted by the model. @type {{now?: Subject, next?: Subject, fetching?: AbortController}} */
const picture = {};
/** Pictures that came together. @type {Picture[]} */
const strip = [];
const labels = {
  /** @type {string[]} */
  list: [],
  /** Typed by the person, so a sample must not overwrite them. */
  own: false,
  /** What the box held before a fine-tuned model's labels took its place. @type {string | undefined} */
  before: undefined,
  /** The template is that of an example, and goes with it. */
  lent: false,
};
/** @type {Picture[]} */
const samples = [];
/** What the newest frame of the camera is. @type {{results: LabelScore[], frame: import('../lib/siglip-web.js').WatchedFrame} | undefined} */
let seen;
const live = new Live({
  ask: () => (model.classifier && !model.loading ? { classifier: model.classifier, labels: labels.list, template: template(), tuned: isTuned(model.classifier) } : undefined),
  show(results, frame) {
    seen = { results, frame };
    showLive();
  },
  tell: tellLive,
  lost(trouble) {
    stopLive();
    const notice = { text: () => texts.live[trouble], retry: startLive };
    fail(notice.text, notice);
    if (picture.now && !isCurrent() && !model.loading) run(notice);
  },
  fail(/** @type {any} */ error) {
    fail(() => reason(error), { retry: error?.code === 'bad-input' ? undefined : () => live.update(), cause: error });
  },
});
/** The answer on the page. @type {Answer | undefined} */
let shown;
/** The classification under way. @type {Job | undefined} */
let running;
/** How often in a row the model was lost. */
let losses = 0;
/** Of the pause after typing. @type {number | undefined} */
let timer;

// ---- What the page says ------------------------------------------------------------------------------------------

/** What is said now. @type {{state: State, message: Message, english: string}} */
let said = { state: 'busy', message: () => texts.loading(first.title()), english: '' };

/**
 * @typedef {'good' | 'unsure' | 'none' | 'hint' | 'busy' | 'error'} State
 * @param {State} state @param {Message} message @param {string} [english] what the library says of it, beside a message in another language
 */
function say(state, message, english = '') {
  said = { state, message, english };
  const [text, detail] = [message(), english && texts.locale !== 'en' ? ` (${english})` : ''];
  $.answer.dataset.state = state;
  if ($.status.textContent === text + detail) return;
  $.status.textContent = text;
  if (detail) $.status.append(Object.assign(document.createElement('span'), { lang: 'en', className: 'detail', textContent: detail }));
}

/** On the button beside the message. @type {Message} */
let offered = () => '';

/** Offers one button beside the message, or takes it away. @param {() => void} [action] @param {Message} [text] */
function offer(action, text = () => texts.tryAgain) {
  $.retry.hidden = !action;
  offered = text;
  $.retry.textContent = text();
  $.retry.onclick = action ?? null;
}

/** Shows progress with a Cancel button; without arguments, hides both, unless a model is still loading. @param {Message} [text] @param {() => void} [cancel] */
function busy(text, cancel) {
  const panel = $.busy;
  if (!text && model.loading) {
    const { loading } = model;
    $.cancel.onclick = () => loading.abort();
    return;
  }
  if (!text) {
    if (panel.contains(document.activeElement)) $.labels.focus(); // the Cancel button had the focus and goes away
    panel.hidden = true;
    return;
  }
  offer();
  say('busy', text);
  $.progress.removeAttribute('value');
  $.bytes.textContent = '';
  $.cancel.onclick = cancel ?? null;
  panel.hidden = false;
}

/**
 * An error is said where it can't be overlooked, also on a small screen.
 * @param {Message} text @param {{retry?: () => void, retryText?: Message, cause?: unknown}} [more] cause: told beside the text, where that is another language
 */
function fail(text, { retry, retryText, cause } = {}) {
  busy();
  say('error', text, cause === undefined || cause instanceof Problem ? '' : wordsOf(cause));
  offer(retry, retryText);
  $.answer.scrollIntoView({ block: 'nearest' });
}

/** Says what came of it. After a notice it is an error, and the notice's way out stays. @param {State} state @param {Message} message @param {Notice} [notice] */
function conclude(state, message, notice) {
  if (notice) fail(() => `${notice.text()} ${message()}`, notice);
  else say(state, message);
}

const capital = (/** @type {string} */ text) => text.charAt(0).toUpperCase() + text.slice(1);
const sentence = (/** @type {string} */ text) => (/[.!?…]$/.test(text) ? text : `${text}.`);
const wordsOf = (/** @type {unknown} */ error) => sentence(capital(error instanceof Error && error.message ? error.message : String(error)));

/** A download that this browser has no room to keep. */
class NoRoom extends Problem {}

/** Why something failed, in the page's language: what the code of a SiglipError says, where that isn't the library's. @param {unknown} error */
function reason(error) {
  if (error instanceof Problem) return error.tell();
  const { code } = /** @type {{code?: import('../lib/siglip-web.js').SiglipErrorCode}} */ (error ?? {});
  return (code && texts.errors[code]) ?? wordsOf(error);
}

// ---- The answer --------------------------------------------------------------------------------------------------

const template = () => $.template.value;

/** Whether a model was fine-tuned for labels of its own. @param {SiglipClassifier} [classifier] */
const isTuned = (classifier) => classifier?.info.task === 'image-classification';

/** The demo model has never seen a photograph, and what a visitor brings mostly is one. */
function isGuess() {
  const subject = picture.next ?? picture.now;
  return model.choice.id === 'demo' && (live.on || (subject !== undefined && !subject.sample));
}

/** Says so beside the answer, with a way out. */
function offerPhotographs() {
  $.drawings.hidden = !isGuess() || Boolean(model.loading);
  if ($.drawings.hidden) return;
  const { id, title, download: size, kept } = models.forPhotographs();
  $.photographs.textContent = texts.photographs(title, kept ? undefined : bytes(size));
  $.photographs.onclick = () => load({ id, source: id, title: () => title });
}

/** Whether the answer is to what is asked now. */
function isCurrent() {
  return shown !== undefined && !live.on && shown.classifier === model.classifier && shown.picture === (picture.next ?? picture.now)
    && shown.template === template() && shown.labels.join('\n') === labels.list.join('\n');
}

/** Results that answer an earlier question are dimmed and say so. */
function mark() {
  const stale = shown !== undefined && (!isCurrent() || Boolean(model.loading));
  $.resultsCard.dataset.stale = String(stale);
  $.staleNote.hidden = !stale;
  $.results.setAttribute('aria-busy', String(Boolean(running || model.loading)));
  $.export.hidden = !shown;
  heat.follow(stale ? undefined : shown);
  offerPhotographs();
}

/** Shows the answer, if there is one. @param {Notice} [notice] said before it */
function show(notice) {
  const tuned = isTuned(model.classifier);
  const exclusive = tuned && model.classifier?.info.scores === 'softmax';
  // Labels that exclude each other compete anyway.
  $.softmaxSwitch.hidden = exclusive;
  const forced = $.softmax.checked && !exclusive;
  $.softmaxNote.hidden = !forced;
  if (live.on && seen) return showLive();
  if (!shown) {
    list.clear();
    $.timing.textContent = '';
    mark();
    return;
  }
  const { scores } = shown;
  const shares = softmax(scores.map(({ logit }) => logit));
  const rows = scores.map(({ label, score }, i) => ({ label, score: shares[i] ?? 0, alone: score }));
  list.show(forced ? rows : scores, isGuess(), isTuned(shown.classifier));
  const { pictureKnown, labelsKnown } = shown;
  $.timing.textContent = texts.timing({
    picture: duration(shown.pictureTime), pictureKnown, labels: duration(shown.labelsTime), labelsKnown, device: device(shown.classifier.info),
  });
  mark();
  if (!isCurrent()) return; // the switch was used while these are earlier results
  const guess = isGuess();
  const judge = () => {
    if (forced) return softmaxVerdict(rows, guess);
    return tuned ? tunedVerdict(scores, exclusive) : verdict(scores, guess);
  };
  conclude(judge().state, () => judge().text, notice);
}

/** Asks the model about what is chosen now. A newer question replaces one that is still being answered. @param {Notice} [notice] */
async function run(notice) {
  clearTimeout(timer);
  running?.abort();
  if (live.on) {
    running = undefined;
    mark();
    return live.update();
  }
  /** @type {Job} */
  const job = running = new AbortController();
  const { classifier } = model;
  const subject = picture.next ?? picture.now;
  const done = () => {
    clearTimeout(slow);
    running = undefined;
    $.progress.removeAttribute('value');
  };
  /** @type {Message} */
  let phase = () => texts.lookingAtPicture;
  const stop = () => {
    if (!running) return;
    running.stopped = true;
    running.abort();
  };
  const slow = setTimeout(() => running === job && busy(phase, stop), 250);

  mark();
  if (subject && subject.viewable === undefined) return done(); // `take` goes on when that is known
  if (model.loading || !classifier || !subject) {
    done();
    if (!classifier && !model.loading && subject?.viewable) accept(subject);
    mark();
    if (classifier && !model.loading) {
      busy();
      conclude('hint', () => texts.choosePicture, notice);
    }
    return;
  }
  if (!notice) offer();
  const question = { classifier, picture: subject, labels: [...labels.list], template: template() };
  const tuned = isTuned(classifier);
  try {
    const start = performance.now();
    let middle = start;
    const seen = () => {
      if (job !== running) return;
      middle = performance.now();
      accept(subject);
    };
    if (question.labels.length === 0) {
      await classifier.embedImage(subject.blob, { signal: job.signal });
      if (job !== running) return;
      seen();
      done();
      busy();
      shown = undefined;
      show();
      conclude('hint', () => texts.typeLabel, notice);
      return;
    }
    const scores = await classifier.classify(subject.blob, tuned ? undefined : question.labels, {
      template: tuned ? undefined : question.template,
      signal: job.signal,
      onProgress: ({ stage, loaded, total }) => {
        if (stage === 'images') seen();
        if (job !== running) return;
        phase = () => texts.readingLabels(stage === 'images' ? 1 : total);
        if ($.busy.hidden) return;
        say('busy', phase);
        if (stage === 'labels') $.progress.value = loaded / total;
      },
    });
    if (job !== running) return;
    losses = 0;
    const known = shown?.classifier === classifier ? shown : undefined;
    shown = {
      ...question, scores, pictureTime: middle - start, labelsTime: performance.now() - middle,
      pictureKnown: known?.picture === subject,
      labelsKnown: known?.template === question.template && question.labels.every((label) => known?.labels.includes(label)),
    };
    done();
    busy();
    show(notice);
  } catch (error) {
    if (job !== running) return;
    done();
    if (job.stopped) {
      accept(subject);
      if (shown?.picture !== subject) shown = undefined; // never another picture's results beside this one
      show();
      fail(() => texts.stopped, { retry: () => run() });
    } else if (['device-lost', 'out-of-memory', 'disposed'].includes(error?.code)) {
      const { choice } = model;
      if (error.code === 'out-of-memory') drop(subject); // it may have been too much
      losses += 1;
      // The library starts the model afresh by itself, twice at most.
      if (losses <= 2 && error.code !== 'disposed') {
        fail(() => reason(error), { retry: () => run(), cause: error });
      } else {
        unload();
        fail(() => `${reason(error)} ${texts.modelEnded}`, { retry: () => load(choice), retryText: () => texts.startAgain, cause: error });
      }
    } else if (error?.code !== 'bad-input' && (subject === picture.next || error?.code === 'bad-image')) {
      refuse(subject, () => reason(error), error);
    } else {
      // A template or a label is at fault: nobody has looked at the picture yet, and it waits until that is mended.
      if (subject.viewable) accept(subject);
      fail(() => reason(error), { retry: error?.code === 'bad-input' ? undefined : () => run(), cause: error });
    }
    mark();
  } finally {
    clearTimeout(slow);
  }
}

/** @param {ModelInfo} info */
const device = ({ backend }) => (backend === 'webgpu' ? texts.gpu : texts.cpu);

// ---- The picture -------------------------------------------------------------------------------------------------

/** Shows a picture, if this browser can; the model may be able to read what the browser can't. @param {Subject} [subject] */
function display(subject) {
  if (live.on) return;
  $.preview.hidden = !subject?.viewable;
  $.blank.hidden = Boolean(subject?.viewable);
  $.blankText.textContent = subject ? texts.unshowable : texts.noPicture;
  if (subject?.viewable) {
    $.preview.src = subject.url;
    $.stage.toggleAttribute('data-wide', subject.viewable.wide);
  }
  $.preview.alt = subject ? texts.chosenPicture(nameOf(subject)) : '';
  $.caption.textContent = subject ? nameOf(subject) : '';
  markSample(subject);
}

/** @param {Subject} [subject] */
function release(subject) {
  if (subject) URL.revokeObjectURL(subject.url);
}

/** The model can read it. @param {Subject} subject */
function accept(subject) {
  if (subject !== picture.next) return;
  if (picture.now !== subject) release(picture.now);
  picture.now = subject;
  picture.next = undefined;
  delete $.stage.dataset.pending;
  display(subject);
}

/** The picture before comes back. @param {Subject} subject */
function drop(subject) {
  if (subject !== picture.next) return;
  picture.next = undefined;
  release(subject);
  delete $.stage.dataset.pending;
  if (subject.forgotten && !$.labels.value) {
    $.labels.value = subject.forgotten;
    readLabels();
  }
  display(picture.now);
}

/** A picture that can't be used: the one before comes back, with its results. @param {Subject} subject @param {Message} why @param {unknown} [cause] */
function refuse(subject, why, cause) {
  const had = picture.now;
  drop(subject);
  const text = () => texts.refused(subject.name, why(), had !== undefined);
  fail(text, { cause });
  mark();
  if (had && !isCurrent() && !model.loading) run({ text });
}

/** How this browser can show a picture: whether it is wider than its stage (4:3); false if it can't. @param {string} url */
async function viewable(url) {
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
    return { wide: image.naturalWidth * 3 > image.naturalHeight * 4 };
  } catch {
    return false;
  }
}

/** Takes pictures from any of the page's doors: the first is shown, the others wait in a strip. @param {Picture[]} pictures at least one */
function takeAll(pictures) {
  strip.splice(0, Infinity, ...pictures);
  showStrip(strip, take);
  const [one] = strip;
  if (one) take(one);
}

/** @param {Picture} given */
async function take(given) {
  const { blob, name, sample, labels: suggested } = given;
  if (live.on) stopLive();
  picture.fetching?.abort();
  running?.abort();
  running = undefined;
  /** @type {Subject} */
  const subject = { blob, name, sample, url: URL.createObjectURL(blob) };
  const before = picture.next;
  release(before);
  picture.next = subject;
  markStrip(strip.indexOf(given));
  if (sample) suggest(suggested);
  else subject.forgotten = forget() || before?.forgotten;
  if (blob.size === 0) return refuse(subject, () => texts.emptyFile);
  $.stage.dataset.pending = 'true';
  mark();
  const view = await viewable(subject.url);
  if (picture.next !== subject) return;
  subject.viewable = view;
  if (view) display(subject);
  else if (!model.classifier && !model.loading) return refuse(subject, () => texts.unknownPicture);
  run();
}

/** Fetches a picture first; `work` gets the signal of the Cancel button. @param {string} address @param {(signal: AbortSignal) => Promise<Picture>} work */
async function fetching(address, work) {
  picture.fetching?.abort();
  const job = picture.fetching = new AbortController();
  busy(() => texts.fetchingPicture, () => job.abort('stopped'));
  try {
    const got = await work(job.signal);
    if (picture.fetching !== job) return;
    picture.fetching = undefined;
    busy();
    takeAll([got]);
  } catch (error) {
    if (picture.fetching !== job) return;
    picture.fetching = undefined;
    const { aborted } = job.signal;
    fail(() => (aborted ? texts.notFetched : reason(error)), { retry: () => fetching(address, work), cause: aborted ? undefined : error });
  }
}

// ---- The camera, live ----------------------------------------------------------------------------------------------

function startLive() {
  running?.abort();
  running = undefined;
  picture.fetching?.abort();
  seen = undefined;
  const starting = live.start();
  if (live.on) {
    $.resultsCard.dataset.live = 'true';
    $.caption.textContent = texts.live.caption('');
    markSample();
    mark();
  }
  return starting;
}

/** Back to the picture before. */
function stopLive() {
  const last = live.stop();
  seen = undefined;
  delete $.resultsCard.dataset.live;
  display(picture.next ?? picture.now);
  show();
  return last;
}

/** The last frame becomes the picture. */
async function freeze() {
  const blob = await stopLive();
  if (blob) takeAll([{ blob, name: texts.cameraPicture }]);
  else run();
}

/** @type {import('./camera.js').Viewer['tell']} */
function tellLive(state) {
  if (state === 'open') {
    // Not before: where there is no camera, the answer stays.
    forget();
    shown = undefined;
    return show();
  }
  if (state === 'unasked') {
    seen = undefined;
    list.clear();
    $.timing.textContent = '';
  }
  busy();
  offer();
  if (state === 'opening') say('hint', () => texts.cameraWaits);
  else if (!model.loading) say('hint', () => (state === 'watching' ? texts.live.watching : texts.typeLabel));
}

/** The newest frame's results: in the labels' own order, so that rows stay where they are. */
function showLive() {
  if (!seen || !live.on) return;
  const { results, frame: { framesPerSecond } } = seen;
  const place = new Map(labels.list.map((label, i) => [label, i]));
  const scores = [...results].sort((a, b) => (place.get(a.label) ?? Infinity) - (place.get(b.label) ?? Infinity));
  const shares = softmax(scores.map(({ logit }) => logit));
  list.show($.softmax.checked && !$.softmaxSwitch.hidden ? scores.map(({ label, score }, i) => ({ label, score: shares[i] ?? 0, alone: score })) : scores, isGuess(), isTuned(model.classifier), true);
  const rate = framesPerSecond ? texts.live.rate(number(framesPerSecond, framesPerSecond < 10 ? 1 : 0)) : '';
  $.caption.textContent = texts.live.caption(rate);
  $.timing.textContent = [rate, model.classifier && device(model.classifier.info)].filter(Boolean).join(', ');
  offerPhotographs();
}

// ---- The labels --------------------------------------------------------------------------------------------------

function readLabels() {
  if (labels.before !== undefined) {
    labels.list = [...model.classifier?.info.labels ?? []];
    $.labelsOwn.textContent = texts.ownLabels(labels.list.length, number(labels.list.length));
    $.labelsNote.hidden = true;
    return mark();
  }
  const sentences = wayOf(template()) === 'sentences';
  const { labels: found, repeated, empty } = parseLabels($.labels.value, { sentences });
  $.labelsHint.textContent = sentences ? texts.sentencesHint : texts.labelsHint;
  labels.list = found;
  const some = (/** @type {string[]} */ list) => list.slice(0, 3).map(texts.quote).join(', ') + (list.length > 3 ? '…' : '');
  $.labelsNote.textContent = [
    repeated.length > 0 && texts.repeated(some(repeated)),
    empty.length > 0 && texts.wordless(some(empty)),
  ].filter(Boolean).join('. ');
  $.labelsNote.hidden = !$.labelsNote.textContent;
  mark();
}

/** Says which language labels are read in, where that isn't the page's own, and tells the browser. */
function sayLanguage() {
  const languages = model.choice.id === 'demo' ? 'en' : models.find(model.choice.id)?.languages;
  const text = languages === 'en' ? texts.readsEnglish : languages === 'many' ? texts.readsMany : '';
  $.labelsLanguage.textContent = text;
  $.labelsLanguage.hidden = !text;
  for (const node of [$.labels, $.results, $.template]) node.lang = languages === 'en' ? 'en' : '';
}

/** A fine-tuned model's labels stand in the box, which can't be changed then; what was there comes back with another model. @param {ModelInfo} info */
function showOwnLabels({ task, labels: own = [] }) {
  const tuned = task === 'image-classification';
  if (tuned) {
    labels.before ??= $.labels.value;
    $.labels.value = own.join('\n');
    $.suggestion.hidden = true;
  } else if (labels.before !== undefined) {
    $.labels.value = labels.before;
    labels.before = undefined;
  }
  $.labels.readOnly = $.template.disabled = $.whole.disabled = $.labelsHint.hidden = $.asking.hidden = $.share.hidden = tuned;
  $.labelsOwn.hidden = !tuned;
  readLabels();
}

/** A model converted for fixed labels takes no others. @param {ModelInfo} info */
function takeFixedLabels({ labels: fixed }) {
  if (!fixed || (labels.list.length > 0 && labels.list.every((label) => fixed.includes(label)))) return;
  $.labels.value = fixed.join('\n');
  labels.own = true;
  readLabels();
}

/** An example's template goes when its labels go. */
function takeBackTemplate() {
  if (labels.lent) $.template.value = $.template.defaultValue;
  labels.lent = false;
  markWay();
}

/** A sample's labels go into the box, unless the person has typed some; then they are only offered. @param {string[]} [suggested] */
function suggest(suggested) {
  $.suggestion.hidden = true;
  if (!suggested) return;
  if (labels.before !== undefined) {
    if (!labels.own) labels.before = suggested.join(', ');
    return;
  }
  const use = () => {
    $.labels.value = suggested.join(', ');
    labels.own = false;
    takeBackTemplate();
    $.suggestion.hidden = true;
    readLabels();
  };
  if (!labels.own || !$.labels.value.trim()) return use();
  if (suggested.join('\n') === labels.list.join('\n')) return;
  $.suggest.textContent = texts.useLabels(suggested.join(', '));
  $.suggest.onclick = () => {
    use();
    $.labels.focus();
    run();
  };
  $.suggestion.hidden = false;
}

/** A sample's labels say nothing about one's own picture. @returns {string} what was taken out of the box */
function forget() {
  $.suggestion.hidden = true;
  const text = $.labels.value;
  if (labels.own || !text || labels.before !== undefined) return '';
  $.labels.value = '';
  takeBackTemplate();
  readLabels();
  return text;
}

/** An example of a way of asking, with its picture. @param {import('./asking.js').Example} example */
function showExample({ template: sentence, sample, labels: words }) {
  const found = samples.find((one) => one.sample === sample);
  if (found) takeAll([found]);
  $.suggestion.hidden = true;
  $.labels.value = words.join('\n');
  $.template.value = sentence;
  Object.assign(labels, { own: false, lent: true });
  changeTemplate();
}

/** The person has changed what is asked: this is what the next visit finds, whatever a link said. */
function keepAsked() {
  if (labels.own) remember($.labels.value, template(), $.template.defaultValue);
  if (unlink()) $.shareNote.hidden = true;
}

function changeTemplate() {
  markWay();
  readLabels();
  later();
}

/** Labels that the address or an earlier visit brings. */
function recall() {
  const link = linked();
  const before = remembered();
  const text = link.labels ?? before.labels;
  const { template: sentence } = link.labels || link.template ? link : before;
  if (text || sentence) {
    // The usual one isn't mentioned.
    $.template.value = sentence ?? $.template.defaultValue;
    labels.lent = false;
  }
  markWay();
  if (!text) return;
  if (labels.before === undefined) $.labels.value = text;
  else labels.before = text;
  labels.own = true;
}

async function share() {
  const link = linkTo($.labels.value, template(), $.template.defaultValue);
  const note = $.shareNote;
  note.hidden = false;
  if (!link) return void (note.textContent = texts.tooLongForLink);
  history.replaceState(null, '', link);
  try {
    await navigator.clipboard.writeText(link);
    note.textContent = texts.linkCopied;
  } catch {
    note.textContent = texts.linkShown;
  }
}

/** What is shown, as a file; of several pictures all of them, which are looked at for it. @param {'csv' | 'json'} kind */
async function save(kind) {
  if (!shown) return;
  const { classifier, labels: words, template: sentence } = shown;
  const pictures = strip.length > 1 ? strip : [shown.picture];
  /** @type {import('./export.js').Line[]} */
  const rows = [];
  if (pictures.length === 1) rows.push({ image: nameOf(shown.picture), results: shown.scores });
  else {
    running?.abort();
    const job = running = new AbortController();
    busy(() => texts.lookingAtPictures(pictures.length), () => job.abort());
    mark();
    try {
      const onProgress = (/** @type {import('../lib/siglip-web.js').CallProgress} */ { stage, loaded, total }) => { if (stage === 'images' && job === running) $.progress.value = loaded / total; };
      const tuned = isTuned(classifier);
      for await (const { index, results, error } of classifier.classifyMany(pictures.map(({ blob }) => blob), tuned ? undefined : words, { template: tuned ? undefined : sentence, signal: job.signal, onProgress })) {
        rows.push({ image: pictures[index]?.name ?? '', ...(error ? { error: error.message } : { results }) });
      }
    } catch (error) {
      if (job !== running) return;
      running = undefined;
      const { aborted } = job.signal;
      fail(() => (aborted ? texts.nothingSaved : reason(error)), { cause: aborted ? undefined : error });
      return mark();
    }
    if (job !== running) return;
    running = undefined;
    busy();
    show();
  }
  const about = { model: classifier.info.name, dtype: classifier.info.dtype, ...(!isTuned(classifier) && { template: sentence }) };
  if (kind === 'csv') download('results.csv', 'text/csv', toCsv(rows));
  else download('results.json', 'application/json', toJson(about, rows));
}

function later() {
  clearTimeout(timer);
  timer = setTimeout(run, 250);
}

// ---- The model ---------------------------------------------------------------------------------------------------

function unload() {
  model.classifier?.dispose();
  model.classifier = undefined;
  mark();
}

/** What there is to know of the model. */
function describe() {
  sayLanguage();
  const info = model.classifier?.info;
  const { id, source } = model.choice;
  const place = id === 'other' || id === 'site' ? String(source) : texts.theHub;
  if (id === 'demo') $.about.textContent = texts.aboutDemo;
  else if (id === 'folder') $.about.textContent = texts.aboutFolder;
  else $.about.textContent = `${texts.aboutFetched(place)} ${model.whole || isTuned(model.classifier) ? texts.nothingSent : texts.rowsSent}`;
  $.facts.replaceChildren();
  if (!info) return;
  const { facts } = texts;
  /** @type {[term: string, text: string, english?: boolean][]} */
  const lines = [
    [facts.model, info.name],
    [facts.device, `${device(info)}${info.adapter ? `: ${info.adapter}` : ''}`],
    [facts.reason, info.backendReason, true],
    [facts.size, texts.size(bytes(info.bytes), number(info.parameters / 1e6, info.parameters < 1e7 ? 1 : 0), info.dtype)],
    [facts.sees, info.naflex ? texts.seesShape(number(info.maxPatches), info.patchSize) : texts.sees(info.imageSize, info.patchSize)],
    isTuned(model.classifier) ? [facts.knows, texts.knows(info.labels?.length ?? 0, number(info.labels?.length ?? 0))] : [facts.reads, texts.reads(info.contextLength)],
    [facts.kept, info.cacheReason, true],
  ];
  for (const [term, text, english] of lines) {
    if (!text) continue;
    const group = document.createElement('div');
    const name = document.createElement('dt');
    const value = document.createElement('dd');
    name.textContent = term;
    value.textContent = text;
    if (english) value.lang = 'en';
    group.append(name, value);
    $.facts.append(group);
  }
}

/** Says what a load tells. @param {() => string} title of the model */
function progressOf(title) {
  /** What was said last: the stage, and tenths of a large file. */
  let last = '';
  /** The file whose download is under way; what has arrived of it is loaded at the same time. @type {string | undefined} */
  let arriving;
  const pace = new Rate();
  return (/** @type {Progress} */ { stage, file, loaded, total, fromCache, waiting }) => {
    if (waiting) {
      last = '';
      return say('busy', () => texts.waiting || waiting, waiting);
    }
    const known = total > 0;
    if (total < 1e5 && stage === 'download') return; // too quick to read
    if (stage === 'download') arriving = known && loaded >= total ? undefined : file;
    else if (stage === 'load' && arriving) return;
    const step = fromCache ? 'cache' : stage;
    if (known) $.progress.value = Math.min(1, loaded / total);
    else $.progress.removeAttribute('value');
    const isBytes = stage === 'download' || stage === 'load';
    const { rate, left } = stage === 'download' && !fromCache ? pace.add(performance.now(), loaded, total) : {};
    const parts = [known ? texts.of(bytes(loaded), bytes(total)) : bytes(loaded), rate && `${bytes(rate)}/s`, known && left && texts.left(remaining(left)), file];
    $.bytes.textContent = isBytes ? parts.filter(Boolean).join(' · ') : '';
    // Spoken rarely: at each tenth of a large file.
    const tenth = known && isBytes && total > 3e7 ? Math.floor((loaded / total) * 10) * 10 : undefined;
    const now = `${step} ${tenth}`;
    if (last === now) return;
    last = now;
    const rest = () => [tenth !== undefined && texts.percent(String(tenth)), tenth !== undefined && left !== undefined && left > 20 && texts.aboutLeft(remaining(left))];
    say('busy', () => texts.stages[step](title(), rest().filter(Boolean).map((part) => `, ${part}`).join('')));
  };
}

/** What is kept, in the panel and in the list of models. */
async function showCaches() {
  const { SiglipClassifier } = await import('../lib/siglip-web.js');
  const caches = await SiglipClassifier.caches().catch(() => []);
  models.know(caches);
  const { classifier, choice } = model;
  const forgotten = classifier !== undefined && classifier.info.cached && choice.id !== 'demo' && !caches.some(({ name }) => name === classifier.info.name);
  showStorage({ persists: model.persists ?? await willKeep(), room: await roomLeft(), forgotten });
  showKept(caches, async (name) => {
    try {
      const freed = await SiglipClassifier.clearCache(name);
      if ($.kept.contains(document.activeElement) || document.activeElement === $.clear) $.storage.querySelector('summary')?.focus();
      await showCaches();
      $.keptNote.textContent = `${texts.freed(bytes(freed))} ${$.keptNote.textContent}`;
    } catch (error) {
      $.keptNote.textContent = reason(error);
    }
  });
}

/** Loads a model. The one before stays until the new one is ready if it is the small demo; a large one makes room first, for one that can be had. @param {Choice} choice */
async function load(choice) {
  chooseNot();
  model.loading?.abort();
  running?.abort();
  running = undefined;
  clearTimeout(timer);
  const job = model.loading = new AbortController();
  model.wanted = choice;
  nameModel();
  const { backend, dtype } = model;
  const { backend: wanted, dtype: precision } = wishes();
  const { whole } = model;
  const wholeTable = $.whole.checked;
  const found = models.find(choice.id);
  const buffer = found?.buffer;
  busy(() => texts.loading(choice.title()), () => job.abort());
  mark();
  const room = !found?.kept && !choice.anyway && choice.id !== 'demo' ? await roomLeft() : undefined;
  const typed = choice.id === 'other' && typeof choice.source === 'string' && room !== undefined ? choice.source : undefined;
  const needed = found ?? (typed !== undefined ? await models.measure(typed, job.signal) : undefined);
  if (model.loading !== job) return;
  try {
    if (found && buffer) throw new Problem(() => texts.bufferTooLarge(found.title, bytes(buffer[0]), bytes(buffer[1])));
    if (needed && room !== undefined && room < needed.memory) {
      throw new NoRoom(() => texts.noRoom(bytes(needed.memory), bytes(room), bytes(needed.download)));
    }
    job.signal.throwIfAborted();
    if (model.choice.id !== 'demo') unload();
    const progress = progressOf(choice.title);
    /** @type {import('../lib/siglip-web.js').LoadOptions & {signal: AbortSignal, onProgress: (event: Progress) => void}} */
    const options = { backend: wanted, dtype: found?.dtype ?? precision, wholeTable, signal: job.signal, onProgress: (event) => {
      keepModule(event.file);
      if (model.loading === job) progress(event);
    } };
    const classifier = await ((choice === first && takeFirst(options)) || import('../lib/siglip-web.js').then(({ SiglipClassifier }) => SiglipClassifier.load(choice.source, options)));
    if (model.loading !== job) return void classifier.dispose();
    unload();
    Object.assign(model, { classifier, choice, backend: wanted, dtype: precision, whole: wholeTable, loading: undefined, wanted: undefined });
    model.persists = undefined;
    if (classifier.info.cached && classifier.info.bytes > 1e8) askToKeep().then((answer) => {
      if (model.classifier !== classifier) return;
      model.persists = answer;
      showCaches();
    });
    showOwnLabels(classifier.info);
    if (!isTuned(classifier)) takeFixedLabels(classifier.info);
    describe();
    showCaches();
  } catch (error) {
    if (model.loading !== job) return;
    model.loading = model.wanted = undefined;
    const noRoom = error instanceof NoRoom;
    const { aborted } = job.signal;
    const cause = aborted ? undefined : error;
    const text = () => (aborted ? texts.stoppedLoading(choice.title()) : texts.notLoaded(choice.title(), reason(error)));
    const retry = () => {
      choice.anyway ||= noRoom;
      $.backend.value = wanted;
      $.dtype.value = precision;
      $.whole.checked = wholeTable;
      load({ ...choice, notice: undefined });
    };
    if (!model.classifier) model.choice = demo; // the one before had to make room, and the demo is what there is
    nameModel();
    $.backend.value = backend;
    $.dtype.value = dtype;
    $.whole.checked = whole;
    showCaches();
    if (model.classifier) {
      const { choice: before } = model;
      /** @type {Notice} */
      const still = { text: () => `${text()} ${before.source === choice.source ? texts.goesOn : texts.stillInUse(before.title())}`, retry, retryText: noRoom ? () => texts.allTheSame : undefined };
      fail(still.text, { ...still, cause });
      mark();
      if (!isCurrent()) run(still); // something was changed meanwhile
    } else if (choice.id !== 'demo') {
      load({ ...demo, notice: { text: () => `${text()} ${texts.demoAgain}`, retry } });
    } else {
      describe();
      mark();
      fail(text, { retry, cause });
    }
    return;
  }
  await run(choice.notice);
}

/** The models in the dialog. */
const radios = () => [...$.choices.querySelectorAll('input')];

/** The list of models names what is in use, or on its way. */
function nameModel() {
  const choice = listed();
  const value = optionOf(choice);
  if (value === own.value) $.modelsOwn.prepend(own);
  else own.remove();
  own.textContent = choice.title();
  $.model.value = value;
}

function chooseModel() {
  const { value } = $.model;
  chooseNot();
  if (value === optionOf(listed()) && (model.classifier || model.loading)) return; // keys have come back to it
  if (value === 'folder' || value === 'other') {
    if (value === 'folder') {
      $.folder.oncancel = nameModel;
      $.folder.click();
    } else {
      const suggested = radios().find(({ value: id }) => id === models.forPhotographs().id);
      if (suggested) suggested.checked = true;
      $.other.value = '';
      $.otherDialog.showModal();
      suggested?.focus();
      models.ask();
    }
    return;
  }
  loadSoon();
}

/** Loads what stands in the list, as is wished under Advanced. */
function loadSoon() {
  const { value } = $.model;
  const known = [demo, first, listed()].find((choice) => optionOf(choice) === value);
  chooseSoon(value, () => load(known ? { ...known, notice: undefined } : { id: value, source: value, title: () => models.find(value)?.title ?? value }));
}

function connectModel() {
  $.model.addEventListener('change', chooseModel);
  $.folder.addEventListener('change', () => {
    const files = [...($.folder.files ?? [])];
    $.folder.value = '';
    if (files[0]) takeFolder(files, files[0].webkitRelativePath.split('/')[0]);
  });
  $.otherForm.addEventListener('submit', (event) => {
    event.preventDefault();
    const name = $.other.value.trim();
    const chosen = models.find(radios().find(({ checked }) => checked)?.value ?? '');
    if (!name && !chosen) return $.other.focus();
    $.otherDialog.close('load');
    if (name || !chosen) return void load({ id: 'other', source: name, title: () => name });
    load({ id: chosen.id, source: chosen.id, title: () => chosen.title });
  });
  // One or the other.
  $.other.addEventListener('input', () => {
    for (const choice of radios()) choice.checked = false;
  });
  $.choices.addEventListener('change', () => {
    $.other.value = '';
  });
  $.otherClose.addEventListener('click', () => $.otherDialog.close());
  $.otherDialog.addEventListener('close', () => {
    if ($.otherDialog.returnValue !== 'load') nameModel();
    $.otherDialog.returnValue = '';
  });
  for (const control of [$.backend, $.dtype, $.whole]) {
    control.addEventListener('change', () => {
      models.show();
      loadSoon();
    });
  }
  $.storage.addEventListener('toggle', () => $.storage.open && showCaches());
}

/** A model's files, from the picker or dropped; what is none takes no model's place. @param {File[]} files @param {string} [name] */
function takeFolder(files, name = '') {
  if (!isModel(files)) {
    if ($.model.value === 'folder') nameModel();
    const pictures = files.filter(({ type }) => type.startsWith('image/')).map((file) => ({ blob: file, name: file.name }));
    const way = pictures.length > 0 ? { retry: () => takeAll(pictures), retryText: () => texts.usePictures(pictures.length, number(pictures.length)) } : {};
    return fail(() => texts.noModel(name, pictures.length > 0), way);
  }
  load({ id: 'folder', source: files, title: () => texts.folder(name) });
}

// ---- Start -------------------------------------------------------------------------------------------------------

connect({ take: takeAll, fail: (text) => fail(text), fetching, takeFolder });
connectModel();
$.labels.addEventListener('input', () => {
  labels.own = true;
  $.suggestion.hidden = true;
  keepAsked();
  readLabels();
  later();
});
$.share.addEventListener('click', share);
$.csv.addEventListener('click', () => save('csv'));
$.json.addEventListener('click', () => save('json'));
addEventListener('hashchange', () => {
  if (document.getElementById(location.hash.slice(1))) return; // a place on the page, where the skip link leads
  recall();
  readLabels();
  run();
});
/** By the person. */
const change = () => {
  labels.lent = false;
  keepAsked();
  changeTemplate();
};
$.template.addEventListener('input', change);
connectAsking({ change, show: showExample });
$.live.addEventListener('click', () => (live.on ? freeze() : startLive()));
$.softmax.addEventListener('change', () => show());
addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && !$.busy.hidden && !document.querySelector('dialog[open]')) $.cancel.click();
});

if (named) $.model.prepend(new Option(first.title(), first.id, true, true));
/** All that is said, in another language. */
onLanguage(() => {
  const { state, message, english } = said;
  describe();
  own.textContent = listed().title();
  display(picture.next ?? picture.now);
  readLabels();
  if (!$.suggestion.hidden) suggest(strip[0]?.labels);
  show();
  showCaches();
  heat.say();
  say(state, message, english);
  $.retry.textContent = offered();
});

recall();
describe();
readLabels();
const begun = load(first);
const sharing = connectApp((shared) => takeAll([shared]), begun);
showSamples(takeAll).then(
  async (all) => {
    samples.push(...all);
    const [sample] = all;
    if (sample && !(await sharing) && !picture.now && !picture.next) takeAll([sample]);
  },
  () => {
    $.samplesTitle.hidden = true;
    if (!picture.now && !picture.next) run();
  },
);
