// The page in the languages that it speaks.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, test } from 'node:test';
import axe from 'axe-core';
import { www } from './harness.mjs';
import { answered, keepBack, onPage, png } from './visit.mjs';

const [index, search, speed] = await Promise.all(['index.html', 'search.html', 'speed.html'].map((name) => readFile(`${www}${name}`, 'utf8')));
const status = (page) => page.getByRole('status');

/** Texts of the page that nobody typed, and that are not said to be of another language. */
const visible = (page) => page.evaluate(() => {
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    const text = walker.currentNode.data.trim();
    if (text && !node.closest('script, noscript, #results .name, [lang]:not(html)')) found.push(text);
  }
  for (const node of document.querySelectorAll('[aria-label], [alt]:not([alt=""]), optgroup')) found.push(node.getAttribute('aria-label') ?? node.getAttribute('alt') ?? node.label);
  return found;
});

describe('languages', () => {
  onPage('whatever stands on the page has German words, and none are left over', async (page) => {
    const german = await page.evaluate(async () => Object.keys((await import('./page/texts/de.js')).GERMAN.page));
    const keys = [index, search, speed].flatMap((text) => [...text.matchAll(/ data-(?:text|label|group)="([^"]*)"/g)].map(([, key]) => key));
    assert.deepEqual([...new Set(keys)].sort(), german.sort());
    // What has no key is a name, or is put there by a script that takes it from the texts.
    const bare = (text) => [...text.replace(/<(script|style|svg|noscript)[\s\S]*?<\/\1>|<!--[\s\S]*?-->/g, '').matchAll(/<([^/][^>]*)>([^<]*[a-z][^<]*)</gi)].filter(([, tag]) => !/data-text/.test(tag)).map(([, , words]) => words.trim());
    assert.deepEqual(bare(index), ['Deutsch', 'No picture yet', 'Starting…', 'Try again']);
    assert.deepEqual(bare(search), ['Deutsch', 'Starting…']);
    assert.deepEqual(bare(speed), ['Deutsch']);
  });

  onPage('a German browser gets the page in German, and the words for the model in English, with a note', async (page) => {
    assert.equal(await page.evaluate(() => document.documentElement.lang), 'de');
    assert.equal(await page.title(), 'siglip-web: Was ist auf dem Bild?');
    assert.match(await status(page).textContent(), /^(„a ladybug“ passt, mit \d+,\d %\.|Es passen „a ladybug“ \(\d+,\d %\) und .*\.)$/);
    await page.getByText('Dieses Modell liest nur Englisch').waitFor();
    assert.equal(await page.getByRole('textbox', { name: 'Begriffe' }).inputValue(), 'a ladybug, a spider, a mushroom, a car');
    assert.deepEqual(await page.evaluate(() => ['labels', 'results', 'template'].map((id) => document.getElementById(id).lang)), ['en', 'en', 'en']);
    await page.getByRole('img', { name: 'Das gewählte Bild: Ein Marienkäfer' }).waitFor();
    await page.getByRole('button', { name: 'Ein Pinguin', exact: true }).click();
    await answered(page, ['a penguin', 'an owl', 'a dog', 'a bicycle']);
    // Said by the library, which speaks English: beside a German sentence, and marked.
    await page.getByLabel('Bild', { exact: true }).setInputFiles({ name: 'notes.txt', mimeType: 'text/plain', buffer: Buffer.from('shopping list') });
    await status(page).filter({ hasText: /^„notes\.txt“ lässt sich nicht verwenden\. Das Bild lässt sich nicht lesen\. .*Das bisherige Bild bleibt\./ }).waitFor();
    assert.ok(await status(page).locator('[lang=en]').textContent());
    assert.deepEqual((await visible(page)).filter((text) => /\b(the|this|picture|model|browser|words?|none|not|is|are|of|your)\b/i.test(text) && !/\bist\b|Browser|Modell/.test(text)), []);
  }, { locale: 'de-AT' });

  onPage('the switch changes all that is said, keeps what was done, and is remembered', async (page) => {
    await page.getByLabel('Image', { exact: true }).setInputFiles([await png('first', 'lock'), await png('second', 'soup')]);
    await page.getByRole('textbox', { name: 'Labels' }).fill('a lock, a lock, a bowl');
    await answered(page, ['a lock', 'a bowl']);
    await page.getByText('counted once').waitFor();
    const values = await page.locator('.value').allTextContents();
    await page.getByRole('button', { name: 'Deutsch' }).click();
    assert.equal(await page.evaluate(() => document.documentElement.lang), 'de');
    assert.match(await status(page).textContent(), /^(Geraten: „|Nichts kommt nahe heran; )/);
    assert.deepEqual(await page.locator('.value').allTextContents(), values.map((text) => text.replace('.', ',').replace('%', ' %')));
    for (const text of ['einmal gezählt: „a lock“', 'kennt nur Zeichnungen', 'Millionen Parameter']) await page.getByText(text).waitFor();
    assert.equal(await page.getByRole('list', { name: 'Deine Bilder' }).getByRole('button').count(), 2);
    assert.match(await page.locator('#model option[value="google/siglip-base-patch16-224"]').textContent(), /herunterladen, braucht \d+ MB Speicher/);
    await page.reload();
    await answered(page);
    assert.equal(await page.getByRole('heading', { level: 1 }).textContent(), 'Was ist auf dem Bild?');
    await page.getByRole('button', { name: 'English' }).click();
    assert.equal(await page.getByRole('heading', { level: 1 }).textContent(), 'What is in the picture?');
    assert.equal(await page.title(), 'siglip-web: what is in the picture?');
    await page.reload();
    await answered(page);
    assert.equal(await page.evaluate(() => document.documentElement.lang), 'en');
  });

  onPage('an error, and what is waited for, change with the language as well', async (page) => {
    const release = keepBack(/demo\/model\.safetensors/);
    await page.reload();
    await status(page).filter({ hasText: /demo model…$/ }).waitFor();
    await page.getByRole('button', { name: 'Deutsch' }).click();
    await status(page).filter({ hasText: /^Das Demo-Modell wird .* …$/ }).waitFor();
    await page.getByRole('button', { name: 'Abbrechen' }).click();
    await status(page).filter({ hasText: 'Das Laden wurde abgebrochen (das Demo-Modell).' }).waitFor();
    await page.getByRole('button', { name: 'English' }).click();
    assert.equal(await status(page).textContent(), 'Stopped loading the demo model.');
    release();
    await page.getByRole('button', { name: 'Try again' }).click();
    await answered(page);
  });

  for (const [look, options] of Object.entries({ 'on a desk': {}, 'on a phone': { viewport: { width: 320, height: 640 }, hasTouch: true, isMobile: true, colorScheme: 'dark' } })) {
    onPage(`the German page fits ${look}, and axe-core finds nothing`, async (page) => {
      await page.getByText('Weitere Einstellungen', { exact: true }).click();
      await page.getByText('In diesem Browser gespeicherte Modelle').click();
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
      await page.evaluate(axe.source);
      const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
      assert.deepEqual(found.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target)}`), []);
    }, { locale: 'de', reducedMotion: 'reduce', ...options });
  }
});

test('a German browser is told in German what to do with a page opened as a file', { timeout: 600_000 }, async () => {
  const { browser } = await import('./visit.mjs');
  const context = await browser.context.browser().newContext({ locale: 'de' });
  const page = await context.newPage();
  await page.goto(new URL('../../www/index.html', import.meta.url).href);
  await page.getByRole('status').filter({ hasText: /als Datei geöffnet.*build\.sh serve/ }).waitFor({ timeout: 120_000 });
  await context.close();
});
