// The page that measures this device.
import assert from 'node:assert/strict';
import { describe } from 'node:test';
import axe from 'axe-core';
import { keepBack, onPage, saved, status } from './visit.mjs';

const says = (page, text) => page.locator('#status').filter({ hasText: text }).waitFor();
const measure = (page) => page.getByRole('button', { name: /^(Measure|Messen)$/ });

async function violations(page) {
  await page.evaluate(axe.source);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target)}`);
}

describe('the page that measures', () => {
  for (const [look, options] of Object.entries({ 'on a desk': {}, 'on a phone': { viewport: { width: 320, height: 640 }, hasTouch: true, isMobile: true, colorScheme: 'dark' } })) {
    onPage(`measures the demo on the CPU, and saves what it found (${look})`, async (page) => {
      assert.deepEqual(await violations(page), []);
      await measure(page).click();
      await says(page, /^Done/);
      const cells = await page.getByRole('row').nth(1).getByRole('cell').allTextContents();
      assert.match(await page.getByRole('rowheader').textContent(), /^CPU: WebAssembly relaxed SIMD/);
      assert.match(cells[0], /^\d+\.\d s$/);
      for (const cell of cells.slice(1)) assert.match(cell, /^\d+(\.\d)? ms \(\d+(\.\d)?\)$/);
      assert.deepEqual(await violations(page), []);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
      const { model, unit, rows } = JSON.parse(await saved(page, () => page.getByRole('button', { name: 'Save as JSON' }).click()));
      assert.deepEqual([model, unit, rows.length], ['demo', 'ms', 1]);
      assert.equal(rows[0].pictures.length, rows[0].labels.length);
      assert.ok(rows[0].pictures.every((time) => time > 0));
    }, { path: 'speed.html', wait: false, reducedMotion: 'reduce', ...options });
  }

  onPage('can be stopped and begun again, and speaks German', async (page) => {
    const release = keepBack(/demo\/model\.safetensors/);
    await measure(page).click();
    await says(page, 'Das Demo-Modell wird geladen');
    await page.getByRole('button', { name: 'Abbrechen' }).click();
    await says(page, 'Abgebrochen.');
    assert.ok(await measure(page).evaluate((button) => button === document.activeElement), 'the focus is where it goes on');
    release();
    await measure(page).click();
    await says(page, /^Fertig, auf der CPU/);
    assert.match(await page.getByRole('row').nth(1).getByRole('cell').first().textContent(), /^\d+,\d s$/);
    await page.getByRole('button', { name: 'English' }).click();
    assert.match(await status(page).first().textContent(), /^Done, on the CPU/);
  }, { path: 'speed.html', wait: false, locale: 'de' });
});
