// The page that measures: how long a model takes on this device, on the CPU and on the graphics card, as a table and as JSON.

import '../policy.js';
import { MODELS, bestFor, lookAtDevice } from '../catalogue.js';
import { listModels, sourceOf, titleOf } from '../choices.js';
import { download } from '../export.js';
import { button, element, part, select } from '../find.js';
import { number, onLanguage, texts } from '../language.js';
import { keepModule, keepPage } from '../offline.js';
import { measure, summary } from './measure.js';

/** @typedef {import('./measure.js').Times} Times */
/** @typedef {'cpu' | 'webgpu'} Backend */
/** @typedef {() => string} Message */

/** Pictures and labels on each device. */
const CALLS = 7;

const $ = {
  model: select('model'),
  answer: part('answer'),
  status: part('status'),
  measure: button('measure'),
  stop: button('stop'),
  progress: element('progress', HTMLProgressElement),
  result: part('result'),
  caption: part('caption'),
  rows: part('rows'),
  copy: button('copy'),
  json: button('json'),
  copied: part('copied'),
};

/** @type {{model: string, rows: Times[]} | undefined} */
let measured;
/** @type {AbortController | undefined} */
let running;

// ---- What the page says -------------------------------------------------------------------------------------------

/** @type {{state: string, message: Message}} */
let said = { state: 'unsure', message: () => texts.speed.begin };
/** @type {Message} */
let copied = () => '';

/** @param {string} state @param {Message} message */
function say(state, message) {
  said = { state, message };
  $.answer.dataset.state = state;
  const text = message();
  if ($.status.textContent !== text) $.status.textContent = text;
}

/** @param {Message} message */
function sayCopied(message) {
  copied = message;
  $.copied.textContent = message();
}

/** @param {Times['info']} info */
const placeOf = ({ backend, adapter }) => `${backend === 'webgpu' ? texts.gpu : texts.cpu}: ${adapter}`;

function showRows() {
  $.result.hidden = !measured;
  if (!measured) return;
  const { model, rows } = measured;
  const last = rows.at(-1);
  $.caption.textContent = last ? texts.speed.caption(titleOf(model), last.info.dtype) : '';
  $.rows.replaceChildren(...rows.map(({ ready, pictures, labels, info }) => {
    const row = document.createElement('tr');
    const head = Object.assign(document.createElement('th'), { scope: 'row', textContent: placeOf(info) });
    const cells = [seconds(ready), both(pictures), labels.length > 0 ? both(labels) : texts.speed.ownLabels];
    row.append(head, ...cells.map((textContent) => Object.assign(document.createElement('td'), { textContent })));
    return row;
  }));
}

/** @param {number} ms */
const seconds = (ms) => texts.speed.seconds(number(ms / 1000, 1));
/** @param {number[]} times */
function both(times) {
  const [least, median] = summary(times).map((ms) => number(ms, ms < 10 ? 1 : 0));
  return texts.speed.both(least ?? '', median ?? '');
}

// ---- The measurement ----------------------------------------------------------------------------------------------

async function run() {
  const job = running = new AbortController();
  const { signal } = job;
  const id = $.model.value;
  const found = MODELS.find((one) => one.id === id);
  busy(true);
  sayCopied(() => '');
  measured = { model: id, rows: [] };
  showRows();
  try {
    const { SiglipClassifier } = await import('../../lib/siglip-web.js');
    const device = await lookAtDevice();
    /** @type {Backend[]} */
    const backends = device.gpu ? ['cpu', 'webgpu'] : ['cpu'];
    for (const [index, backend] of backends.entries()) {
      const where = () => (backend === 'webgpu' ? texts.gpu : texts.cpu);
      const share = (/** @type {number} */ part) => { $.progress.value = (index + part) / backends.length; };
      say('busy', () => texts.speed.loading(titleOf(id), where()));
      const load = () => SiglipClassifier.load(sourceOf(id), {
        backend, signal, dtype: (found && bestFor(found, device, 'auto', backend)) ?? 'auto',
        onProgress: ({ file, stage, loaded, total }) => {
          keepModule(file);
          if (stage !== 'ready' && total > 0) share(0.5 * loaded / total);
        },
      });
      const times = await measure(load, CALLS, {
        signal,
        onCall: (done) => {
          share(0.5 + 0.5 * done / CALLS);
          say('busy', () => texts.speed.measuring(titleOf(id), where()));
        },
      });
      measured.rows.push(times);
      showRows();
    }
    say('good', () => (device.gpu ? texts.speed.done : texts.speed.doneOnCpu));
  } catch (error) {
    const { aborted } = signal;
    say('error', () => (aborted ? texts.speed.stopped : texts.speed.failed(error?.message ?? String(error))));
  } finally {
    running = undefined;
    busy(false);
  }
}

/** @param {boolean} yes */
function busy(yes) {
  const focused = document.activeElement === $.measure || document.activeElement === $.stop;
  $.measure.hidden = yes;
  $.stop.hidden = !yes;
  $.model.disabled = yes;
  $.progress.hidden = !yes;
  $.progress.removeAttribute('value');
  if (focused) (yes ? $.stop : $.measure).focus();
}

/** The table and what it is of, for other programs. */
function json() {
  const rows = measured?.rows.map(({ ready, pictures, labels, info: { backend, adapter, dtype, cached } }) => ({ backend, adapter, dtype, cached, ready, pictures, labels }));
  const { userAgent, hardwareConcurrency } = navigator;
  return `${JSON.stringify({ model: measured?.model, unit: 'ms', browser: userAgent, cores: hardwareConcurrency, isolated: crossOriginIsolated, rows }, null, 2)}\n`;
}

$.measure.addEventListener('click', run);
$.stop.addEventListener('click', () => running?.abort());
$.json.addEventListener('click', () => download('siglip-web-speed.json', 'application/json', json()));
$.copy.addEventListener('click', () => {
  navigator.clipboard.writeText(json()).then(() => sayCopied(() => texts.speed.copied), () => sayCopied(() => texts.speed.notCopied));
});

// ---- Start --------------------------------------------------------------------------------------------------------

/** All that the page's language has a part in. */
function tell() {
  showRows();
  say(said.state, said.message);
  sayCopied(copied);
}

onLanguage(tell);
listModels();
tell();
keepPage();
