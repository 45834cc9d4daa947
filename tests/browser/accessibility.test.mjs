// The page for everybody: axe-core in every state of it, what a screen reader tells and a keyboard reaches, as sentences, forced colours, zoom.
import assert from 'node:assert/strict';
import axe from 'axe-core';
import { describe } from 'node:test';
import { answered, image, keepBack, labels, model, onPage, png, says, type } from './visit.mjs';

/** What axe-core finds, as lines. */
async function violations(page) {
  await page.evaluate(axe.source);
  await page.evaluate(() => Promise.all(document.getAnimations().map(({ finished }) => finished.catch(() => {}))));
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  return found.violations.flatMap(({ id, help, nodes }) => nodes.map(({ target, failureSummary }) => `${id}: ${help}: ${target.join(' ')}: ${failureSummary.replace(/\s+/g, ' ')}`));
}

/** Every state that the page can be in, one after the other; each begins where the one before ended. */
const STATES = {
  'opened, with a sample answered': (page) => answered(page),
  'the skip link has the focus': (page) => page.keyboard.press('Tab'),
  'an answer to labels of one’s own, one of them twice, none of which fits': async (page) => {
    await labels(page).fill('a hammer, a telephone, a telephone, ?!');
    await answered(page, ['a hammer', 'a telephone']);
  },
  'softmax': async (page) => {
    await page.getByRole('checkbox', { name: /softmax/ }).check();
    await says(page, /^Softmax/);
  },
  'no labels': async (page) => {
    await page.getByRole('checkbox', { name: /softmax/ }).uncheck();
    await labels(page).fill('');
    await says(page, /Type at least one label/);
  },
  'a sample’s labels offered beside one’s own': async (page) => {
    await type(page, 'my own words');
    await page.getByRole('button', { name: 'A strawberry', exact: true }).click();
    await answered(page, ['my own words']);
  },
  'several pictures, which are a guess to the demo model': async (page) => {
    await image(page).setInputFiles([await png('first', 'lock'), await png('second', 'soup')]);
    await page.getByRole('list', { name: 'Your pictures' }).waitFor();
    await answered(page, ['my own words']);
    await page.getByText('knows drawings only').waitFor();
  },
  'an error': async (page) => {
    await image(page).setInputFiles({ name: 'notes.txt', mimeType: 'text/plain', buffer: Buffer.from('shopping list') });
    await says(page, /can’t be used/);
  },
  'a map of what moved a score, and none for an absent label': async (page) => {
    await type(page, 'a lock, a hammer');
    for (const name of ['a lock', 'a hammer']) {
      await page.getByRole('button', { name: `What moved the score of “${name}”` }).click();
      await page.locator('#heat-note:not([hidden])').filter({ hasText: name }).waitFor();
    }
  },
  'live': async (page) => {
    await page.getByRole('button', { name: 'Live' }).click();
    await page.getByText(/^Live · /).waitFor();
    await says(page, /^Live: /);
  },
  'the last frame': async (page) => {
    await page.getByRole('button', { name: 'Live' }).click();
    await answered(page);
  },
  'other ways of asking': (page) => page.getByText('Ask in another way').click(),
  'a place for a web address': (page) => page.getByRole('button', { name: 'Link' }).click(),
  'labels as a link': async (page) => {
    await page.getByRole('button', { name: 'Share these labels' }).click();
    await page.getByText(/It holds the labels, not the picture/).waitFor();
  },
  'advanced choices': (page) => page.getByText('Advanced', { exact: true }).click(),
  'the storage panel, empty': (page) => page.getByText('Models kept in this browser').click(),
  'the dialog for a model': async (page) => {
    await model(page).selectOption('other');
    await page.getByRole('dialog', { name: 'Choose a model' }).getByRole('radio', { checked: true }).waitFor();
  },
  'the storage panel, with a model': async (page) => {
    const dialog = page.getByRole('dialog');
    await dialog.getByRole('textbox').fill('./lib/models/demo/?a=copy');
    await dialog.getByRole('button', { name: 'Load' }).click();
    await page.getByRole('button', { name: 'Remove demo' }).waitFor();
    await answered(page);
  },
  'the camera': async (page) => {
    if (await page.evaluate(() => matchMedia('(hover: none) and (pointer: coarse)').matches)) return; // a phone has an app of its own for it
    await page.getByRole('button', { name: 'Camera' }).click();
    await page.getByRole('button', { name: 'Take the picture' }).and(page.locator(':enabled')).waitFor();
  },
  'a model that is loading': async (page) => {
    await page.keyboard.press('Escape');
    const release = keepBack(/demo\/model\.safetensors/);
    await model(page).selectOption('demo');
    await page.getByRole('progressbar').waitFor();
    return release;
  },
  'a picture that may be dropped': async (page) => {
    await answered(page);
    await page.evaluate(() => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([], 'cat.png'));
      document.body.dispatchEvent(new DragEvent('dragenter', { bubbles: true, cancelable: true, dataTransfer }));
    });
    await page.getByText('Drop the picture anywhere').waitFor();
  },
};

const PHONE = { viewport: { width: 320, height: 640 }, hasTouch: true, isMobile: true };
const LOOKS = {
  'in light colours': { colorScheme: 'light' },
  'in dark colours, on a phone': { colorScheme: 'dark', ...PHONE },
  'in forced colours': { forcedColors: 'active' },
};

describe('axe-core finds nothing', () => {
  for (const [look, options] of Object.entries(LOOKS)) {
    onPage(`${look}, in any state of the page`, async (page) => {
      const found = {};
      for (const [state, arrange] of Object.entries(STATES)) {
        const release = await arrange(page);
        const lines = await violations(page);
        if (lines.length > 0) found[state] = lines;
        if (typeof release === 'function') release();
      }
      assert.deepEqual(found, {});
    }, { reducedMotion: 'reduce', ...options });
  }
});

/** What has the focus, as a screen reader tells it: what it is, what it is called, how it stands, what is said about it. */
async function focused(page, session) {
  const { result } = await session.send('Runtime.evaluate', { expression: 'document.activeElement' });
  const { nodes: [node] } = await session.send('Accessibility.getPartialAXTree', { objectId: result.objectId, fetchRelatives: false });
  const state = Object.fromEntries(node.properties.map(({ name, value }) => [name, value.value]));
  const role = { combobox: 'list to choose from', textbox: 'text', DisclosureTriangle: 'heading to open', MenuListPopup: 'list' }[node.role.value] ?? node.role.value;
  const how = [
    state.pressed === 'true' && 'pressed', state.checked === 'true' && 'on', state.checked === 'false' && 'off',
    state.expanded === true && 'open', state.expanded === false && node.role.value !== 'combobox' && 'closed',
  ].filter(Boolean);
  return `${role} “${node.name.value}”${how.map((word) => `, ${word}`).join('')}${node.description?.value ? `: ${node.description.value}` : ''}`;
}

describe('a screen reader and a keyboard', () => {
  onPage('go through the page in this order, and everything says what it is', async (page) => {
    const session = await page.context().newCDPSession(page);
    const told = [];
    while (told.length < 40 && told.at(-1)?.startsWith('heading to open “Models kept') !== true) {
      await page.keyboard.press('Tab');
      told.push(await focused(page, session));
    }
    assert.deepEqual(told, [
      'link “Skip to the words to compare”',
      'link “Search a folder of pictures”',
      'button “Deutsch”',
      'list to choose from “Model”',
      'button “Image”: The picture never leaves this page. Drop one anywhere, or paste it.',
      'button “Camera”',
      'button “Live”',
      'button “Paste”',
      'button “Link”, closed',
      'button “A ladybug”, pressed',
      'button “A strawberry”',
      'button “A penguin”',
      'button “A red balloon”',
      'button “A truck”',
      'button “A padlock”',
      'button “A cherry”',
      'button “A bowl of soup”',
      'text “Labels”: Separate them with commas, semicolons or new lines.',
      'heading to open “Ask in another way”, closed',
      'checkbox “Make one label win (softmax, as in CLIP)”, off: Softmax, as CLIP uses it, shares 100% out among your labels: one must win even when none fits. SigLIP judges each label on its own.',
      ...['a ladybug', 'a spider', 'a car', 'a mushroom'].map((label) => `button “What moved the score of “${label}””`),
      'button “Save as CSV”',
      'button “Save as JSON”',
      'button “Share these labels”',
      'heading to open “Advanced”, closed',
      'heading to open “Models kept in this browser”, closed',
    ]);
  });

  onPage('hear each outcome once, and nothing of what only moves', async (page) => {
    await page.evaluate(() => {
      window.heard = [];
      const status = document.querySelector('[role=status]');
      new MutationObserver(() => window.heard.at(-1) !== status.textContent && window.heard.push(status.textContent)).observe(status, { childList: true, characterData: true, subtree: true });
    });
    const heard = () => page.evaluate(() => window.heard.splice(0));
    /** Without what is said only where an answer takes long. */
    const outcomes = async () => (await heard()).filter((text) => !/^(Looking|Reading)/.test(text));

    await page.getByRole('button', { name: 'A penguin', exact: true }).press('Enter');
    await answered(page, ['a penguin', 'an owl', 'a dog', 'a bicycle']);
    const [penguin, ...more] = await outcomes();
    assert.match(penguin, /^“a penguin” (fits, at \d+\.\d%|\(\d+\.\d%\).* fit)\.$/);
    assert.deepEqual(more, []);

    await labels(page).focus();
    await page.keyboard.press('Control+A');
    await page.keyboard.type('a piano, a hammer');
    await answered(page, ['a piano', 'a hammer']);
    assert.match((await outcomes()).at(-1), /^None of these fits\. Even the closest, “.+”, gets only <?\d+\.\d+%\.$/);

    await page.getByRole('checkbox').press('Space');
    const [softmax, ...others] = await outcomes();
    assert.match(softmax, /^Softmax picks “.+”, \d+\.\d%\. None of these fits: on its own that label gets <?\d+\.\d+%\.$/);
    assert.deepEqual(others, []);

    await image(page).setInputFiles({ name: 'notes.txt', mimeType: 'text/plain', buffer: Buffer.from('shopping list') });
    await says(page, /can’t be used/);
    assert.match((await outcomes()).at(-1), /^“notes\.txt” can’t be used\. .+ The picture you had is kept\./);
  });

  onPage('stay in a dialog until it is closed, and come back to where they were', async (page) => {
    const where = () => page.evaluate(() => [document.activeElement.closest('dialog')?.id ?? '', document.activeElement.id]);
    const camera = page.getByRole('button', { name: 'Camera' });
    await camera.focus();
    await page.keyboard.press('Enter');
    await page.getByRole('button', { name: 'Take the picture' }).and(page.locator(':enabled')).waitFor();
    await page.waitForFunction(() => document.activeElement.id === 'shutter');
    for (let i = 0; i < 5; i++) {
      const [dialog, id] = await where();
      assert.ok(dialog === 'camera-dialog' || id === '', `the focus is on ${id}`); // or on the browser's own buttons
      await page.keyboard.press('Tab');
    }
    await page.keyboard.press('Escape');
    await page.waitForFunction(() => document.activeElement.id === 'camera');

    await model(page).focus();
    await model(page).selectOption('other');
    await page.waitForFunction(() => document.activeElement.name === 'choice' && document.activeElement.checked);
    await page.keyboard.press('Escape');
    await page.waitForFunction(() => document.activeElement.id === 'model');
  });
});

/** The contrast of two colours as computed styles have them. */
const contrast = (page, pairs) => page.evaluate((pairs) => {
  const light = (text) => {
    const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  };
  return pairs.map((pair) => {
    const [a, b] = pair.map(([selector, pseudo, property]) => light(getComputedStyle(document.querySelector(selector), pseudo)[property])).sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  });
}, pairs);

for (const colorScheme of ['light', 'dark']) {
  describe(`forced colours, ${colorScheme}`, () => {
    onPage('show what is on, how well a label fits, what is chosen, and what is said', async (page) => {
      const back = 'backgroundColor';
      const pairs = [
        [['#softmax + .track', '::after', back], ['#softmax + .track', null, back]],
        [['.fill', null, back], ['.bar', null, back]],
        [['.answer', '::before', back], ['.answer', null, back]],
        [['.bar', null, 'borderTopColor'], ['.results', null, back]],
        [['[aria-pressed=true]', null, 'outlineColor'], ['.picture', null, back]],
      ];
      const off = await contrast(page, pairs);
      await page.getByRole('checkbox').check();
      await says(page, /^Softmax/);
      const on = await contrast(page, pairs);
      for (const ratio of [...off, ...on]) assert.ok(ratio >= 3, `${off.map((one) => one.toFixed(1))}; ${on.map((one) => one.toFixed(1))}`);
    }, { forcedColors: 'active', colorScheme, reducedMotion: 'reduce' });
  });
}

describe('zoom', () => {
  // As browsers zoom, a page of 1280 px at 200 % has 640, and at 400 % it has 320.
  for (const [zoom, width, height] of [['200 %', 640, 450], ['400 %', 320, 225]]) {
    onPage(`${zoom}: all is there, in one column, without scrolling sideways, and what has the focus is in sight`, async (page) => {
      await type(page, 'a house, a very long label that has to go over several lines on a page as narrow as this one, a pencil');
      await page.getByText('Advanced', { exact: true }).click();
      await page.getByText('Models kept in this browser').click();
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
      await page.evaluate(() => document.activeElement.blur());
      const hidden = [];
      for (let i = 0; i < 30; i++) {
        await page.keyboard.press('Tab');
        hidden.push(...await page.evaluate(() => {
          const { activeElement: node } = document;
          if (node === document.body) return [];
          const { left, top, right, bottom } = (node.closest('.switch, .file') ?? node).getBoundingClientRect();
          const at = document.elementFromPoint((Math.max(left, 0) + Math.min(right, innerWidth)) / 2, (Math.max(top, 0) + Math.min(bottom, innerHeight)) / 2);
          const seen = at && (node.contains(at) || at.contains(node) || at.closest('.switch, .file')?.contains(node));
          return seen ? [] : [`${node.id || node.textContent} is behind ${at?.id || at?.className || 'the edge'}`];
        }));
      }
      assert.deepEqual(hidden, []);
    }, { viewport: { width, height }, reducedMotion: 'reduce' });
  }

  onPage('text of twice the size: nothing is cut off or lies over something else', async (page) => {
    await page.evaluate(() => { document.documentElement.style.fontSize = '200%'; });
    await page.getByText('Advanced', { exact: true }).click();
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 1280);
    const cut = await page.evaluate(() => [...document.querySelectorAll('button, h1, h2, h3, p, label, summary, dd')]
      .filter((node) => node.checkVisibility() && !node.closest('.stage') && getComputedStyle(node).overflowX !== 'visible' && node.scrollWidth > node.clientWidth + 1)
      .map((node) => node.id || node.textContent));
    assert.deepEqual(cut, []);
  });
});
