// The camera: one picture of it in a dialog, or its frames, one after another, in the place of the picture.

import { $ } from './elements.js';
import { texts } from './language.js';

/** @typedef {import('../lib/siglip-web.js').SiglipClassifier} SiglipClassifier */
/** @typedef {import('../lib/siglip-web.js').LabelScore} LabelScore */
/** @typedef {import('../lib/siglip-web.js').WatchedFrame} WatchedFrame */
/** @typedef {'environment' | 'user'} Facing */
/** What is asked of every frame. tuned: the labels are the model's own. @typedef {{classifier: SiglipClassifier, labels: string[], template: string, tuned: boolean}} Question */

/** Opens a camera and plays it in `video`. @param {HTMLVideoElement} video @param {Facing} facing @param {() => boolean} wanted whether it still is @returns {Promise<MediaStream | undefined>} */
async function open(video, facing, wanted) {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: facing, width: { ideal: 1280 } } });
  if (!wanted()) return close(video, stream);
  video.srcObject = stream;
  await video.play();
  if (!wanted()) return close(video, stream);
  video.dataset.mirror = String(facing === 'user' && stream.getVideoTracks()[0]?.getSettings().facingMode !== 'environment');
  return stream;
}

/** @param {HTMLVideoElement} video @param {MediaStream | undefined} stream @returns {undefined} */
function close(video, stream) {
  stream?.getTracks().forEach((track) => track.stop());
  if (video.srcObject === stream) video.srcObject = null;
}

/** Whether there is another camera to change to. Only told once one was allowed. */
async function several() {
  return (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === 'videoinput').length > 1;
}

/** Why there is none, by the name of the browser's error. @param {any} error @returns {'forbidden' | 'missing' | 'busy'} */
const why = ({ name }) => (name === 'NotAllowedError' ? 'forbidden' : name === 'NotFoundError' || name === 'OverconstrainedError' ? 'missing' : 'busy');

/** @param {HTMLVideoElement} video @returns {Promise<Blob | null>} what it shows now */
function still(video) {
  const canvas = Object.assign(document.createElement('canvas'), { width: video.videoWidth, height: video.videoHeight });
  if (!canvas.width) return Promise.resolve(null);
  canvas.getContext('2d')?.drawImage(video, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
}

/** The dialog that takes one picture. @param {Pick<import('./pictures.js').Page, 'take' | 'fail'>} page */
export function connectCamera({ take, fail }) {
  const [dialog, video, note, shutter, flip] = [$.cameraDialog, $.video, $.cameraNote, $.shutter, $.flip];
  /** @type {MediaStream | undefined} */
  let stream;
  /** @type {Facing} */
  let facing = 'environment';
  let opening = 0;

  const stop = () => {
    opening += 1;
    stream = close(video, stream);
    shutter.disabled = true;
  };

  const start = async () => {
    stop();
    const mine = opening;
    note.hidden = false;
    note.textContent = texts.cameraWaits;
    try {
      stream = await open(video, facing, () => mine === opening) ?? stream;
      if (mine !== opening) return;
      note.hidden = true;
      shutter.disabled = false;
      shutter.focus();
      flip.hidden = !(await several());
    } catch (error) {
      if (mine !== opening) return;
      note.textContent = { forbidden: texts.cameraForbidden, missing: texts.noCamera, busy: texts.cameraBusy }[why(error)];
    }
  };

  $.camera.addEventListener('click', () => {
    const phone = matchMedia('(hover: none) and (pointer: coarse)').matches; // its own camera app focuses better
    if (phone || !navigator.mediaDevices?.getUserMedia) return $.capture.click();
    dialog.showModal();
    start();
  });
  flip.addEventListener('click', () => {
    facing = facing === 'user' ? 'environment' : 'user';
    start();
  });
  shutter.addEventListener('click', async () => {
    const picture = still(video); // before the camera is off
    dialog.close();
    const blob = await picture;
    if (blob) take([{ blob, name: texts.cameraPicture }]);
    else fail(() => texts.cameraFailed);
  });
  $.cameraClose.addEventListener('click', () => dialog.close());
  dialog.addEventListener('close', stop);
}

/**
 * What the page does with live pictures.
 * @typedef {object} Viewer
 * @property {() => Question | undefined} ask what is asked now; undefined while there is no model
 * @property {(results: LabelScore[], frame: WatchedFrame) => void} show
 * @property {(state: 'opening' | 'open' | 'watching' | 'unasked') => void} tell open: the camera is there, and nothing is asked yet; unasked: there is no label
 * @property {(trouble: 'forbidden' | 'missing' | 'busy' | 'unsupported' | 'gone') => void} lost the camera is off, and why
 * @property {(error: unknown) => void} fail the model's own trouble; the camera stays on
 */

/** Frames of the camera, classified one after another: the newest only, and none while nobody sees the page. */
export class Live {
  /** From the button's press until it is pressed again. */
  on = false;
  #page;
  /** @type {Facing} */
  #facing = 'environment';
  /** @type {MediaStream | undefined} */
  #stream;
  #opening = 0;
  /** @type {AbortController | undefined} */
  #watching;
  /** @type {Question | undefined} */
  #question;
  /** Keeps the screen on. @type {WakeLockSentinel | undefined} */
  #awake;

  /** @param {Viewer} page */
  constructor(page) {
    this.#page = page;
    document.addEventListener('visibilitychange', () => {
      if (!this.on) return;
      if (document.hidden) this.#close();
      else this.#open();
    });
    $.liveFlip.addEventListener('click', () => {
      this.#facing = this.#facing === 'user' ? 'environment' : 'user';
      this.#close();
      this.#open();
    });
  }

  start() {
    if (!navigator.mediaDevices?.getUserMedia) return this.#page.lost('unsupported');
    this.on = true;
    $.live.setAttribute('aria-pressed', 'true');
    $.stage.dataset.live = 'true';
    $.liveVideo.hidden = false;
    return this.#open();
  }

  /** @returns {Promise<Blob | null>} the last frame */
  stop() {
    const last = this.#stream ? still($.liveVideo) : Promise.resolve(null);
    this.on = false;
    this.#close();
    $.live.setAttribute('aria-pressed', 'false');
    delete $.stage.dataset.live;
    $.liveVideo.hidden = true;
    $.liveFlip.hidden = true;
    return last;
  }

  /** The labels, the template or the model have changed. */
  async update() {
    if (!this.#stream) return;
    const before = this.#question;
    const question = this.#question = this.#page.ask();
    if (!question || question.labels.length === 0) {
      this.#watching?.abort();
      this.#watching = undefined;
      if (question) this.#page.tell('unasked');
      return;
    }
    this.#page.tell('watching');
    // `watch` asks for the labels at every frame.
    if (this.#watching && before?.classifier === question.classifier && before.template === question.template) return;
    this.#watching?.abort();
    const job = this.#watching = new AbortController();
    try {
      await question.classifier.watch($.liveVideo, question.tuned ? undefined : () => this.#question?.labels ?? question.labels, {
        template: question.tuned ? undefined : question.template,
        signal: job.signal,
        onResult: (results, frame) => job === this.#watching && this.#page.show(results, frame),
      });
    } catch (error) {
      if (job !== this.#watching) return;
      this.#watching = undefined;
      this.#page.fail(error);
    }
  }

  async #open() {
    const mine = ++this.#opening;
    this.#page.tell('opening');
    try {
      const stream = await open($.liveVideo, this.#facing, () => mine === this.#opening);
      if (!stream) return;
      this.#stream = stream;
      this.#page.tell('open');
      for (const track of stream.getVideoTracks()) track.onended = () => mine === this.#opening && this.#page.lost('gone');
      this.update();
      const awake = await navigator.wakeLock?.request('screen').catch(() => undefined); // it is refused when the battery is low
      if (mine !== this.#opening) return void awake?.release();
      this.#awake = awake;
      const more = await several();
      if (mine === this.#opening) $.liveFlip.hidden = !more;
    } catch (error) {
      if (mine === this.#opening) this.#page.lost(why(error));
    }
  }

  #close() {
    this.#opening += 1;
    this.#watching?.abort();
    this.#watching = undefined;
    this.#question = undefined;
    this.#stream = close($.liveVideo, this.#stream);
    this.#awake?.release();
    this.#awake = undefined;
  }
}
