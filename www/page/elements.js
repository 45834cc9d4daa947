// The page's elements by their ids, each of the kind that the rest takes it for. index.html and this list must agree: the first difference
// is an error with the element's name.

/**
 * @template {Element} T
 * @param {string} id
 * @param {new () => T} Kind
 * @returns {T}
 */
function element(id, Kind) {
  const found = document.getElementById(id);
  if (!(found instanceof Kind)) throw new TypeError(`index.html has no ${Kind.name} with the id "${id}".`);
  return found;
}

const button = (/** @type {string} */ id) => element(id, HTMLButtonElement);
const dialog = (/** @type {string} */ id) => element(id, HTMLDialogElement);
const form = (/** @type {string} */ id) => element(id, HTMLFormElement);
const input = (/** @type {string} */ id) => element(id, HTMLInputElement);
const part = (/** @type {string} */ id) => element(id, HTMLElement);
const select = (/** @type {string} */ id) => element(id, HTMLSelectElement);

export const $ = {
  model: select('model'),
  modelsOwn: element('models-own', HTMLOptGroupElement),
  folder: input('folder'),

  image: input('image'),
  stage: part('stage'),
  preview: element('preview', HTMLImageElement),
  heat: element('heat', HTMLCanvasElement),
  heatNote: part('heat-note'),
  liveVideo: element('live-video', HTMLVideoElement),
  blank: part('blank'),
  blankText: part('blank-text'),
  caption: part('caption'),
  strip: part('strip'),
  camera: button('camera'),
  live: button('live'),
  liveFlip: button('live-flip'),
  paste: button('paste'),
  link: button('link'),
  capture: input('capture'),
  addressForm: form('address-form'),
  address: input('address'),
  samplesTitle: part('samples-title'),
  samples: part('samples'),
  drop: part('drop'),

  labels: element('labels', HTMLTextAreaElement),
  labelsHint: part('labels-hint'),
  labelsOwn: part('labels-own'),
  labelsLanguage: part('labels-language'),
  labelsNote: part('labels-note'),
  suggestion: part('suggestion'),
  suggest: button('suggest'),
  asking: part('asking'),
  ways: part('ways'),
  template: input('template'),

  answer: part('answer'),
  status: part('status'),
  busy: part('busy'),
  progress: element('progress', HTMLProgressElement),
  bytes: part('bytes'),
  cancel: button('cancel'),
  retry: button('retry'),
  drawings: part('drawings'),
  photographs: button('photographs'),

  resultsCard: part('results-card'),
  softmaxSwitch: part('softmax-switch'),
  softmax: input('softmax'),
  softmaxNote: part('softmax-note'),
  staleNote: part('stale-note'),
  results: element('results', HTMLOListElement),
  timing: part('timing'),
  export: part('export'),
  csv: button('csv'),
  json: button('json'),
  share: button('share'),
  shareNote: part('share-note'),

  about: part('about'),
  facts: element('facts', HTMLDListElement),
  backend: select('backend'),
  dtype: select('dtype'),
  whole: input('whole'),
  storage: element('storage', HTMLDetailsElement),
  keptNote: part('kept-note'),
  storageNote: part('storage-note'),
  kept: part('kept'),
  clear: button('clear'),

  cameraDialog: dialog('camera-dialog'),
  video: element('video', HTMLVideoElement),
  cameraNote: part('camera-note'),
  shutter: button('shutter'),
  flip: button('flip'),
  cameraClose: button('camera-close'),
  otherDialog: dialog('other-dialog'),
  otherForm: form('other-form'),
  choices: part('choices'),
  other: input('other'),
  otherClose: button('other-close'),
};
