// What the page says in English. What stands in index.html from the beginning stands only there; another language has that too, as `page`: see
// de.js. Numbers come as words, written as the language writes them.

/** @typedef {typeof ENGLISH} Texts */

const quote = (/** @type {string} */ label) => `“${label.length > 60 ? `${label.slice(0, 59).trimEnd()}…` : label}”`;
const listed = (/** @type {string[]} */ parts) => (parts.length < 2 ? parts.join('') : `${parts.slice(0, -1).join(', ')} and ${parts.at(-1)}`);
const capital = (/** @type {string} */ text) => text.charAt(0).toUpperCase() + text.slice(1);
const plural = (/** @type {number} */ count, /** @type {string} */ one) => (count === 1 ? `1 ${one}` : `${count} ${one}s`);

export const ENGLISH = {
  /** Of `lang` and of numbers. */
  locale: 'en',
  /** As it calls itself, on the button that changes to it. */
  name: 'English',
  /** What stands in index.html, by `data-text`, `data-label` and `data-group`. @type {Record<string, string>} */
  page: {},
  /** What the samples are called, by their files; samples.json has it in English. @type {Record<string, string>} */
  samples: {},

  percent: (/** @type {string} */ number) => `${number}%`,
  seconds: (/** @type {number} */ count) => plural(count, 'second'),
  minutes: (/** @type {number} */ count) => plural(count, 'minute'),
  hours: (/** @type {number} */ count, /** @type {string} */ number) => (count === 1 ? '1 hour' : `${number} hours`),
  quote,

  // The answer

  /** Of SiglipError, by its code: the library's own message, which is English, stands beside it. In English that is enough. @type {Partial<Record<import('../../lib/siglip-web.js').SiglipErrorCode, string>>} */
  errors: {},
  nothingClose: (/** @type {string} */ label, /** @type {string} */ percent) => `Nothing comes close; the nearest is ${quote(label)}, at ${percent}.`,
  guess: (/** @type {string} */ label, /** @type {string} */ percent) => `A guess: ${quote(label)}, at ${percent}.`,
  manyFit: (/** @type {number} */ count, /** @type {string} */ label, /** @type {string} */ percent) => `${count} labels fit; the best is ${quote(label)}, ${percent}.`,
  fits: (/** @type {string} */ label, /** @type {string} */ percent) => `${quote(label)} fits, at ${percent}.`,
  fit: (/** @type {{label: string, percent: string}[]} */ labels) => `${listed(labels.map(({ label, percent }) => `${quote(label)} (${percent})`))} fit.`,
  perhaps: (/** @type {string} */ label, /** @type {string} */ percent) => `Perhaps ${quote(label)}, at ${percent}. The model is not sure.`,
  noneFits: (/** @type {string} */ label, /** @type {string} */ percent) => `None of these fits. Even the closest, ${quote(label)}, gets only ${percent}.`,
  softmaxPicks: (/** @type {string} */ label, /** @type {string} */ percent) => `Softmax picks ${quote(label)}, ${percent}.`,
  softmaxNone: (/** @type {string} */ percent) => `None of these fits: on its own that label gets ${percent}.`,
  softmaxUnsure: (/** @type {string} */ percent) => `The model is not sure: on its own that label gets ${percent}.`,
  alone: (/** @type {string} */ percent) => `on its own ${percent}`,
  where: (/** @type {string} */ label) => `What moved the score of ${quote(label)}`,
  heat: (/** @type {string} */ label, /** @type {string} */ place, /** @type {string} */ percent) =>
    `What moved the score of ${quote(label)}: most of all ${place}. The map is as strong as the probability, ${percent}, and on one scale for all labels of this picture.`,
  heatAbsent: (/** @type {string} */ label, /** @type {string} */ percent) => `${quote(label)} gets ${percent}: nothing in the picture speaks for it enough to show, so no map is drawn.`,
  heatNowhere: (/** @type {string} */ label) => `No single place raises the score of ${quote(label)}: it comes from the picture as a whole.`,
  /** From top to bottom, and from left to right. */
  places: [['at the top left', 'at the top', 'at the top right'], ['on the left', 'in the middle', 'on the right'], ['at the bottom left', 'at the bottom', 'at the bottom right']],
  gpu: 'graphics card (WebGPU)',
  cpu: 'CPU',
  timing: (/** @type {{picture: string, pictureKnown: boolean, labels: string, labelsKnown: boolean, device: string}} */ { picture, pictureKnown, labels, labelsKnown, device }) =>
    `Picture ${picture}${pictureKnown ? ' (remembered)' : ''}, labels ${labels}${labelsKnown ? ' (remembered)' : ''}, on the ${device}`,
  lookingAtPicture: 'Looking at the picture…',
  lookingAtPictures: (/** @type {number} */ count) => `Looking at ${count} pictures…`,
  readingLabels: (/** @type {number} */ count) => (count === 1 ? 'Reading the labels…' : `Reading ${count} labels…`),
  choosePicture: 'Choose a picture to begin.',
  typeLabel: 'Type at least one label, for example “a cat, a dog”.',
  stopped: 'Stopped. Change something or try again.',
  nothingSaved: 'Stopped. Nothing was saved.',
  tryAgain: 'Try again',
  modelEnded: 'The model has to be started again.',
  startAgain: 'Start it again',
  photographs: (/** @type {string} */ title, /** @type {string | undefined} */ download) => `Use ${title}, for photographs (${download ? `${download} download` : 'kept here'})`,

  // Pictures

  noPicture: 'No picture yet',
  unshowable: 'This browser can’t show this kind of picture',
  chosenPicture: (/** @type {string} */ name) => `The chosen picture: ${name}`,
  refused: (/** @type {string} */ name, /** @type {string} */ why, /** @type {boolean} */ kept) => `${quote(name)} can’t be used. ${why}${kept ? ' The picture you had is kept.' : ''}`,
  emptyFile: 'The file is empty. Choose another one.',
  unknownPicture: 'It is not a picture this browser knows. Choose a JPEG, PNG, WebP, GIF or BMP file.',
  fetchingPicture: 'Fetching the picture…',
  notFetched: 'Stopped. The picture was not fetched.',
  noAddress: (/** @type {string} */ text) => `“${text}” is not a web address. It should look like https://example.org/cat.jpg.`,
  wrongProtocol: (/** @type {string} */ protocol) => `A picture can’t be fetched from a “${protocol}” address. Use one that starts with https.`,
  typeAddress: 'Type or paste the web address of a picture first.',
  noFolder: (/** @type {string} */ name) => `The folder ${quote(name)} could not be read. Choose it under Model instead.`,
  nothingDropped: 'What you dropped holds no picture. Drop a picture file, or a picture from another page.',
  nothingPasted: 'The clipboard holds no picture. Copy one, then paste it here.',
  nothingCopied: 'The clipboard holds no picture. Copy one, then press Paste.',
  noClipboard: 'The browser did not allow this page to read the clipboard. Press Ctrl+V (or ⌘V) to paste, or choose a file.',
  /** What pictures without a name are called. */
  aPicture: 'Picture',
  droppedPicture: 'Dropped picture',
  pastedPicture: 'Pasted picture',
  linkedPicture: 'Picture from a link',
  cameraPicture: 'Picture from the camera',
  sharedPicture: 'Shared picture',
  cameraWaits: 'Waiting for the camera. Your browser may ask whether this page may use it.',
  cameraForbidden: 'This page may not use the camera. Allow it in the browser’s address bar, or close this and choose a file.',
  noCamera: 'No camera was found. Connect one, or close this and choose a file.',
  cameraBusy: 'The camera could not be started; another program may be using it. Close this and choose a file.',
  cameraFailed: 'The camera gave no picture. Try once more.',

  /** By what happens, or why it doesn't. */
  live: {
    caption: (/** @type {string} */ rate) => `Live${rate && ` · ${rate}`}`,
    rate: (/** @type {string} */ count) => `${count} frames a second`,
    watching: 'Live: the results are of the newest frame. Nothing is recorded. Press Live again to keep the last one.',
    forbidden: 'This page may not use the camera. Allow it in the browser’s address bar, then try again.',
    missing: 'No camera was found. Connect one, then try again.',
    busy: 'The camera could not be started; another program may be using it. Close that, then try again.',
    unsupported: 'This browser lets this page use no camera: it must be opened at an address that starts with https.',
    gone: 'The camera stopped. Is it still connected?',
  },

  // Labels

  labelsHint: 'Separate them with commas, semicolons or new lines.',
  sentencesHint: 'One sentence to a line, read as it stands.',
  ways: {
    names: { name: 'Names', hint: 'A word or two for each thing, as in “a cat, a dog”, put into an ordinary sentence.', example: '' },
    sentences: { name: 'Whole sentences', hint: 'Captions, read as they stand: which describes the picture best?', example: 'Example: sentences about the penguin' },
    blank: { name: 'Fill in the blank', hint: 'A sentence with {} in it, and the labels as answers: “The car is {}.” with “red, blue”.', example: 'Example: which colour the balloon is' },
  },
  ownLabels: (/** @type {number} */ count, /** @type {string} */ number) => (count === 1 ? 'This model was fine-tuned for this label of its own and takes no other.' : `This model was fine-tuned for these ${number} labels of its own and takes no others.`),
  repeated: (/** @type {string} */ labels) => `Listed more than once, counted once: ${labels}`,
  wordless: (/** @type {string} */ labels) => `Left out, for want of a word: ${labels}`,
  useLabels: (/** @type {string} */ labels) => `Use ${labels}`,
  /** Which language the model reads, where it isn't this one or isn't the only one. */
  readsEnglish: '',
  readsMany: 'This model reads many languages.',
  tooLongForLink: 'These are too many labels for a link.',
  linkCopied: 'The link is in the clipboard. It holds the labels, not the picture, and no server sees them.',
  linkShown: 'The link is in the address bar: copy it from there. It holds the labels, not the picture.',

  // Search: search.html

  search: {
    gallery: 'the built-in drawings',
    within: (/** @type {string} */ name, /** @type {number} */ count, /** @type {string} */ number) => `Searching in ${name}${count === 0 ? '' : count === 1 ? ', 1 picture' : `, ${number} pictures`}.`,
    folder: (/** @type {string} */ name) => `the folder ${quote(name)}`,
    /** What the page calls files that came without a folder. */
    loose: 'Pictures',
    namesake: (/** @type {string} */ name, /** @type {string} */ index) => `This browser knows another folder ${quote(name)}, with other pictures in it; this one is called ${quote(index)} here.`,
    known: (/** @type {number} */ count, /** @type {string} */ number, /** @type {string} */ example, /** @type {string} */ day) => [
      count === 0 ? 'no pictures' : count === 1 ? `1 picture, ${example}` : `${number} pictures, ${example} among them`, `opened ${day}`,
    ].join(' · '),
    reopen: 'Open',
    again: (/** @type {string} */ name) => `Open ${quote(name)} again`,
    forget: 'Forget',
    forgetFolder: (/** @type {string} */ name) => `Forget ${quote(name)}`,
    forgetTitle: (/** @type {string} */ name) => `Forget the folder ${quote(name)}?`,
    forgetIndex: (/** @type {number} */ count, /** @type {string} */ number, /** @type {string} */ size, /** @type {string} */ models) => `This browser drops what it knows of ${count === 1 ? 'its picture' : `its ${number} pictures`}: ${size}${models && `, looked at with ${models}`}.`,
    forgetHandle: 'It also drops the way to the folder: to search in it again, you choose it again.',
    forgetStays: 'The pictures themselves stay where they are.',
    forgotten: (/** @type {string} */ name, /** @type {string} */ size) => `${quote(name)} is forgotten: ${size} are free again.`,
    notForgotten: (/** @type {string} */ name) => `${quote(name)} is open in another tab. Close it there, and try again.`,
    examples: 'For example:',
    counting: 'Looking for pictures…',
    indexing: (/** @type {string} */ done, /** @type {string} */ total) => `${done}${total ? ` of ${total}` : ''} pictures looked at. You can search already.`,
    rate: (/** @type {string} */ perSecond) => `${perSecond} pictures a second`,
    pause: 'Pause',
    resume: 'Go on',
    paused: 'Paused.',
    stop: 'Stop',
    stopped: 'Stopped. What has been looked at can be searched.',
    goOn: 'Go on',
    unfinished: 'Not all of the pictures have been looked at.',
    all: (/** @type {string} */ count) => (count === '1' ? '1 picture. Type words to search.' : `${count} pictures. Type words to search.`),
    empty: 'There is no picture in it. Choose a folder with JPEG, PNG or WebP files.',
    found: (/** @type {number} */ count, /** @type {string} */ number, /** @type {string} */ what) => (count === 1 ? `1 picture fits ${what}.` : `${number} pictures fit ${what}.`),
    alike: (/** @type {number} */ count, /** @type {string} */ number, /** @type {string} */ what) => (count === 1 ? `1 picture is like ${what}.` : `${number} pictures are like ${what}.`),
    nothing: (/** @type {string} */ what, /** @type {string} */ percent) => `Nothing here fits ${what}. The nearest gets ${percent}.`,
    nothingAlike: (/** @type {string} */ what, /** @type {string} */ percent) => `Nothing here is so much like ${what}. The nearest gets ${percent}.`,
    showNearest: 'Show the nearest all the same',
    pictures: (/** @type {number} */ count) => (count === 1 ? 'the picture' : `the ${count} pictures`),
    and: (/** @type {string} */ words, /** @type {string} */ pictures) => `${words} and ${pictures}`,
    onlyMinus: 'That only takes away. Say what to look for as well.',
    cutText: (/** @type {string} */ percent, /** @type {boolean} */ ofBest) => (ofBest ? `${percent} of the best` : percent),
    selected: (/** @type {number} */ count, /** @type {string} */ number) => (count === 1 ? '1 picture selected' : `${number} pictures selected`),
    likeThis: 'More like this',
    likeThese: 'More like these',
    without: (/** @type {string} */ name) => `Take ${name} away`,
    remove: (/** @type {string} */ name) => `Remove ${name}`,
    unreadable: (/** @type {number} */ count) => (count === 1 ? '1 file could not be read' : `${count} files could not be read`),
    zipping: 'Packing the copies…',
    zipped: (/** @type {number} */ count) => (count === 1 ? '1 copy saved.' : `${count} copies saved.`),
    tooMuch: 'That is too much for a zip, which holds 4 GB and 65,535 pictures at most. Select fewer.',
    gone: (/** @type {string} */ name) => `${quote(name)} can’t be read any more. Open the folder again.`,
    refused: (/** @type {string} */ name) => `The browser did not let this page look into ${quote(name)}. Try again and allow it, or choose another folder.`,
    otherModel: (/** @type {string} */ name, /** @type {string} */ model) => `The pictures in ${name} were looked at with another model${model && `, ${model}`}. To search with this one, they have to be looked at again.`,
    indexAgain: 'Look at them again with this one',
    failed: (/** @type {string} */ why) => `That did not work. ${why}`,
  },

  // How fast this device is: speed.html

  speed: {
    begin: 'Press Measure. The demo model takes a few seconds.',
    loading: (/** @type {string} */ title, /** @type {string} */ where) => `Loading ${title}, for the ${where}…`,
    measuring: (/** @type {string} */ title, /** @type {string} */ where) => `Measuring ${title} on the ${where}…`,
    done: 'Done.',
    doneOnCpu: 'Done, on the CPU: this browser offers this page no graphics card, or only a program that imitates one.',
    stopped: 'Stopped.',
    failed: (/** @type {string} */ why) => `That did not work. ${why}`,
    caption: (/** @type {string} */ title, /** @type {string} */ dtype) => `${capital(title)}, held as ${dtype}`,
    seconds: (/** @type {string} */ number) => `${number} s`,
    both: (/** @type {string} */ least, /** @type {string} */ median) => `${least} ms (${median})`,
    ownLabels: 'none but its own',
    copied: 'It is in the clipboard.',
    notCopied: 'The browser did not let this page write to the clipboard. Save it as a file instead.',
  },

  // Models

  noModel: (/** @type {string} */ name, /** @type {boolean} */ pictures) => `The folder${name && ` ${quote(name)}`} holds no model: it has no config.json. ${pictures ? 'To search all of its pictures, follow “Search a folder of pictures” at the top.' : 'Choose the one that config.json and model.safetensors are in.'}`,
  usePictures: (/** @type {number} */ count, /** @type {string} */ number) => (count === 1 ? 'Look at its picture' : `Look at its ${number} pictures`),
  demo: 'the demo model',
  folder: (/** @type {string} */ name) => `the model in ${quote(name || 'your folder')}`,
  loading: (/** @type {string} */ title) => `Loading ${title}…`,
  /** By the stages of ProgressEvent, and of what comes from the cache. @type {Record<import('../../lib/siglip-web.js').ProgressEvent['stage'] | 'cache', (title: string, rest: string) => string>} */
  stages: {
    download: (title, rest) => `Downloading ${title}${rest}…`,
    load: (title, rest) => `Loading ${title}${rest}…`,
    warmup: (title, rest) => `Warming up ${title}${rest}…`,
    ready: (title, rest) => `Starting ${title}${rest}…`,
    cache: (title, rest) => `Reading from the cache ${title}${rest}…`,
  },
  aboutLeft: (/** @type {string} */ time) => `about ${time} left`,
  left: (/** @type {string} */ time) => `${time} left`,
  of: (/** @type {string} */ loaded, /** @type {string} */ total) => `${loaded} of ${total}`,
  /** The server or the connection is waited for: the library's reason, which is English, stands beside it. */
  waiting: '',
  stoppedLoading: (/** @type {string} */ title) => `Stopped loading ${title}.`,
  notLoaded: (/** @type {string} */ title, /** @type {string} */ why) => `${capital(title)} could not be loaded. ${why}`,
  goesOn: 'It goes on as before.',
  stillInUse: (/** @type {string} */ title) => `${capital(title)} is still in use.`,
  demoAgain: 'The demo model is in use again.',
  aboutDemo: 'The demo model is small, came with this page and errs often. It learned from clip-art drawings only: try it on simple drawings of everyday things. Photographs, writing and fine distinctions are beyond it; for those, choose one of the larger models above.',
  aboutFolder: 'The model was read from a folder on this computer. Nothing was sent anywhere.',
  aboutFetched: (/** @type {string} */ source) => `The model was fetched from ${source}.`,
  theHub: 'the Hugging Face Hub',
  nothingSent: 'Your picture and your labels were not sent anywhere.',
  rowsSent: 'Your picture was not sent anywhere. For words that are new, their parts of the model’s word table are fetched from there, from which that server could tell the words; Advanced has a switch to fetch all of it.',
  facts: {
    model: 'Model',
    device: 'Runs on',
    reason: 'Why there',
    size: 'Size',
    sees: 'Sees',
    reads: 'Reads',
    knows: 'Knows',
    kept: 'Kept',
  },
  size: (/** @type {string} */ size, /** @type {string} */ millions, /** @type {string} */ dtype) => `${size}, ${millions} million parameters, ${dtype}`,
  sees: (/** @type {number} */ side, /** @type {number} */ patch) => `${side} × ${side} pixels, in patches of ${patch}`,
  seesShape: (/** @type {string} */ patches, /** @type {number} */ patch) => `each picture in its own shape, up to ${patches} patches of ${patch} pixels`,
  reads: (/** @type {number} */ tokens) => `up to ${tokens} words or parts of words (tokens) of a label`,

  knows: (/** @type {number} */ count, /** @type {string} */ number) => (count === 1 ? 'one label of its own' : `${number} labels of its own`),

  // The list of models

  fromHub: (/** @type {string} */ family) => `${family}, from the Hugging Face Hub`,
  option: (/** @type {{title: string, download: string | undefined, memory: string, dtype: string, fits: boolean}} */ { title, download, memory, dtype, fits }) =>
    `${title} · ${download ? `${download} download` : 'kept here'}, ${memory} in memory (${dtype})${fits ? '' : ' · too large for this device'}`,

  /** In the dialog. */
  choice: (/** @type {{download: string | undefined, asked: boolean, memory: string, dtype: string, fits: boolean, room: string | undefined}} */ { download, asked, memory, dtype, fits, room }) => [
    download ? `${asked ? '' : 'about '}${download} download` : 'kept here', `${memory} in memory (${dtype})`, !fits && 'too large for this device',
    room && `can’t be kept: this browser has ${room} left for this page`,
  ].filter(Boolean).join(' · '),
  /** What each is good for. @type {Record<string, string>} */
  words: {
    'google/siglip-base-patch16-224': 'Older, for everyday photographs. Reads English.',
    'google/siglip-base-patch16-256-multilingual': 'Older, and reads many languages.',
    'google/siglip-large-patch16-256': 'More than three times as large, and tells similar things apart better. Reads English.',
    'google/siglip-so400m-patch14-384': 'The largest of its kind: it sees the most detail, and takes by far the longest. Reads English.',
    'mlx-community/siglip2-base-patch16-224-8bit': 'For everyday photographs: the smallest download, with hardly a difference. Reads many languages.',
    'google/siglip2-base-patch32-256': 'Answers in a third of the time, and sees a little less. Reads many languages.',
    'google/siglip2-base-patch16-224': 'For everyday photographs, in full precision. Reads many languages.',
    'google/siglip2-base-patch16-naflex': 'Sees pictures in their own shape: panoramas, receipts, pages of text. Reads many languages.',
    'google/siglip2-large-patch16-256': 'Newer, more than three times as large. Reads many languages.',
    'google/siglip2-so400m-patch14-384': 'Newer, and the largest: it sees the most detail, and takes by far the longest. Reads many languages.',
  },
  bufferTooLarge: (/** @type {string} */ title, /** @type {string} */ needed, /** @type {string} */ limit) => `${title} needs ${needed} in one piece, and this device’s graphics card takes ${limit}. Choose a rougher precision, or let the CPU do it: both are under Advanced.`,

  // What is kept

  room: (/** @type {string} */ size) => `This browser has ${size} left for this page.`,
  forgotten: 'This browser has already forgotten the model that was to be kept, as private windows do: the next visit downloads it again.',

  noRoom: (/** @type {string} */ needed, /** @type {string} */ room, /** @type {string} */ download) => `It takes ${needed} to keep, and this browser has ${room} left for this page: it would be downloaded again at each visit (${download}). Remove a kept model, free some of the disk, or load it all the same.`,
  allTheSame: 'Load it all the same',
  persists: 'The browser keeps models until you remove them.',
  mayGo: 'The browser may clear kept models away by itself, when room runs short or after weeks without a visit.',
  noneKept: 'None so far. A model that you download is kept here for the next time; the demo comes with the page.',
  someKept: (/** @type {string} */ size) => `${size} on this device. A model that is kept needs no download the next time.`,
  freed: (/** @type {string} */ size) => `${size} freed.`,
  nameless: 'A model without a name',
  automatic: 'automatic',
  notComplete: 'not complete',
  remove: 'Remove',
  removeModel: (/** @type {string} */ name) => `Remove ${name}`,
};
