// The search page, as people use it: the drawings that it opens with, a folder of theirs, words, pictures, what is selected.
import assert from 'node:assert/strict';
import axe from 'axe-core';
import { mkdir, mkdtemp, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';
import { crc32, deflateSync } from 'node:zlib';
import { keepBack, model, onPage, png, sample, saved, status } from './visit.mjs';

const DRAWINGS = 144;
const FOLDER = 200;

/** A PNG of one colour. */
function plain(red, green, blue, side = 48) {
  const chunk = (type, data) => {
    const body = Buffer.concat([Buffer.from(type), data]);
    const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(data.length);
    sum.writeUInt32BE(crc32(body));
    return Buffer.concat([length, body, sum]);
  };
  const head = Buffer.alloc(13);
  head.writeUInt32BE(side, 0);
  head.writeUInt32BE(side, 4);
  head.set([8, 2], 8);
  const row = Buffer.concat([Buffer.from([0]), Buffer.from(Array.from({ length: side }, () => [red, green, blue]).flat())]);
  return Buffer.concat([Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]), chunk('IHDR', head), chunk('IDAT', deflateSync(Buffer.concat(Array(side).fill(row)))), chunk('IEND', Buffer.alloc(0))]);
}

let scratch;
let folder;
/** 200 pictures, two of which show something, one that can't be read, and a file that is none. */
before(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'siglip-web-'));
  folder = join(scratch, 'Holidays');
  await mkdir(join(folder, 'old'), { recursive: true });
  const put = async (name, bytes, day) => {
    await writeFile(join(folder, name), bytes);
    await utimes(join(folder, name), new Date(2024, 0, day), new Date(2024, 0, day));
  };
  for (let i = 0; i < FOLDER - 2; i++) await put(`plain ${String(i).padStart(3, '0')}.png`, plain(i, (i * 7) % 256, (i * 13) % 256), 10);
  await put('old/penguin.png', await sample('penguin'), 1);
  await put('strawberry.png', await sample('strawberry'), 20);
  await put('broken.png', Buffer.from('no picture'), 5);
  await put('notes.txt', Buffer.from('shopping list'), 5);
});
after(() => rm(scratch, { recursive: true, force: true }));

const query = (page) => page.getByRole('searchbox', { name: 'Search for' });
const grid = (page) => page.getByRole('listbox', { name: 'Pictures' });
const option = (page, name) => grid(page).getByRole('option', { name });
const says = (page, words) => status(page).filter({ hasText: words }).waitFor();
const button = (page, name) => page.getByRole('button', { name, exact: true });
const ready = (page) => says(page, new RegExp(`^${DRAWINGS} pictures\\. `));
/** What is in the grid, as far as it is there, best first. It is drawn in the frame after what the status says. */
const shown = async (page) => {
  await page.evaluate(() => new Promise(requestAnimationFrame));
  return grid(page).getByRole('option').evaluateAll((nodes) => nodes.map((node) => ({ name: node.querySelector('.called').textContent, score: parseFloat(node.querySelector('.score').textContent) })));
};
const visit = (name, body, options) => onPage(name, async (page, requests) => {
  await ready(page);
  await body(page, requests);
}, { path: 'search.html', wait: false, ...options });
/** As in browsers without a folder picker. */
const choose = async (page) => {
  await page.evaluate(() => { Object.defineProperty(window, 'showDirectoryPicker', { value: undefined, configurable: true }); });
  const chooser = page.waitForEvent('filechooser');
  await button(page, 'Choose a folder…').click();
  await (await chooser).setFiles(folder);
  await says(page, new RegExp(`^${FOLDER} pictures\\. `));
};
const save = (page, name) => saved(page, () => button(page, name).click());
/** Folders of this browser's own, in the place of those on the disk: what is in them, by name. The picker gives them in turn. */
const folders = (page, given) => page.evaluate(async (given) => {
  const root = await navigator.storage.getDirectory();
  const made = [];
  for (const [path, files] of given) {
    let folder = root;
    for (const name of path.split('/')) folder = await folder.getDirectoryHandle(name, { create: true });
    for (const [name, bytes] of Object.entries(files)) {
      const file = await (await folder.getFileHandle(name, { create: true })).createWritable();
      await file.write(new Uint8Array(bytes));
      await file.close();
    }
    made.push(folder);
  }
  window.showDirectoryPicker = async () => made.shift();
}, given);
const trip = async (page) => folders(page, [['Trip', { 'soup.png': [...await sample('soup')], 'truck.png': [...await sample('truck')] }]]);

describe('searching the drawings that the page opens with', () => {
  visit('answers as one types, best first, and says when nothing fits', async (page, requests) => {
    await query(page).pressSequentially('a flower');
    await says(page, /^\d+ pictures fit “a flower”\.$/);
    const flowers = await shown(page);
    assert.deepEqual(flowers.map(({ score }) => score), flowers.map(({ score }) => score).sort((a, b) => b - a));
    assert.ok(flowers.slice(0, 3).every(({ name }) => /tulip|flower|rose|daisy|sunflower/.test(name)), JSON.stringify(flowers));

    await button(page, 'a submarine').click();
    await says(page, /^Nothing here fits “a submarine”\. The nearest gets [\d.]+%\.$/);
    assert.equal(await grid(page).isVisible(), false);
    await button(page, 'Show the nearest all the same').click();
    await says(page, /^\d+ pictures fit “a submarine”/);
    assert.equal((await shown(page)).length, 12);

    await query(page).fill('');
    await ready(page);
    assert.deepEqual(requests.filter((url) => !url.startsWith('http://127.0.0.1') && !url.startsWith('blob:')), []);
  });

  visit('the cut can be moved, by the score itself and by its share of the best; a minus takes away', async (page) => {
    await query(page).fill('food');
    await says(page, /fit “food”/);
    const count = async () => Number(/^\d+/.exec(await status(page).textContent())[0]);
    const before = await count();
    const cut = page.getByRole('slider', { name: 'Show from' });
    assert.equal(await cut.getAttribute('aria-valuetext'), '50.0%');
    await cut.press('End');
    await says(page, /^Nothing here fits “food”/);
    await cut.press('Home');
    await says(page, new RegExp(`^${DRAWINGS} pictures fit`));
    await page.getByRole('combobox', { name: 'measured by' }).selectOption('best');
    await says(page, /^(?!144)\d+ pictures fit/);
    assert.equal(await cut.getAttribute('aria-valuetext'), '50.0% of the best');
    const half = await shown(page);
    assert.ok(half.every(({ score }) => score >= half[0].score / 2));
    assert.ok(Math.abs(await count() - before) < DRAWINGS / 4);

    await page.getByRole('combobox', { name: 'measured by' }).selectOption('own');
    await query(page).fill('vehicle');
    await says(page, /fit “vehicle”/);
    const car = (await shown(page)).find(({ name }) => name === 'car.png');
    assert.ok(car.score > 50);
    await query(page).fill('vehicle -car');
    await says(page, /fit “vehicle -car”/);
    assert.equal((await shown(page)).some(({ name }) => name === 'car.png'), false);
    await query(page).fill('-car');
    await says(page, /only takes away/);
  });

  visit('pictures are a query too: one of the grid, several, one from elsewhere, less another', async (page) => {
    await query(page).fill('an insect');
    await says(page, /fit “an insect”/);
    await option(page, /^ladybug\.png/).click();
    await button(page, 'More like this').click();
    await says(page, /like the picture\.$/);
    assert.equal(await query(page).inputValue(), '');
    assert.equal((await shown(page))[0].name, 'ladybug.png');
    const wanted = page.getByRole('list', { name: 'Pictures that are searched for' });
    assert.equal(await wanted.getByRole('listitem').count(), 1);

    await page.getByLabel('Search by a picture').setInputFiles(await png('my penguin', 'penguin'));
    await says(page, /the 2 pictures\.|the 2 pictures\. The/);
    await button(page, 'Take ladybug.png away').click();
    await says(page, /the picture/);
    await page.getByRole('slider', { name: 'Show from' }).press('Home');
    await says(page, /are like the picture/);
    const rows = await shown(page);
    assert.ok(rows.findIndex(({ name }) => name === 'penguin.png') < 6, JSON.stringify(rows.slice(0, 8)));
    await button(page, 'Remove ladybug.png').click();
    await query(page).fill('a bird');
    await says(page, /“a bird” and the picture/);
    await button(page, 'Remove my penguin.png').click();
    await wanted.waitFor({ state: 'hidden' });
  });

  visit('a picture of another page is a query too, by its address; what holds none is told so', async (page) => {
    const lock = await sample('lock');
    let asked;
    const waiting = new Promise((resolve) => (asked = resolve));
    await page.route('https://pictures.test/**', (route) => {
      const { pathname } = new URL(route.request().url());
      const headers = { 'Access-Control-Allow-Origin': '*' };
      if (pathname === '/lock.png') return route.fulfill({ contentType: 'image/png', body: lock, headers });
      if (pathname === '/page.html') return route.fulfill({ contentType: 'text/html', body: '<p>', headers });
      return asked(); // never answered
    });
    const drop = (address) => page.evaluate((address) => {
      const dataTransfer = new DataTransfer();
      dataTransfer.setData('text/uri-list', address);
      document.body.dispatchEvent(new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer }));
    }, address);
    await drop('https://pictures.test/page.html');
    await says(page, /is a web page, not a picture/);
    await drop('ftp://pictures.test/lock.png');
    await says(page, /Use one that starts with https/);
    await drop('# nothing');
    await says(page, /^What you dropped holds no picture/);
    await drop('https://pictures.test/slow.png');
    await waiting;
    await button(page, 'Stop').click();
    await says(page, /^Stopped\. The picture was not fetched\.$/);
    await drop('https://pictures.test/lock.png');
    await says(page, /like the picture/);
    await button(page, 'Remove lock.png').waitFor();
  });

  visit('words that are pasted with a picture of them, as office programs have it, are words; a picture alone is a query', async (page) => {
    /** @returns whether the browser goes on to put the text into the box */
    const paste = (text, { name, mimeType, buffer }) => query(page).evaluate((box, { text, name, mimeType, bytes }) => {
      const transfer = new DataTransfer();
      if (text) transfer.setData('text/plain', text);
      transfer.items.add(new File([new Uint8Array(bytes)], name, { type: mimeType }));
      // Firefox leaves files out of a ClipboardEvent that a script makes, not out of a visitor's.
      return box.dispatchEvent(Object.defineProperty(new ClipboardEvent('paste', { bubbles: true, cancelable: true }), 'clipboardData', { value: transfer }));
    }, { text, name, mimeType, bytes: [...buffer] });
    const copied = await png('copied', 'penguin');
    assert.equal(await paste('a penguin', copied), true);
    assert.equal(await page.getByRole('list', { name: 'Pictures that are searched for' }).isVisible(), false);
    assert.equal(await paste('', copied), false);
    await button(page, 'Remove copied.png').waitFor();
    await says(page, /like the picture/);
  });

  visit('by keyboard: arrows move, Space selects, Enter finds more like one', async (page) => {
    await query(page).fill('a flower');
    await says(page, /fit “a flower”/);
    await grid(page).focus();
    const active = () => page.evaluate(() => document.getElementById(document.querySelector('#grid').getAttribute('aria-activedescendant'))?.querySelector('.called').textContent);
    const names = (await shown(page)).map(({ name }) => name);
    await page.waitForFunction(() => document.querySelector('#grid').hasAttribute('aria-activedescendant'));
    await page.keyboard.press('Home');
    await page.keyboard.press('ArrowRight');
    await page.waitForFunction((name) => document.querySelector('[data-active] .called').textContent === name, names[1]);
    assert.equal(await active(), names[1]);
    await page.keyboard.press('Space');
    await page.getByText('1 picture selected').waitFor();
    await grid(page).getByRole('option', { name: names[1], selected: true }).waitFor();
    await page.keyboard.press('Shift+ArrowRight');
    await page.getByText('2 pictures selected').waitFor();
    await page.keyboard.press('Escape');
    await page.getByText(/selected$/).waitFor({ state: 'hidden' });
    await page.keyboard.press('Home');
    await page.keyboard.press('Enter');
    await says(page, /like the picture/);
    assert.equal((await shown(page))[0].name, names[0]);
  });
});

describe('searching a folder', () => {
  visit('of 200 pictures: looked at, listed, sorted, saved; only what is in sight is there', async (page) => {
    await choose(page);
    await page.getByText(`Searching in the folder “Holidays”, ${FOLDER} pictures.`).waitFor();
    await page.getByText('1 file could not be read').click();
    await page.getByText('Holidays/broken.png').waitFor();
    await page.getByText('The demo model knows drawings only').waitFor();
    const there = await grid(page).getByRole('option').count();
    assert.ok(there > 8 && there < 120, `${there} of ${FOLDER}`);
    await grid(page).focus();
    await page.keyboard.press('End');
    await page.waitForFunction((count) => document.querySelector('[data-active]').getAttribute('aria-posinset') === String(count), FOLDER);
    const box = await page.locator('[data-active]').boundingBox();
    assert.ok(box.y >= 0 && box.y + box.height <= 900, 'what has the focus is in sight');
    await page.keyboard.press('Home');

    await query(page).fill('a penguin');
    await says(page, /“a penguin”/);
    assert.equal((await shown(page))[0].name, 'penguin.png');
    await query(page).fill('');
    await says(page, /^200 pictures/);
    const order = page.getByRole('combobox', { name: 'Order' });
    await order.selectOption('new');
    await page.waitForFunction(() => document.querySelector('.tile .called').textContent === 'strawberry.png');
    await option(page, 'Holidays/strawberry.png').click();
    await order.selectOption('old');
    await page.waitForFunction(() => document.querySelector('.tile .called').textContent === 'penguin.png');
    await option(page, 'Holidays/old/penguin.png').click();
    await page.getByText('2 pictures selected').waitFor();

    assert.equal((await save(page, 'Names as CSV')).toString(), 'image,score,cosine\r\nHolidays/strawberry.png,,\r\nHolidays/old/penguin.png,,\r\n');
    assert.deepEqual(JSON.parse(await save(page, 'Names as JSON')).pictures.map(({ id }) => id), ['Holidays/strawberry.png', 'Holidays/old/penguin.png']);
    const zip = await save(page, 'Copies as a zip');
    await says(page, /^2 copies saved/);
    // The end of the directory, then its entries, then what they point at.
    const end = zip.length - 22;
    assert.equal(zip.readUInt32LE(end), 0x06054b50);
    let at = zip.readUInt32LE(end + 16);
    for (const name of ['strawberry', 'old/penguin']) {
      assert.equal(zip.readUInt32LE(at), 0x02014b50);
      const [sum, size, length, local] = [zip.readUInt32LE(at + 16), zip.readUInt32LE(at + 24), zip.readUInt16LE(at + 28), zip.readUInt32LE(at + 42)];
      assert.equal(zip.toString('utf8', at + 46, at + 46 + length), `Holidays/${name}.png`);
      const bytes = zip.subarray(local + 30 + length, local + 30 + length + size);
      assert.deepEqual(bytes, await sample(name.replace('old/', '')));
      assert.equal(crc32(bytes), sum);
      at += 46 + length;
    }
    assert.equal(at, end);

    await button(page, 'The built-in drawings').click();
    await ready(page);
    await page.getByText(/selected$/).waitFor({ state: 'hidden' });
  });

  visit('chosen by the browser’s picker is opened again with one click; one without pictures is told so', async (page) => {
    /** A folder of this browser's own, in the place of one on the disk. */
    const fill = (names) => page.evaluate(async ({ names, bytes }) => {
      const root = await navigator.storage.getDirectory();
      const folder = await root.getDirectoryHandle('Garden', { create: true });
      for (const name of names) {
        const file = await (await folder.getFileHandle(name, { create: true })).createWritable();
        await file.write(new Uint8Array(bytes));
        await file.close();
      }
      window.showDirectoryPicker = async () => folder;
    }, { names, bytes: [...names.length ? bytes : []] });
    const bytes = await sample('ladybug');
    await fill([]);
    await button(page, 'Choose a folder…').click();
    await says(page, /^There is no picture in it/);
    await fill(['bug.png', 'another.png']);
    await button(page, 'Choose a folder…').click();
    await says(page, /^2 pictures\. /);
    await option(page, 'Garden/bug.png').waitFor();

    await page.reload();
    await ready(page);
    await button(page, 'Open “Garden” again').click();
    await says(page, /^2 pictures\. /);
    await option(page, 'Garden/another.png').waitFor();

    // Its index is another model's now.
    await page.evaluate(async () => {
      const [{ SiglipIndex }, { SiglipError }] = await Promise.all([import('./lib/siglip-index.js'), import('./lib/siglip-web.js')]);
      const { open, list } = SiglipIndex;
      SiglipIndex.list = async () => (await list.call(SiglipIndex)).map((one) => ({ ...one, model: 'a larger one' }));
      SiglipIndex.open = (classifier, options) => (options.again ? open.call(SiglipIndex, classifier, options) : Promise.reject(new SiglipError('bad-input', 'It was made by another model.')));
    });
    await page.evaluate(async () => { const root = await navigator.storage.getDirectory(); window.showDirectoryPicker = () => root.getDirectoryHandle('Garden'); });
    await button(page, 'Choose a folder…').click();
    await says(page, /looked at with another model, a larger one \(f32\)\. To search with this one/);
    await button(page, 'Look at them again with this one').click();
    await says(page, /^2 pictures\. /);
  });

  visit('by dropping it; a dropped picture finds more like it', async (page) => {
    const session = await page.context().newCDPSession(page);
    const drop = async (files) => {
      for (const type of ['dragEnter', 'dragOver', 'drop']) await session.send('Input.dispatchDragEvent', { type, x: 300, y: 300, data: { items: [], files, dragOperationsMask: 1 } });
    };
    await drop([join(folder, 'strawberry.png')]);
    await says(page, /like the picture/);
    await drop([join(folder, 'old')]);
    await page.getByText('Searching in the folder “old”, 1 picture.').waitFor();
    // The picture is still asked about.
    await says(page, /^Nothing here is so much like the picture/);
    await button(page, 'Remove strawberry.png').click();
    await says(page, /^1 picture\. /);
    await option(page, 'old/penguin.png').waitFor();

    // A folder that the browser gives no handle of, as some of the system's, is read file by file.
    await button(page, 'The built-in drawings').click();
    await ready(page);
    await page.evaluate(() => { DataTransferItem.prototype.getAsFileSystemHandle = () => Promise.reject(new DOMException('no', 'NotAllowedError')); });
    await drop([join(folder, 'old')]);
    await page.getByText('Searching in the folder “old”, 1 picture.').waitFor();
    await option(page, 'old/penguin.png').waitFor();
  });
});

describe('what is asked, chosen or stopped while something else is under way', () => {
  const MODELS = ['google/siglip2-base-patch16-224', 'google/siglip-base-patch16-224'];
  /** The demo in the place of what the Hub has: it arrives when it is told to, and pictures are looked at when `window.letGo` was called. */
  const holdBack = (page) => page.evaluate(async () => {
    const [{ SiglipClassifier }, { SiglipIndex }] = await Promise.all([import('./lib/siglip-web.js'), import('./lib/siglip-index.js')]);
    const { load } = SiglipClassifier;
    const { embedImage, dispose } = SiglipClassifier.prototype;
    const { add } = SiglipIndex.prototype;
    Object.assign(window, { loads: [], adding: undefined, disposed: 0 });
    const gate = new Promise((done) => { window.letGo = done; });
    const aborted = (signal) => new Promise((_, reject) => { signal?.addEventListener('abort', () => reject(signal.reason)); });
    SiglipClassifier.load = (source, options) => new Promise((resolve, reject) => {
      aborted(options.signal).catch(reject);
      window.loads.push({ source, arrive: () => load.call(SiglipClassifier, 'demo', options).then(resolve, reject) });
    });
    SiglipClassifier.prototype.embedImage = async function (image, options) {
      await Promise.race([gate, aborted(options?.signal)]);
      return embedImage.call(this, image, options);
    };
    SiglipClassifier.prototype.dispose = function () {
      window.disposed += 1;
      return dispose.call(this);
    };
    SiglipIndex.prototype.add = function (...given) {
      const adding = add.apply(this, given);
      window.adding = adding.catch(() => {});
      return adding;
    };
  });
  const begin = async (page, id, count) => {
    await model(page).selectOption(id);
    await page.waitForFunction((count) => window.loads.length === count, count);
  };
  const arrive = (page) => page.evaluate(() => window.loads.at(-1).arrive());
  const letGo = (page) => page.evaluate(() => window.letGo());
  /** Until what was being looked at has ended, and the page has heard of it. */
  const ended = (page) => page.evaluate(async () => {
    await window.adding;
    await new Promise(requestAnimationFrame);
  });
  const within = (page, words) => page.getByText(`Searching in ${words}.`).waitFor();

  visit('what was asked before there was anything to ask is answered then, and so are words that stand there when another folder is chosen', async (page) => {
    const release = keepBack(/demo\/model\.safetensors/);
    await page.reload();
    await says(page, /^Loading the demo model/);
    await button(page, 'food').click();
    release();
    await within(page, `the built-in drawings, ${DRAWINGS} pictures`);
    await says(page, /“food”|Type words to search/);
    assert.match(await status(page).textContent(), /^\d+ pictures fit “food”\.$/);
    assert.ok((await shown(page)).length < DRAWINGS / 2);

    await trip(page);
    await button(page, 'Choose a folder…').click();
    await within(page, 'the folder “Trip”, 2 pictures');
    await says(page, /“food”|^2 pictures\. /);
    assert.match(await status(page).textContent(), /“food”/);
    await query(page).fill('');
    await says(page, /^2 pictures\. /);

    // With nothing to look for, that is said.
    await button(page, 'The built-in drawings').click();
    await ready(page);
    await query(page).fill('-car');
    await says(page, /only takes away/);
    await trip(page);
    await button(page, 'Choose a folder…').click();
    await within(page, 'the folder “Trip”, 2 pictures');
    await says(page, /only takes away|^2 pictures\. /);
    assert.match(await status(page).textContent(), /only takes away/);
  });

  visit('the model before is gone when pictures are looked at with another, and words are answered as soon as some have been', async (page) => {
    await holdBack(page);
    await begin(page, MODELS[0], 1);
    await query(page).fill('food');
    await arrive(page);
    await button(page, 'Pause').waitFor();
    assert.equal(await page.evaluate(() => window.disposed), 1);
    await letGo(page);
    await says(page, /“food”|Type words to search/);
    await ended(page);
    await within(page, `the built-in drawings, ${DRAWINGS} pictures`);
    await says(page, /“food”/);
  });

  visit('a model that is chosen while pictures are looked at shows how it comes, and can be stopped; then that goes on', async (page) => {
    await holdBack(page);
    await begin(page, MODELS[0], 1);
    await arrive(page);
    await button(page, 'Pause').waitFor();
    await begin(page, MODELS[1], 2);
    await ended(page);
    await says(page, /^Loading SigLIP B\/16, 224 px|^Stopped/);
    assert.match(await status(page).textContent(), /^Loading SigLIP B\/16, 224 px/);
    assert.equal(await button(page, 'Pause').isVisible(), false);
    assert.equal(await button(page, 'Go on').isVisible(), false);
    await query(page).fill('food');
    await query(page).press('Enter');
    await button(page, 'Stop').click();
    await says(page, /^Stopped loading SigLIP B\/16, 224 px\. Not all of the pictures have been looked at\.$/);
    assert.equal(await model(page).inputValue(), MODELS[0]);
    await letGo(page);
    await button(page, 'Go on').click();
    await within(page, `the built-in drawings, ${DRAWINGS} pictures`);
    await says(page, /^\d+ pictures fit “food”\.$/);

    // With nothing left to look at, what was asked meanwhile is shown, and the way on is to try again.
    await begin(page, MODELS[1], 3);
    await query(page).fill('an insect');
    await query(page).press('Enter');
    await button(page, 'Stop').click();
    await says(page, /^Stopped loading SigLIP B\/16, 224 px\.$/);
    await option(page, /^ladybug\.png/).waitFor();
    await says(page, /^Stopped loading SigLIP B\/16, 224 px\.$/);
    await button(page, 'Try again').click();
    await page.waitForFunction(() => window.loads.length === 4);
    assert.equal(await model(page).inputValue(), MODELS[1]);
    await arrive(page);
    await says(page, /fit “an insect”/);
    assert.equal(await model(page).inputValue(), MODELS[1]);
  });

  visit('models that arrow keys only pass by are not loaded, and stop nothing', async (page) => {
    await holdBack(page);
    await begin(page, MODELS[0], 1);
    await arrive(page);
    await button(page, 'Pause').waitFor();
    /** As keys do it, faster than anybody reads. */
    const pass = (ids) => model(page).evaluate((select, ids) => {
      for (const id of ids) {
        select.value = id;
        select.dispatchEvent(new Event('change'));
      }
    }, ids);
    await pass([MODELS[1], 'google/siglip-large-patch16-256', MODELS[0]]);
    await letGo(page);
    await ready(page);
    await pass(['google/siglip-large-patch16-256', MODELS[1]]);
    await page.waitForFunction(() => window.loads.length > 1);
    await arrive(page);
    await ready(page);
    assert.deepEqual(await page.evaluate(() => window.loads.map(({ source }) => source)), MODELS);
  });

  visit('a folder can be chosen while another one is looked at, and while a model comes', async (page) => {
    await trip(page);
    await holdBack(page);
    await begin(page, MODELS[0], 1);
    await arrive(page);
    await button(page, 'Pause').waitFor();
    await button(page, 'Choose a folder…').click();
    await ended(page);
    await letGo(page);
    await says(page, /^2 pictures\. |no picture in it/);
    assert.match(await status(page).textContent(), /^2 pictures\. /);
    await within(page, 'the folder “Trip”, 2 pictures');

    await begin(page, MODELS[1], 2);
    await button(page, 'The built-in drawings').click();
    await within(page, 'the built-in drawings');
    await says(page, /^Loading SigLIP B\/16, 224 px/);
    assert.ok(await button(page, 'Stop').isVisible());
    await arrive(page);
    await ready(page);
    await within(page, `the built-in drawings, ${DRAWINGS} pictures`);
  });

  visit('a picture of the folder before that comes late is not shown, nor saved, under the same name in another folder', async (page) => {
    const [red, blue] = [[200, 0, 0], [0, 0, 200]].map((color) => [...plain(...color)]);
    const names = ['bug.png', 'also.png'];
    await folders(page, [red, blue].map((bytes, i) => [`${i}/Photos`, Object.fromEntries(names.map((name) => [name, bytes]))]));
    /** Colours of the tiles that are drawn. */
    const colors = () => grid(page).locator('canvas[data-ready]').evaluateAll((all) => all.map((canvas) => [...canvas.getContext('2d').getImageData(0, 0, 1, 1).data.slice(0, 3)].join()));
    // The first folder's small pictures are made when they are told to.
    await page.evaluate((count) => {
      const { postMessage } = Worker.prototype;
      window.late = [];
      Worker.prototype.postMessage = function (data, ...more) {
        if (!(data?.file instanceof File) || !data.file.name.match(/^(bug|also)/) || window.late.length === count) return postMessage.call(this, data, ...more);
        window.late.push(() => new Promise((done) => {
          this.addEventListener('message', (event) => event.data.id === data.id && done());
          postMessage.call(this, data, ...more);
        }));
      };
    }, names.length);
    await button(page, 'Choose a folder…').click();
    await within(page, 'the folder “Photos”, 2 pictures');
    await page.waitForFunction((count) => window.late.length === count, names.length);
    // Nor is it saved: the second of the copies is read when another folder is open.
    await option(page, 'Photos/bug.png').click();
    await option(page, 'Photos/also.png').click();
    await page.evaluate(() => {
      const { getFile } = FileSystemFileHandle.prototype;
      const gate = new Promise((done) => { window.goOn = done; });
      let count = 0;
      FileSystemFileHandle.prototype.getFile = async function () {
        if (++count === 1) await gate;
        return getFile.call(this);
      };
    });
    const copies = save(page, 'Copies as a zip');
    await says(page, /^Packing/);
    await button(page, 'Choose a folder…').click();
    await within(page, 'the folder “Photos (2)”, 2 pictures. This browser knows another folder “Photos”, with other pictures in it; this one is called “Photos (2)” here');
    await page.evaluate(() => window.goOn());
    const zip = await copies;
    for (let i = 0, at = 0; i < names.length; i++) {
      const begin = at + 30 + zip.readUInt16LE(at + 26);
      at = begin + zip.readUInt32LE(at + 18);
      assert.deepEqual([...zip.subarray(begin, at)], red);
    }
    await page.evaluate(() => Promise.all(window.late.map((make) => make())));
    await page.waitForFunction((count) => document.querySelectorAll('#grid canvas[data-ready]').length === count, names.length);
    assert.deepEqual(await colors(), names.map(() => '0,0,200'));
  });

  visit('where the browser gives no folder, as on phones, its pictures are searched all the same; what can’t be opened says why', async (page) => {
    await page.evaluate(() => document.getElementById('files').removeAttribute('webkitdirectory'));
    await page.locator('#files').setInputFiles([await png('one', 'soup'), await png('two', 'truck')]);
    await says(page, /^2 pictures\. |another model/);
    assert.match(await status(page).textContent(), /^2 pictures\. /);
    await within(page, 'the folder “Pictures”, 2 pictures');
    await option(page, 'two.png').waitFor();

    await page.evaluate(async () => {
      const [{ SiglipIndex }, { SiglipError }] = await Promise.all([import('./lib/siglip-index.js'), import('./lib/siglip-web.js')]);
      SiglipIndex.open = () => Promise.reject(new SiglipError('bad-input', 'The disk is upside down.'));
    });
    await trip(page);
    await button(page, 'Choose a folder…').click();
    await says(page, /The disk is upside down|another model/);
    assert.equal(await status(page).textContent(), 'That did not work. The disk is upside down.');
    await button(page, 'Try again').waitFor();
  });
});

describe('the folders that the browser knows', () => {
  const known = (page) => page.getByRole('list', { name: 'Folders that this browser knows' }).getByRole('listitem');
  const accessible = async (page, state) => {
    await page.evaluate(axe.source);
    const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
    assert.deepEqual(violations.map(({ id, nodes }) => `${state}: ${id}: ${nodes.map(({ target }) => target)}`), []);
  };
  const kept = (page) => page.evaluate(async () => (await (await import('./lib/siglip-index.js')).SiglipIndex.list()).map(({ name }) => name));

  visit('two of one name are two, and said apart; one is forgotten with its index and its handle, as it was said before', async (page) => {
    const [bug, balloon, truck] = await Promise.all(['ladybug', 'balloon', 'truck'].map(async (name) => [...await sample(name)]));
    await folders(page, [['one/Photos', { 'bug.png': bug }], ['two/Photos', { 'balloon.png': balloon, 'truck.png': truck }], ['one/Photos', {}]]);
    await button(page, 'Choose a folder…').click();
    await page.getByText('Searching in the folder “Photos”, 1 picture.').waitFor();
    await button(page, 'Choose a folder…').click();
    await page.getByText('Searching in the folder “Photos (2)”, 2 pictures. This browser knows another folder “Photos”, with other pictures in it; this one is called “Photos (2)” here.').waitFor();
    assert.deepEqual(await shown(page).then((rows) => rows.map(({ name }) => name).sort()), ['balloon.png', 'truck.png']);
    await known(page).nth(1).waitFor();
    assert.deepEqual((await known(page).allInnerTexts()).map((text) => text.replace(/\s+/g, ' ').replace(/opened .*?\d{4}/, 'opened then')),
      ['Photos (2) 2 pictures, balloon.png among them · opened then Open Forget', 'Photos 1 picture, bug.png · opened then Open Forget']);
    assert.deepEqual(await kept(page), ['Photos', 'Photos (2)']);
    // The first one again: nothing of it is looked at anew, and nothing of the other one is dropped.
    await button(page, 'Choose a folder…').click();
    await page.getByText('Searching in the folder “Photos”, 1 picture.').waitFor();
    await option(page, 'Photos/bug.png').waitFor();

    await page.reload();
    await ready(page);
    await button(page, 'Open “Photos (2)” again').click();
    await page.getByText('“Photos (2)”, 2 pictures.').waitFor();
    await says(page, /^2 pictures\. /);
    await button(page, 'Forget “Photos (2)”').click();
    const dialog = page.getByRole('dialog', { name: 'Forget the folder “Photos (2)”?' });
    assert.match(await dialog.innerText(), /drops what it knows of its 2 pictures: [\d.]+ [kM]B, looked at with demo \(f32\)\..*the way to the folder.*stay where they are/s);
    await accessible(page, 'asking whether to forget');
    await dialog.getByRole('button', { name: 'Keep it' }).click();
    await accessible(page, 'two folders known');
    await option(page, 'Photos/truck.png').waitFor();
    assert.deepEqual(await kept(page), ['Photos', 'Photos (2)']);
    await button(page, 'Forget “Photos (2)”').click();
    await dialog.getByRole('button', { name: 'Forget it' }).click();
    await says(page, /^“Photos \(2\)” is forgotten: [\d.]+ [kM]B are free again\.$/);
    await page.getByText(`Searching in the built-in drawings, ${DRAWINGS} pictures.`).waitFor();
    assert.deepEqual(await kept(page), ['Photos']);
    assert.equal(await known(page).count(), 1);
    await page.reload();
    await ready(page);
    assert.equal(await known(page).count(), 1);
    await button(page, 'Open “Photos” again').waitFor();
  });

  visit('without handles they are told apart by what they hold, though some of it has changed', async (page) => {
    const other = join(scratch, 'elsewhere', 'Holidays');
    await mkdir(other, { recursive: true });
    await writeFile(join(other, 'car.png'), await sample('truck'));
    await choose(page);
    const chooser = page.waitForEvent('filechooser');
    await button(page, 'Choose a folder…').click();
    await (await chooser).setFiles(other);
    await page.getByText('“Holidays (2)”, 1 picture.').waitFor();
    await says(page, /^1 picture\. /);
    const gone = join(folder, 'plain 000.png');
    await rm(gone);
    const again = page.waitForEvent('filechooser');
    await button(page, 'Choose a folder…').click();
    await (await again).setFiles(folder);
    await page.getByText(`Searching in the folder “Holidays”, ${FOLDER - 1} pictures.`).waitFor();
    await writeFile(gone, plain(0, 0, 0));
    assert.equal(await known(page).count(), 2);
  });
});

describe('the search page for everybody', () => {
  const LOOKS = {
    'in light colours': {},
    'in dark colours, on a phone, in German': { colorScheme: 'dark', viewport: { width: 320, height: 640 }, hasTouch: true, isMobile: true, locale: 'de' },
    'in forced colours': { forcedColors: 'active' },
  };
  for (const [look, options] of Object.entries(LOOKS)) {
    onPage(`axe-core finds nothing ${look}, and nothing is too wide`, async (page) => {
      const found = [];
      const look = async (state) => {
        await page.evaluate(axe.source);
        const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
        found.push(...violations.map(({ id, nodes }) => `${state}: ${id}: ${nodes.map(({ target }) => target)}`));
        assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), state);
      };
      await says(page, new RegExp(`^${DRAWINGS} `));
      await look('all');
      await page.locator('#query').fill('food');
      await says(page, /“food”|„food“/);
      await page.locator('.tile').first().click();
      await page.locator('#selection:not([hidden])').waitFor();
      await look('found, one selected');
      await page.locator('#like').click();
      await page.locator('#terms:not([hidden])').waitFor();
      await look('a picture as the query');
      await page.locator('#terms button').last().click();
      await page.locator('#query').fill('a submarine');
      await says(page, /a submarine.*%\.|a submarine.*%/);
      await look('nothing fits');
      assert.deepEqual(found, []);
    }, { path: 'search.html', wait: false, reducedMotion: 'reduce', ...options });
  }

  onPage('the pages lead to each other, and the language holds on both', async (page) => {
    await page.getByRole('link', { name: 'Search a folder of pictures' }).click();
    await ready(page);
    await page.getByRole('button', { name: 'Deutsch' }).click();
    await says(page, /^144 Bilder\. Worte eingeben/);
    assert.equal(await page.title(), 'siglip-web: Bilder durchsuchen');
    await page.locator('#query').fill('a submarine');
    await says(page, /^Hier passt nichts zu „a submarine“/);
    await page.getByRole('link', { name: 'Ein einzelnes Bild befragen' }).click();
    await page.getByRole('heading', { level: 1, name: 'Was ist auf dem Bild?' }).waitFor();
  });
});
