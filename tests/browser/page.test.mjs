// The page, as people use it: mouse, touch, keyboard, screen reader.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { www } from './harness.mjs';
import { sample, png, PATIENCE, site, browser, keepBack, onPage, image, labels, results, model, status, says, shows, answered, read, type, hand, saved, stillWorks } from './visit.mjs';

// What no sample shows, and what keeps the small model busy for long.
const ABSENT = 'a hammer, a guitar, a telephone, a bus, a piano, a train, an octopus, a spoon';
const SLOW = Array.from({ length: 4000 }, (_, i) => `slow thing number ${i}`).join(', '); // on lines, Chromium takes ages to type it
/** What the list of models names. */
const chosen = (page) => model(page).locator('option:checked').textContent();
/** What the browsers report when another site isn't reached. */
const UNREACHED = /ERR_FAILED|CORS request did not succeed/;

describe('first sight', () => {
  onPage('opens with a sample already classified, from its own origin alone', async (page, requests) => {
    const rows = await read(page);
    assert.deepEqual(rows.map(({ label }) => label).sort(), ['a car', 'a ladybug', 'a mushroom', 'a spider']);
    assert.equal(rows[0].label, 'a ladybug');
    assert.deepEqual(rows.map(({ percent }) => percent), rows.map(({ percent }) => percent).sort((a, b) => b - a));
    await shows(page, 'A ladybug');
    assert.equal(await model(page).inputValue(), 'demo');
    for (const text of ['Why there', 'clip-art drawings only', 'million parameters', 'The picture never leaves this page.']) await page.getByText(text).waitFor();
    await page.getByText(/Picture .*ms|Picture .* s/).waitFor();
    assert.deepEqual(requests.filter((url) => !url.startsWith(site.url) && !url.startsWith('blob:')), []);
  });

  onPage('has the names and roles that a screen reader tells', async (page) => {
    for (const locator of [image(page), labels(page), results(page), model(page), status(page)]) assert.equal(await locator.count(), 1);
    assert.equal(await image(page).getAttribute('type'), 'file');
    assert.equal(await status(page).getAttribute('aria-live'), 'polite');
    const tree = await page.locator('body').ariaSnapshot();
    for (const line of ['heading "What is in the picture?" [level=1]', 'combobox "Model"', 'button "Image"', 'button "Camera"', 'list "Or try a drawing"', 'button "A ladybug" [pressed]',
      'button "A penguin"', 'textbox "Labels"', 'status', 'list "Results"', 'checkbox "Make one label win (softmax, as in CLIP)"']) assert.ok(tree.includes(line), `${line} is in\n${tree}`);
    assert.doesNotMatch(tree, /button(?! ")|textbox(?! ")|combobox(?! ")|img(?! ")/, 'everything has a name');
    const ids = await page.evaluate(() => [...document.querySelectorAll('[aria-describedby], [aria-labelledby], [aria-controls]')].flatMap((node) => ['aria-describedby', 'aria-labelledby', 'aria-controls']
      .flatMap((name) => (node.getAttribute(name) ?? '').split(' ').filter(Boolean))).filter((id) => !document.getElementById(id)));
    assert.deepEqual(ids, []);
  });
});

test('opened as a file, the page says what to do instead', { timeout: 10 * PATIENCE }, async () => {
  const context = await browser.context.browser().newContext();
  const page = await context.newPage();
  await page.goto(new URL('../../www/index.html', import.meta.url).href);
  await page.getByRole('status').filter({ hasText: /opened as a file.*build\.sh serve/ }).waitFor({ timeout: PATIENCE });
  await context.close();
});

describe('pictures', () => {
  onPage('from a file', async (page) => {
    await image(page).setInputFiles(await png('my strawberry', 'strawberry'));
    await shows(page, 'my strawberry.png');
    await says(page, /Type at least one label/);
    assert.equal(await labels(page).inputValue(), '', 'a sample’s labels say nothing about it');
    await type(page, 'a strawberry, a house');
  });

  onPage('by dropping anywhere, with a sign that it may be dropped', async (page) => {
    const penguin = await png('dropped', 'penguin');
    await hand(page, ['dragenter', 'dragover'], penguin);
    await page.getByText('Drop the picture anywhere').waitFor();
    await hand(page, ['dragover', 'drop'], penguin);
    await page.getByText('Drop the picture anywhere').waitFor({ state: 'hidden' });
    await shows(page, 'dropped.png');
    await says(page, /Type at least one label/);
  });

  onPage('by pasting, also while typing labels', async (page) => {
    await type(page, 'a ladybug, a house');
    await hand(page, 'paste', await png('pasted', 'ladybug'));
    await shows(page, 'pasted.png');
    await answered(page, ['a ladybug', 'a house']);
  });

  onPage('from a sample, whose labels come along unless one has typed', async (page) => {
    await page.getByRole('button', { name: 'A truck', exact: true }).click();
    await answered(page, ['a truck', 'a train', 'an airplane', 'a banana']);
    assert.equal(await page.getByRole('button', { name: 'A truck', exact: true }).getAttribute('aria-pressed'), 'true');
    await type(page, 'my own words');
    await page.getByRole('button', { name: 'A strawberry', exact: true }).click();
    await answered(page, ['my own words']);
    await page.getByRole('button', { name: 'Use a strawberry, a banana' }).click();
    await answered(page, ['a strawberry', 'a banana', 'a carrot', 'a hammer']);
  });

  onPage('from the camera', async (page) => {
    await page.getByRole('button', { name: 'Camera' }).click();
    await page.getByRole('dialog', { name: 'Camera' }).waitFor();
    await page.getByRole('button', { name: 'Take the picture' }).click(); // waits until it is enabled
    await shows(page, 'Picture from the camera');
    await says(page, /Type at least one label/);
    assert.equal(await page.evaluate(() => document.getElementById('video').srcObject), null, 'the camera is off again');
  });

  onPage('from a web address that allows it; otherwise it says why not', async (page) => {
    const lock = await sample('lock');
    const open = { 'Access-Control-Allow-Origin': '*' };
    const answers = {
      '/lock.png': { contentType: 'image/png', body: lock, headers: open },
      '/page.html': { contentType: 'text/html', body: '<p>', headers: open },
    };
    await page.route('https://pictures.test/**', (route) => {
      const { pathname } = new URL(route.request().url());
      if (pathname === '/closed.png') return route.abort('accessdenied'); // to a page, a site that forbids reading looks like this
      return route.fulfill(answers[pathname] ?? { status: 404, headers: open });
    });
    await page.getByRole('button', { name: 'Link' }).click();
    const address = page.getByRole('textbox', { name: 'Web address of a picture' });
    for (const [text, answer] of [['https://pictures.test/closed.png', /may not let pages read it/], ['https://pictures.test/page.html', /is a web page, not a picture/],
      ['pictures.test/none.png', /answered HTTP 404/], ['http://', /is not a web address/], ['ftp://pictures.test/cat.png', /Use one that starts with https/], ['', /Type or paste the web address/]]) {
      await address.fill(text);
      await page.getByRole('button', { name: 'Get it' }).click();
      await says(page, answer);
      await shows(page, 'A ladybug');
    }
    await address.fill('http://pictures.test/lock.png');
    await address.press('Enter');
    await shows(page, 'lock.png');
    await says(page, /Type at least one label/);
    await stillWorks(page);
  }, { expected: /pictures\.test/ });

  onPage('that are none: the reason is said, the old picture stays, the page goes on', async (page) => {
    const truck = await sample('truck');
    const before = await read(page);
    for (const [name, mimeType, buffer] of [['notes.txt', 'text/plain', Buffer.from('shopping list')], ['photo.jpg', 'image/jpeg', Buffer.from('not a photo at all')],
      ['empty.png', 'image/png', Buffer.alloc(0)], ['cut.png', 'image/png', truck.subarray(0, 700)]]) {
      await image(page).setInputFiles({ name, mimeType, buffer });
      await says(page, new RegExp(`“${name.replace('.', '\\.')}” can’t be used\\. .{20,} The picture you had is kept`));
      await shows(page, 'A ladybug');
      assert.deepEqual(await answered(page), before, 'its results stand');
    }
    await stillWorks(page);
  });

  onPage('that come while a template or a label is at fault are kept, and answered once that is mended', async (page) => {
    const template = page.getByRole('textbox', { name: 'Template' });
    /** What is shown, and what is said, when the model has been asked about a picture. */
    const given = async (picture) => {
      await image(page).setInputFiles(picture);
      await page.waitForFunction(() => !document.getElementById('stage').dataset.pending && document.getElementById('results').ariaBusy === 'false');
      return `${await page.locator('#preview').getAttribute('alt')}: ${await status(page).textContent()}`;
    };
    await type(page, 'a strawberry, a house');
    await page.getByText('Ask in another way').click();
    await template.fill('a drawing');
    await says(page, /\{\}/);
    assert.match(await given(await png('my strawberry', 'strawberry')), /^The chosen picture: my strawberry\.png: (?!.*can’t be used).*\{\}/);
    await template.fill('a drawing of {}');
    assert.equal((await answered(page))[0].label, 'a strawberry');
    await shows(page, 'my strawberry.png');

    await labels(page).fill(`${'long '.repeat(1999)}label, a truck`);
    await says(page, /has 10000 characters/);
    assert.match(await given(await png('my truck', 'truck')), /^The chosen picture: my truck\.png: (?!.*can’t be used).* has 10000 characters/s);
    await type(page, 'a truck, a house');
    await shows(page, 'my truck.png');

    // One that is no picture is still found out, and the one before comes back.
    await template.fill('a drawing');
    await says(page, /\{\}/);
    await image(page).setInputFiles({ name: 'photo.jpg', mimeType: 'image/jpeg', buffer: Buffer.from('not a photo at all') });
    await page.waitForFunction(() => document.getElementById('stage').dataset.pending === 'true');
    await template.fill('a drawing of {}');
    await says(page, /“photo\.jpg” can’t be used\. .* The picture you had is kept/);
    await shows(page, 'my truck.png');
    await answered(page, ['a truck', 'a house']);
  });
});

describe('one’s own pictures', () => {
  onPage('are a guess to the demo model: it never says that a label fits, and offers a model that knows photographs', async (page) => {
    const way = page.getByRole('button', { name: /^Use SigLIP .*, for photographs \([\d.]+ [MG]B download\)$/ });
    assert.equal(await way.isVisible(), false, 'a sample is a drawing');
    await image(page).setInputFiles(await png('cat.photo', 'ladybug'));
    await shows(page, 'cat.photo.png');
    for (const text of ['a ladybug, a house', ABSENT]) {
      await type(page, text);
      await says(page, /^(A guess: “|Nothing comes close; )/);
      assert.doesNotMatch(await status(page).textContent(), /\bfits?\b/);
      assert.equal(await results(page).locator('[data-fit=yes]').count(), 0);
      await page.getByText('The demo model knows drawings only').waitFor();
      await way.waitFor();
    }
    const toggle = page.getByRole('checkbox', { name: /softmax/ });
    await toggle.check();
    await says(page, /^Softmax picks /);
    assert.doesNotMatch(await status(page).textContent(), /\bfits?\b/);
    await toggle.uncheck();
    await way.click();
    await says(page, /could not be loaded\. .{20,} The demo model is still in use/s);
    await page.getByRole('button', { name: 'A truck', exact: true }).click();
    await way.waitFor({ state: 'hidden' });
  }, { expected: UNREACHED });

  onPage('that come together wait in a strip, and are saved together', async (page) => {
    const files = [await png('first', 'lock'), await png('second', 'soup'), { name: 'third.png', mimeType: 'image/png', buffer: Buffer.from('no picture') }];
    await image(page).setInputFiles(files);
    await shows(page, 'first.png');
    await type(page, 'a lock; a "soup"');
    const waiting = page.getByRole('list', { name: 'Your pictures' });
    assert.equal(await waiting.getByRole('button').count(), 3);
    await waiting.getByRole('button', { name: 'second.png' }).click();
    await shows(page, 'second.png');
    await answered(page, ['a lock', 'a "soup"']);
    assert.equal(await waiting.getByRole('button', { name: 'second.png' }).getAttribute('aria-pressed'), 'true');
    const table = await saved(page, () => page.getByRole('button', { name: 'Save as CSV' }).click());
    const lines = table.toString().split('\r\n');
    assert.equal(lines[0], 'image,label,probability,logit,error');
    assert.equal(lines.length, 7);
    assert.match(lines.find((line) => line.includes('a lock')), /^first\.png,a lock,[\d.e-]+,[-\d.]+,$/);
    assert.ok(lines.some((line) => /^second\.png,"a ""soup""",/.test(line)), lines.join('\n'));
    assert.match(lines[5], /^third\.png,,,,./);
    await page.getByRole('button', { name: 'A truck', exact: true }).click();
    await waiting.waitFor({ state: 'hidden' });
    await answered(page, ['a lock', 'a "soup"']);
    const alone = await saved(page, () => page.getByRole('button', { name: 'Save as JSON' }).click());
    const { model: name, pictures } = JSON.parse(alone);
    assert.equal(name, 'demo');
    assert.deepEqual(pictures[0].results.map(({ label }) => label).sort(), ['a "soup"', 'a lock']);
  });
});

describe('labels', () => {
  onPage('survive a reload, and come with a link that no server sees', async (page) => {
    await type(page, 'a ladybug, a shovel');
    await page.reload();
    await answered(page, ['a ladybug', 'a shovel']);
    await page.getByRole('button', { name: 'Share these labels' }).click();
    await page.getByText(/It holds the labels, not the picture/).waitFor();
    const link = page.url();
    assert.match(link, /#labels=a%20ladybug%2C%20a%20shovel$/);
    await type(page, 'a house');
    await page.goto('about:blank');
    await page.goto(link);
    await answered(page, ['a ladybug', 'a shovel']);
    assert.ok(site.requests.every((request) => !request.includes('shovel')));
  });

  onPage('that are changed after a link was made or opened are what a reload brings back, in the sentence that they go into', async (page) => {
    await type(page, 'a ladybug, a shovel');
    await page.getByRole('button', { name: 'Share these labels' }).click();
    await page.getByText(/It holds the labels, not the picture/).waitFor();
    const link = page.url();
    assert.match(link, /#labels=/);
    await type(page, 'a ladybug, a house');
    assert.equal(page.url(), site.url);
    assert.equal(await page.getByText(/It holds the labels, not the picture/).isVisible(), false);
    await page.reload();
    await answered(page, ['a ladybug', 'a house']);

    await page.goto('about:blank');
    await page.goto(link);
    await answered(page, ['a ladybug', 'a shovel']);
    await page.getByText('Ask in another way').click();
    await page.getByRole('textbox', { name: 'Template' }).fill('a drawing of {}');
    await answered(page);
    await page.reload();
    await answered(page, ['a ladybug', 'a shovel']);
    await page.getByText('Ask in another way').click();
    assert.equal(await page.getByRole('textbox', { name: 'Template' }).inputValue(), 'a drawing of {}');

    await page.getByRole('button', { name: 'Whole sentences', exact: true }).click();
    const sentences = ['A ladybug, red and black; seen from above.', 'A dog, asleep.'];
    await labels(page).fill(sentences.join('\n'));
    await answered(page, sentences);
    await page.reload();
    await answered(page, sentences);
    await page.getByText('Ask in another way').click();
    assert.equal(await page.getByRole('button', { name: 'Whole sentences', exact: true }).getAttribute('aria-pressed'), 'true');
  });

  onPage('survive a reload after the skip link too, which changes none of them', async (page) => {
    await type(page, 'a ladybug, a shovel');
    await page.getByRole('button', { name: 'A strawberry', exact: true }).click();
    await page.getByRole('button', { name: 'Use a strawberry, a banana' }).click();
    const suggested = await labels(page).inputValue();
    const changed = page.evaluate(() => new Promise((done) => { addEventListener('hashchange', () => done(location.hash)); }));
    await page.getByRole('link', { name: 'Skip to the words to compare' }).press('Enter');
    assert.equal(await changed, '#labels');
    assert.equal(await labels(page).inputValue(), suggested);
    await page.reload();
    await answered(page);
    assert.equal(await labels(page).inputValue(), 'a ladybug, a shovel');
  });

  onPage('of a link go into the sentence of the link: the usual one where it names none', async (page) => {
    await page.getByText('Ask in another way').click();
    const template = page.getByRole('textbox', { name: 'Template' });
    await template.fill('no drawing shows {}');
    await answered(page);
    await page.goto(`${site.url}#labels=a%20ladybug%2C%20a%20shovel`); // in the same tab: only the fragment changes
    await answered(page, ['a ladybug', 'a shovel']);
    assert.equal(await template.inputValue(), 'This is a photo of {}.');
    await page.goto(`${site.url}#labels=a%20ladybug%2C%20a%20house&template=a%20drawing%20of%20%7B%7D`);
    await answered(page, ['a ladybug', 'a house']);
    assert.equal(await template.inputValue(), 'a drawing of {}');
  });

  onPage('are answered as one types, between commas and on lines', async (page) => {
    await labels(page).fill('');
    await says(page, /Type at least one label/);
    assert.equal(await results(page).getByRole('listitem').count(), 0);
    await labels(page).pressSequentially('a house');
    await answered(page, ['a house']);
    await labels(page).pressSequentially(',a ship\na tree,, ,');
    await answered(page, ['a house', 'a ship', 'a tree']);
    // As they are written in China, Japan, Arabia and Ethiopia.
    await labels(page).fill('猫，狗；鸟、犬､魚\nقطة، كلب؛ طائر\nድመት፣ ውሻ፤ ወፍ');
    await answered(page, ['猫', '狗', '鸟', '犬', '魚', 'قطة', 'كلب', 'طائر', 'ድመት', 'ውሻ', 'ወፍ']);
  });

  onPage('named twice count once, with a note', async (page) => {
    await labels(page).fill('a cat, A  Cat, a dog, a cat');
    await answered(page, ['a cat', 'a dog']);
    await page.getByText('counted once: “a cat”').waitFor();
    await type(page, 'a cat, a dog');
    await page.getByText('counted once').waitFor({ state: 'hidden' });
  });

  onPage('without a word are left out, with a note', async (page) => {
    await labels(page).fill('a cat, ?!, a dog');
    await answered(page, ['a cat', 'a dog']);
    await page.getByText('for want of a word: “?!”').waitFor();
  });

  onPage('are text, whatever they hold', async (page) => {
    const markup = '<img src=x onerror=alert(1)>';
    await type(page, `${markup}, <b>bold</b>, it costs $& more`);
    assert.ok((await read(page)).some(({ label }) => label === markup));
    assert.equal(await results(page).locator('img, b').count(), 0);
  });

  onPage('may be long or very many; one beyond all measure is named', async (page) => {
    await type(page, `${'long '.repeat(150)}label, short`);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
    await labels(page).fill(`${'long '.repeat(1999)}label, short`);
    await says(page, /Label 1 of 2 .*long long.* has 10000 characters/);
    const many = Array.from({ length: 120 }, (_, i) => `thing number ${i}`);
    assert.equal((await type(page, many.join('\n'))).length, 120);
    await stillWorks(page);
  });

  onPage('go into a template that can be changed, and a template without {} is refused', async (page) => {
    await page.getByText('Ask in another way').click();
    const template = page.getByRole('textbox', { name: 'Template' });
    assert.equal(await template.inputValue(), 'This is a photo of {}.');
    const before = await read(page);
    await template.fill('a drawing');
    await says(page, /\{\}/);
    assert.equal(await page.locator('#results-card').getAttribute('data-stale'), 'true', 'what still stands there is marked as old');
    await template.fill('no drawing shows {}');
    await answered(page);
    await template.fill('This is a photo of {}.');
    assert.deepEqual(await answered(page), before);
  });
});

describe('other ways of asking', () => {
  const way = (page, name) => page.getByRole('list', { name: 'Ways of asking' }).getByRole('button', { name, exact: true });
  const template = (page) => page.getByRole('textbox', { name: 'Template' });

  onPage('have examples that the demo model answers rightly, and whose templates go with them', async (page) => {
    await page.getByText('Ask in another way').click();
    assert.equal(await way(page, 'Names').getAttribute('aria-pressed'), 'true');
    for (const [example, name, sentence, picture, right] of [
      ['Example: sentences about the penguin', 'Whole sentences', '{}', 'A penguin', 'There is a penguin in this picture.'],
      ['Example: which colour the balloon is', 'Fill in the blank', 'The balloon is {}.', 'A red balloon', 'red'],
    ]) {
      await page.getByRole('button', { name: example }).click();
      await shows(page, picture);
      assert.equal(await template(page).inputValue(), sentence);
      assert.equal(await way(page, name).getAttribute('aria-pressed'), 'true');
      const rows = await answered(page, (await labels(page).inputValue()).split('\n'));
      assert.equal(rows[0].label, right);
      assert.ok(rows[0].percent > 50 && rows.slice(1).every(({ percent }) => percent < 10), JSON.stringify(rows));
    }
    await page.getByRole('button', { name: 'A truck', exact: true }).click();
    await answered(page, ['a truck', 'a train', 'an airplane', 'a banana']);
    assert.equal(await template(page).inputValue(), 'This is a photo of {}.');
  });

  onPage('sentences stand on lines and may hold commas; a blank is ready to be typed over', async (page) => {
    await page.getByText('Ask in another way').click();
    await way(page, 'Whole sentences').click();
    await page.getByText('One sentence to a line').waitFor();
    await labels(page).fill('A ladybug, red and black; seen from above.\nA dog, asleep.');
    await answered(page, ['A ladybug, red and black; seen from above.', 'A dog, asleep.']);
    await way(page, 'Fill in the blank').click();
    await page.keyboard.type('insect');
    assert.equal(await template(page).inputValue(), 'The insect is {}.');
    await labels(page).fill('a ladybug, a snail');
    await answered(page, ['a ladybug', 'a snail']);
    await way(page, 'Names').click();
    assert.equal(await template(page).inputValue(), 'This is a photo of {}.');
    await answered(page, ['a ladybug', 'a snail']);
  });
});

describe('what moved a score', () => {
  const choose = (page, label) => page.getByRole('button', { name: `What moved the score of “${label}”`, exact: true });
  const map = (page) => page.locator('#heat');
  /** How strongly the map is drawn where it is strongest, 0 to 255; 0 where there is none. */
  const strength = (page) => map(page).evaluate((canvas) => (canvas.hidden ? 0 : canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.reduce((most, one, i) => (i % 4 === 3 ? Math.max(most, one) : most), 0)));

  onPage('is shown over the picture when a result is chosen, as strong as its label is probable, and not made before', async (page) => {
    await page.evaluate(async () => {
      const { SiglipClassifier } = await import('./lib/siglip-web.js');
      const { explain } = SiglipClassifier.prototype;
      window.explained = [];
      SiglipClassifier.prototype.explain = function (...given) {
        window.explained.push(given[1]);
        return explain.apply(this, given);
      };
    });
    await page.getByRole('button', { name: 'A red balloon', exact: true }).click();
    const rows = await answered(page, ['a balloon', 'an apple', 'a clock', 'a flower']);
    assert.deepEqual(await page.evaluate(() => window.explained), []);
    assert.equal(rows[0].label, 'a balloon');

    await choose(page, 'a balloon').focus();
    await page.keyboard.press('Enter');
    await page.getByText(/^What moved the score of “a balloon”: most of all (at the|on the|in the) /).waitFor();
    assert.equal(await choose(page, 'a balloon').getAttribute('aria-pressed'), 'true');
    const [over, under] = [await map(page).boundingBox(), await page.locator('#preview').boundingBox()];
    for (const side of ['x', 'y', 'width', 'height']) assert.ok(Math.abs(over[side] - under[side]) < 1.5, `${side}: ${over[side]}, ${under[side]}`);
    const strong = await strength(page);
    assert.ok(strong > 40, String(strong));

    // One that the model has doubts about is fainter than it could be.
    await type(page, 'a balloon, an apple, a piano');
    const [, doubtful] = await read(page);
    await choose(page, doubtful.label).click();
    await page.getByText(`What moved the score of “${doubtful.label}”`).waitFor();
    const faint = await strength(page);
    assert.ok(faint > 0 && faint <= 1 + 255 * Math.sqrt(doubtful.percent / 100), String(faint));

    // An absent one shows nothing, and that is said.
    const { label: absent, percent } = (await read(page)).at(-1);
    assert.ok(percent < 1);
    await choose(page, absent).click();
    await page.getByText(new RegExp(`^“${absent}” gets .*%: nothing in the picture speaks for it`)).waitFor();
    assert.equal(await strength(page), 0);
    assert.ok(!(await page.evaluate(() => window.explained)).includes(absent));

    // Pressed again, or with another picture, it goes.
    await choose(page, 'a balloon').click();
    await page.getByText('What moved the score of “a balloon”').waitFor();
    await page.getByRole('button', { name: 'A truck', exact: true }).click();
    await answered(page);
    await page.getByText('What moved the score of').waitFor({ state: 'hidden' });
    assert.equal(await map(page).isVisible(), false);
    await stillWorks(page);
  });

  onPage('is one’s own until the answer is old: other labels of the same picture keep it', async (page) => {
    await choose(page, 'a ladybug').click();
    await map(page).waitFor();
    await type(page, 'a ladybug, a house');
    await map(page).waitFor();
    assert.equal(await choose(page, 'a ladybug').getAttribute('aria-pressed'), 'true');
    await type(page, 'a house');
    await map(page).waitFor({ state: 'hidden' });
  });
});

describe('live', () => {
  const live = (page) => page.getByRole('button', { name: 'Live' });
  const video = (page) => page.locator('#live-video');
  /** As when another tab is in front. */
  const hide = (page, hidden) => page.evaluate((hidden) => {
    Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  }, hidden);
  /** Counts what is asked of the model and of the screen. */
  const watchOver = (page) => page.evaluate(async () => {
    const { SiglipClassifier } = await import('./lib/siglip-web.js');
    const { watch } = SiglipClassifier.prototype;
    window.seen = [];
    SiglipClassifier.prototype.watch = function (video, labels, options) {
      return watch.call(this, video, labels, { ...options, onResult: (results, frame) => {
        options.onResult(results, frame);
        // As it stands on the page when that was called.
        window.seen.push({ results, shown: Object.fromEntries([...document.querySelectorAll('#results li')].map((row) => [row.querySelector('.name').textContent, row.querySelector('.value').textContent])) });
      } });
    };
    window.awake = 0;
    Object.defineProperty(navigator, 'wakeLock', { value: { request: async () => { window.awake += 1; return { release: async () => { window.awake -= 1; } }; } } });
  });
  const frames = (page, count) => page.waitForFunction((count) => window.seen.length >= count, count);

  onPage('frames are classified one after another, with the labels of the moment; the last one stays as the picture', async (page) => {
    await watchOver(page);
    await live(page).click();
    await says(page, /Type at least one label/);
    await labels(page).fill('a ball, a clock');
    await says(page, /^Live: /);
    await frames(page, 3);
    await page.getByText(/^Live · [\d.]+ frames a second$/).waitFor();
    await page.getByText(/^[\d.]+ frames a second, CPU$/).waitFor();
    assert.equal(await page.evaluate(() => window.awake), 1, 'the screen stays on');
    assert.ok(await video(page).isVisible());
    // The numbers are the model's own, and rows keep the labels' order.
    const { percents, seen } = await page.evaluate(async () => {
      const { percent } = await import('./page/results.js');
      const seen = window.seen.at(-1);
      return { seen, percents: Object.fromEntries(seen.results.map(({ label, score }) => [label, percent(score)])) };
    });
    assert.deepEqual(seen.shown, percents);
    assert.deepEqual((await read(page)).map(({ label }) => label), ['a ball', 'a clock']);

    await labels(page).fill('a fish, a clock, a ball');
    await answered(page, ['a fish', 'a clock', 'a ball']);
    await page.getByRole('checkbox', { name: /softmax/ }).check();
    await page.getByText(/on its own/).first().waitFor();
    await page.getByRole('checkbox', { name: /softmax/ }).uncheck();
    await labels(page).fill('');
    await says(page, /Type at least one label/);
    assert.equal(await results(page).getByRole('listitem').count(), 0);
    await labels(page).fill('a ball');
    await answered(page, ['a ball']);

    await live(page).click();
    await shows(page, 'Picture from the camera');
    await answered(page, ['a ball']);
    assert.equal(await video(page).isVisible(), false);
    assert.equal(await page.evaluate(() => document.getElementById('live-video').srcObject), null, 'the camera is off');
    assert.equal(await page.evaluate(() => window.awake), 0);
    await stillWorks(page);
  });

  onPage('the camera is off while nobody sees the page, and on again afterwards; another picture ends it', async (page) => {
    await watchOver(page);
    await live(page).click();
    await labels(page).fill('a ball, a clock');
    await frames(page, 2);
    const track = await page.evaluateHandle(() => document.getElementById('live-video').srcObject.getTracks()[0]);
    await hide(page, true);
    assert.equal(await track.evaluate(({ readyState }) => readyState), 'ended');
    assert.equal(await page.evaluate(() => window.awake), 0);
    const before = await page.evaluate(() => window.seen.length);
    await hide(page, false);
    await frames(page, before + 2);
    assert.equal(await page.evaluate(() => window.awake), 1);
    await page.getByRole('button', { name: 'A truck', exact: true }).click();
    await shows(page, 'A truck');
    await answered(page, ['a ball', 'a clock']);
    assert.equal(await live(page).getAttribute('aria-pressed'), 'false');
    assert.equal(await page.evaluate(() => document.getElementById('live-video').srcObject), null);
    await stillWorks(page);
  });

  onPage('a camera that is refused, missing, busy, lost or not to be had is said so, with a way on', async (page) => {
    const before = await read(page);
    const answerWith = (name) => page.evaluate((name) => {
      navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', name));
    }, name);
    for (const [name, words] of [['NotAllowedError', /may not use the camera\. Allow it/], ['NotFoundError', /No camera was found/], ['NotReadableError', /another program may be using it/]]) {
      await answerWith(name);
      await live(page).click();
      await says(page, words);
      assert.equal(await live(page).getAttribute('aria-pressed'), 'false');
      await shows(page, 'A ladybug');
      assert.deepEqual(await answered(page), before);
    }
    // So it is when something else is asked while the browser asks whether the page may.
    await page.evaluate(() => {
      navigator.mediaDevices.getUserMedia = () => new Promise((_, reject) => { window.refuse = () => reject(new DOMException('no', 'NotAllowedError')); });
    });
    await live(page).click();
    await page.getByText('Earlier results').waitFor();
    await labels(page).fill('a ladybug, a spoon');
    await page.evaluate(() => window.refuse());
    await answered(page, ['a ladybug', 'a spoon']);
    await says(page, /may not use the camera\. .*“a ladybug” fits/s);
    await page.evaluate(() => delete navigator.mediaDevices.getUserMedia);
    await page.getByRole('button', { name: 'Try again' }).click();
    await labels(page).fill('a ball');
    await says(page, /^Live: /);
    await page.evaluate(() => document.getElementById('live-video').srcObject.getTracks()[0].dispatchEvent(new Event('ended')));
    await says(page, /^The camera stopped/);
    await shows(page, 'A ladybug');
    await answered(page, ['a ball']);
    await type(page, before.map(({ label }) => label).join(', '));
    assert.deepEqual(await read(page), before);
    await page.evaluate(() => Object.defineProperty(navigator, 'mediaDevices', { value: undefined }));
    await live(page).click();
    await says(page, /must be opened at an address that starts with https/);
    await stillWorks(page);
  });
});

describe('verdict', () => {
  onPage('says so when nothing fits, and softmax shows how it would have chosen a winner all the same', async (page) => {
    const absent = (await type(page, ABSENT)).slice(-2).map(({ label }) => label); // the two that the model finds worst
    await type(page, absent.join(', '));
    await says(page, /^None of these fits/);
    const alone = await read(page);
    const toggle = page.getByRole('checkbox', { name: 'Make one label win (softmax, as in CLIP)' });
    await toggle.check();
    await says(page, /^Softmax picks .*None of these fits/);
    await page.getByText('one must win even when none fits').waitFor();
    const shares = await read(page);
    const sum = shares.reduce((total, { percent }) => total + percent, 0);
    assert.ok(Math.abs(sum - 100) < 0.5, `the shares add up to ${sum}`);
    for (const { label, alone: own } of shares) assert.equal(own, alone.find((row) => row.label === label).percent);
    await toggle.uncheck();
    await says(page, /^None of these fits/);
    assert.deepEqual(await read(page), alone);
  });

  onPage('asks nobody: no request leaves the page while it classifies', async (page, requests) => {
    await page.getByRole('button', { name: 'A red balloon', exact: true }).click();
    await answered(page);
    const before = site.requests.length;
    requests.length = 0;
    await image(page).setInputFiles(await png('private', 'lock'));
    await shows(page, 'private.png');
    await type(page, 'a lock, a secret');
    await page.getByRole('checkbox').check();
    await page.getByRole('button', { name: 'A truck', exact: true }).click();
    await answered(page);
    await hand(page, 'paste', await png('pasted', 'ladybug'));
    await shows(page, 'pasted.png');
    await answered(page);
    assert.deepEqual(requests.filter((url) => !url.startsWith('blob:')), []);
    assert.equal(site.requests.length, before);
  });
});

describe('keyboard only', () => {
  onPage('reaches and works everything in reading order', async (page) => {
    const soup = await png('by keyboard', 'soup');
    page.on('filechooser', (chooser) => chooser.setFiles(soup));
    const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.querySelector('img')?.alt || document.activeElement.textContent.trim());
    const order = [];
    for (let i = 0; i < 20 && order.at(-1) !== 'softmax'; i++) {
      await page.keyboard.press('Tab');
      order.push(await focused());
    }
    assert.deepEqual(order.filter((name) => name !== 'paste'), ['Skip to the words to compare', 'Search a folder of pictures', 'language', 'model', 'image', 'camera', 'live', 'link', 'A ladybug', 'A strawberry', 'A penguin',
      'A red balloon', 'A truck', 'A padlock', 'A cherry', 'A bowl of soup', 'labels', 'Ask in another way', 'softmax']);
    const ring = await page.evaluate(() => getComputedStyle(document.querySelector('#softmax + .track')).outlineStyle);
    assert.equal(ring, 'solid', 'what has the focus is seen');
    await page.keyboard.press('Space');
    await says(page, /^Softmax/);
    await page.keyboard.press('Space');

    for (let i = 0; i < 3; i++) await page.keyboard.press('Shift+Tab');
    await page.keyboard.press('Enter');
    await shows(page, 'A bowl of soup');
    await answered(page);
    await page.keyboard.press('Tab');
    await page.keyboard.press('Control+A');
    await page.keyboard.type('a fish, a lamp');
    const rows = await answered(page, ['a fish', 'a lamp']);
    await says(page, new RegExp(rows[0].label));

    await image(page).focus();
    await page.keyboard.press('Enter');
    await shows(page, 'by keyboard.png');
    await answered(page);
  });

  onPage('skips to the labels', async (page) => {
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await page.keyboard.type('a key, ');
    assert.match(await labels(page).inputValue(), /a key/);
  });
});

describe('waiting', () => {
  onPage('for the model: progress in bytes, Cancel, and again', async (page) => {
    let release = keepBack(/demo\/model\.safetensors/);
    await page.reload();
    await says(page, /demo model…/);
    await page.getByRole('progressbar', { name: 'Progress' }).waitFor();
    await page.getByRole('button', { name: 'Cancel' }).click();
    await says(page, /Stopped loading the demo model/);
    await page.getByRole('progressbar').waitFor({ state: 'hidden' });
    release();
    await page.getByRole('button', { name: 'Try again' }).click();
    await answered(page);
    assert.equal(await page.getByRole('button', { name: 'Try again' }).isVisible(), false);
    await stillWorks(page);
  });

  onPage('for an answer: Cancel keeps the page usable and passes nothing old off as new', async (page) => {
    const first = await read(page);
    await labels(page).fill(SLOW);
    await page.getByRole('button', { name: 'Cancel' }).click();
    await says(page, /^Stopped\./);
    assert.equal(await page.locator('#results-card').getAttribute('data-stale'), 'true');
    await page.getByText('Earlier results').waitFor();
    assert.deepEqual(await read(page), first);
    assert.equal(await page.evaluate(() => document.activeElement.id), 'labels', 'the focus does not fall off the page');
    await type(page, 'a house, a tree');
    await page.getByText('Earlier results').waitFor({ state: 'hidden' });

    await labels(page).fill(SLOW);
    await page.getByRole('button', { name: 'Cancel' }).waitFor();
    await page.keyboard.press('Escape');
    await says(page, /^Stopped\./);
    await stillWorks(page);
  });
});

describe('models', () => {
  onPage('from the Hub are asked for only when chosen; a failure is explained and the demo goes on', async (page, requests) => {
    const options = await model(page).locator('optgroup[label*="Hub"] option').allTextContents();
    assert.ok(options.some((text) => text.startsWith('SigLIP 2 ')) && options.some((text) => text.startsWith('SigLIP So400m')));
    for (const text of options) assert.match(text, /^SigLIP .* (px|shape).* · [\d.]+ [MG]B download, [\d.]+ [MG]B in memory \((f32|f16|q8|q4)\)/);
    assert.deepEqual(requests.filter((url) => url.includes('huggingface')), []);
    const before = await read(page);
    await model(page).selectOption('google/siglip-base-patch16-224');
    await says(page, /could not be loaded\. .{20,} The demo model is still in use/s);
    assert.equal(await model(page).inputValue(), 'demo');
    assert.deepEqual(await answered(page), before);
    await page.getByRole('button', { name: 'Try again' }).waitFor();
    await stillWorks(page);
  }, { expected: UNREACHED });

  onPage('that load for long can be cancelled, and what was changed meanwhile is answered', async (page) => {
    let asked;
    const waiting = new Promise((resolve) => (asked = resolve));
    await page.context().route(/huggingface/, asked); // never answered
    await model(page).selectOption('google/siglip2-base-patch16-224');
    await waiting;
    await says(page, /ing SigLIP 2/);
    await labels(page).fill('a house, a candle');
    await image(page).setInputFiles(await png('meanwhile', 'soup'));
    await page.getByRole('button', { name: 'Cancel' }).click();
    await says(page, /Stopped loading SigLIP 2.*The demo model is still in use/);
    await answered(page, ['a house', 'a candle']);
    await shows(page, 'meanwhile.png');
    assert.equal(await model(page).inputValue(), 'demo');
    await stillWorks(page);
  });

  onPage('on their way are what a change under Advanced is for and what the list names, whatever else is looked at meanwhile', async (page) => {
    // The demo in the place of what the Hub has: it arrives when it is told to.
    await page.evaluate(async () => {
      const { SiglipClassifier } = await import('./lib/siglip-web.js');
      const { load } = SiglipClassifier;
      window.loads = [];
      SiglipClassifier.load = (source, options) => new Promise((resolve, reject) => {
        options.signal.addEventListener('abort', () => reject(options.signal.reason));
        window.loads.push({ source, dtype: options.dtype, arrive: () => load.call(SiglipClassifier, 'demo', options).then(resolve, reject) });
      });
      // No window of the system opens.
      document.getElementById('folder').click = () => {};
    });
    const begun = async (count) => {
      await page.waitForFunction((count) => window.loads.length >= count, count);
      return page.evaluate(() => window.loads.map(({ source, dtype }) => `${source} ${dtype}`).at(-1));
    };
    const arrive = async () => {
      await page.evaluate(() => window.loads.at(-1).arrive());
      await answered(page);
    };
    const wanted = 'google/siglip2-base-patch16-224';
    const dialog = page.getByRole('dialog', { name: 'Choose a model' });
    const precision = page.getByRole('combobox', { name: 'Precision' });
    await model(page).selectOption(wanted);
    await begun(1);
    await model(page).selectOption('other');
    await dialog.getByRole('button', { name: 'Close' }).click();
    await dialog.waitFor({ state: 'hidden' });
    // The dialog's close event comes after it is out of sight.
    await page.waitForFunction(() => document.getElementById('model').value !== 'other');
    assert.equal(await model(page).inputValue(), wanted);
    await model(page).selectOption('folder');
    await page.evaluate(() => document.getElementById('folder').dispatchEvent(new Event('cancel')));
    assert.equal(await model(page).inputValue(), wanted);
    await page.getByText('Advanced').click();
    await precision.selectOption('q4');
    assert.equal(await begun(2), `${wanted} q4`);
    await arrive();
    assert.equal(await model(page).inputValue(), wanted);
    await page.getByText('The model was fetched from').waitFor();

    // It made room for one that is stopped: then the demo is what the list names, and what is loaded.
    await model(page).selectOption('demo');
    await begun(3);
    await page.getByRole('button', { name: 'Cancel' }).click();
    await says(page, /^Stopped loading the demo model/);
    assert.equal(await model(page).inputValue(), 'demo');
    await precision.selectOption('auto');
    assert.equal(await begun(4), 'demo auto');
    await arrive();
    await page.getByText('clip-art drawings only').waitFor();

    await model(page).selectOption(wanted);
    await begun(5);
    await page.getByRole('button', { name: 'Cancel' }).click();
    await says(page, /^Stopped loading SigLIP 2.*The demo model is still in use/);
    assert.equal(await model(page).inputValue(), 'demo');
    await stillWorks(page);
  });

  onPage('from a folder on this computer', async (page) => {
    await page.locator('#folder').setInputFiles(`${www}lib/models/demo`);
    await page.getByText('read from a folder on this computer').waitFor();
    await answered(page);
    assert.equal(await chosen(page), 'the model in “demo”');
    await stillWorks(page);
    // One without a model costs nobody the model in use; its pictures can be looked at.
    await page.locator('#folder').setInputFiles(`${www}samples`);
    await says(page, /^The folder “samples” holds no model: it has no config\.json\. To search all of its pictures, follow “Search a folder of pictures”/);
    await page.getByText('read from a folder on this computer').waitFor();
    assert.equal(await chosen(page), 'the model in “demo”');
    await page.getByRole('button', { name: /^Look at its \d+ pictures$/ }).click();
    await page.getByRole('list', { name: 'Your pictures' }).getByRole('button', { name: 'penguin.png' }).click();
    await shows(page, 'penguin.png');
    await answered(page);
    await page.getByText('read from a folder on this computer').waitFor();
    await stillWorks(page);
  });

  onPage('by dropping a folder, or its files', async (page) => {
    const session = await page.context().newCDPSession(page);
    const data = { items: [], files: [`${www}lib/models/demo`.replace(/\/\/+/g, '/')], dragOperationsMask: 1 };
    for (const type of ['dragEnter', 'dragOver', 'drop']) await session.send('Input.dispatchDragEvent', { type, x: 300, y: 300, data });
    await page.getByText('read from a folder on this computer').waitFor();
    await answered(page);
    assert.equal(await chosen(page), 'the model in “demo”');
    await model(page).selectOption('demo');
    await page.getByText('clip-art drawings only').waitFor();
    await answered(page);
    const names = ['config.json', 'preprocessor_config.json', 'tokenizer.json', 'model.safetensors'];
    data.files = names.map((name) => `${www}lib/models/demo/${name}`);
    for (const type of ['dragEnter', 'dragOver', 'drop']) await session.send('Input.dispatchDragEvent', { type, x: 300, y: 300, data });
    await page.getByText('read from a folder on this computer').waitFor();
    await answered(page);
    data.files = [`${www}samples`.replace(/\/\/+/g, '/')];
    for (const type of ['dragEnter', 'dragOver', 'drop']) await session.send('Input.dispatchDragEvent', { type, x: 300, y: 300, data });
    await says(page, /^The folder “samples” holds no model/);
    await page.getByText('read from a folder on this computer').waitFor();
    await stillWorks(page);
  });

  onPage('are kept, listed and removed', async (page) => {
    await page.getByText('Models kept in this browser').click();
    const panel = page.locator('#storage');
    await panel.getByText('None so far').waitFor();
    await model(page).selectOption('other');
    const dialog = page.getByRole('dialog', { name: 'Choose a model' });
    await dialog.getByRole('textbox').fill('./lib/models/demo/?a=copy');
    await dialog.getByRole('button', { name: 'Load' }).click();
    await page.getByText('The model was fetched from ./lib/models/demo').waitFor();
    await answered(page);
    const item = page.getByRole('list', { name: 'Models kept in this browser' }).getByRole('listitem');
    await item.filter({ hasText: /^demo · f32 [\d.]+ MB/ }).waitFor();
    await panel.getByRole('button', { name: 'Remove demo' }).click();
    await panel.getByText(/[\d.]+ [kM]B freed\. None so far/).waitFor();
    assert.equal(await item.count(), 0);
    assert.equal(await page.evaluate(() => document.activeElement.tagName), 'SUMMARY', 'the focus does not fall off the page');
    await stillWorks(page);
  });

  onPage('are compared in a dialog: sizes as the server tells them, and the first that fits is chosen', async (page, requests) => {
    await model(page).selectOption('other');
    const dialog = page.getByRole('dialog', { name: 'Choose a model' });
    const small = dialog.getByRole('radio', { name: /^SigLIP 2 B\/16, 224 px, 8 bits For everyday photographs: the smallest download/ });
    // All but the token table of 256 000 × 768 numbers, of 17 bytes for 16 and of 4 bytes each.
    for (const [id, number] of [['mlx-community/siglip2-base-patch16-224-8bit', 17 / 16], ['google/siglip2-base-patch16-224', 4]]) {
      await dialog.locator(`[data-id="${id}"]`).getByText(`${((2e9 + 2e6 - 256_000 * 768 * number) / 1e9).toFixed(1)} GB download · 229 MB in memory (q8)`).waitFor();
    }
    assert.equal(await dialog.getByRole('radio').count(), 10);
    assert.ok(await small.isChecked());
    assert.equal(await dialog.getByText('about').count(), 0, 'no size is guessed');
    assert.deepEqual(requests.filter((url) => url.includes('huggingface') && !/(model\.safetensors|tokenizer\.json)$/.test(url)), []);
    await dialog.getByRole('textbox').fill('owner/name');
    assert.equal(await dialog.getByRole('radio', { checked: true }).count(), 0);
    await dialog.getByRole('radio', { name: /^SigLIP 2 B\/16, 224 px For/ }).check();
    assert.equal(await dialog.getByRole('textbox').inputValue(), '');
    await dialog.getByRole('button', { name: 'Load' }).click();
    await says(page, /^SigLIP 2 B\/16, 224 px could not be loaded\. .{20,} The demo model is still in use/s);
    await stillWorks(page);
  }, { expected: UNREACHED });

  onPage('whose largest matrix this device’s GPU can’t hold in a buffer are refused by name, and nothing is fetched', async (page, requests) => {
    await page.addInitScript(() => {
      const limits = { maxBufferSize: 2 ** 28, maxStorageBufferBindingSize: 2 ** 20 };
      Object.defineProperty(navigator, 'gpu', { value: { requestAdapter: async () => ({ limits, info: { vendor: 'a small one' } }) } });
    });
    await page.reload();
    await answered(page);
    await page.getByText('Advanced', { exact: true }).click();
    await page.getByRole('combobox', { name: 'Backend' }).selectOption('webgpu');
    await answered(page);
    await model(page).selectOption('google/siglip-base-patch16-224');
    await says(page, /SigLIP B\/16, 224 px needs [\d.]+ MB in one piece, and this device’s graphics card takes 1\.0 MB/);
    assert.deepEqual(requests.filter((url) => url.includes('huggingface')), []);
    await stillWorks(page);
  });

  onPage('are offered in the form that this device can hold', async (page) => {
    const forms = await page.evaluate(async () => {
      const { bestFor, memoryOf } = await import('./page/catalogue.js');
      const model = { parameters: 841.1, matrix: 5 };
      const best = (memory, gpu, wish, backend) => bestFor(model, { memory: memory * 1e9, gpu }, wish, backend);
      return {
        best: [best(8, true), best(8, false), best(8, true, 'auto', 'cpu'), best(1.5, true), best(1.2, true), best(0.5, true), best(8, true, 'f32'), best(2, true, 'f32')].map((form) => form ?? 'none'),
        sizes: ['f32', 'f16', 'q8', 'q4'].map((dtype) => Math.round(memoryOf(model, dtype) / 1e6)),
      };
    });
    assert.deepEqual(forms.best, ['f16', 'q8', 'q8', 'q8', 'q4', 'none', 'f32', 'none']);
    assert.deepEqual(forms.sizes, [3364, 1682, 1077, 782]);
    await page.getByText('Advanced').click();
    await page.getByRole('combobox', { name: 'Precision' }).selectOption('f32');
    await answered(page);
    assert.match(await model(page).locator('option[value="google/siglip-base-patch16-224"]').textContent(), /714 MB in memory \(f32\)/);
    await stillWorks(page);
  });

  onPage('that arrive slowly tell how fast, and how long it will take', async (page) => {
    const told = await page.evaluate(async () => {
      const { Rate, remaining } = await import('./page/results.js');
      const rate = new Rate();
      const told = [];
      for (let second = 0; second <= 30; second++) told.push(rate.add(1000 * second, second < 10 ? second * 1e6 : 1e7 + (second - 10) * 4e6, 2e8));
      return { told, words: [3, 42, 59, 95, 3000, 3700, 8000].map(remaining) };
    });
    assert.deepEqual(told.told[0], {});
    assert.deepEqual(told.told[5], { rate: 1e6, left: 195 });
    assert.equal(told.told[30].rate, 4e6, 'as it goes now');
    assert.equal(told.told[30].left, 27.5);
    assert.deepEqual(told.words, ['5 seconds', '40 seconds', '1 minute', '2 minutes', '50 minutes', '1 hour', '2.2 hours']);
  });

  onPage('by a name that is none: said, and the demo goes on', async (page) => {
    await model(page).selectOption('other');
    const dialog = page.getByRole('dialog', { name: 'Choose a model' });
    await dialog.getByRole('textbox').fill('no such name');
    await dialog.getByRole('button', { name: 'Load' }).click();
    await says(page, /could not be loaded/);
    await stillWorks(page);
    await model(page).selectOption('other');
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'hidden' });
    // The dialog's close event comes after it is out of sight.
    await page.waitForFunction(() => document.getElementById('model').value === 'demo');
  });

  onPage('that are lost start again by themselves: the page asks once more, and loads one only when that is in vain', async (page) => {
    /** The next calls end as those do whose GPU is lost. */
    const lose = (times) => page.evaluate(async (times) => {
      const { SiglipClassifier, SiglipError } = await import('./lib/siglip-web.js');
      const { classify } = SiglipClassifier.prototype;
      SiglipClassifier.prototype.classify = function (...given) {
        if (--times === 0) SiglipClassifier.prototype.classify = classify;
        return times >= 0 ? Promise.reject(new SiglipError('device-lost', 'The GPU was taken away. The model starts afresh for the next call.')) : classify.apply(this, given);
      };
    }, times);
    const button = (name) => page.getByRole('button', { name, exact: true });
    await lose(1);
    await labels(page).fill('a balloon, a house');
    await says(page, /taken away\. The model starts afresh for the next call\.$/);
    await button('Try again').click();
    assert.equal((await answered(page, ['a balloon', 'a house'])).length, 2);
    await lose(3);
    await labels(page).fill('a balloon, a tree');
    await button('Try again').click();
    await button('Try again').click();
    await says(page, /has to be started again/);
    await button('Start it again').click();
    assert.equal((await answered(page, ['a balloon', 'a tree'])).length, 2);
    await stillWorks(page);
  });

  onPage('run on the backend that is chosen', async (page) => {
    await page.getByText('Advanced').click();
    const before = await read(page);
    await page.getByRole('combobox', { name: 'Backend' }).selectOption('cpu');
    await page.getByText('because it was asked for').waitFor();
    assert.deepEqual(await answered(page), before);
    await stillWorks(page);
  });
});

describe('one’s own models', () => {
  onPage('are what the list names, and another one, by its name or from a folder, can be chosen after them', async (page) => {
    const dialog = page.getByRole('dialog', { name: 'Choose a model' });
    for (const name of ['./lib/models/demo/?a=copy', './lib/models/demo/?another=copy']) {
      await model(page).press('End'); // the last of the list
      await dialog.getByRole('textbox').fill(name);
      await dialog.getByRole('button', { name: 'Load' }).click();
      await page.getByText(`The model was fetched from ${name}.`).waitFor();
      await answered(page);
      assert.equal(await chosen(page), name);
    }
    await model(page).press('End');
    await dialog.getByRole('button', { name: 'Close' }).click();
    await page.waitForFunction(() => document.querySelector('#model option:checked').textContent === './lib/models/demo/?another=copy');
    const chooser = page.waitForEvent('filechooser');
    await model(page).press('ArrowDown');
    await chooser;
    await page.evaluate(() => document.getElementById('folder').dispatchEvent(new Event('cancel')));
    assert.equal(await chosen(page), './lib/models/demo/?another=copy');
    await model(page).selectOption('demo');
    await page.getByText('clip-art drawings only').waitFor();
    assert.equal(await model(page).locator('option[value=own]').count(), 0);
    await stillWorks(page);
  });
});

describe('what is kept', () => {
  /** As after a large model was loaded. */
  const pretendLarge = (page, { listed = true } = {}) => page.evaluate(async (listed) => {
    const { SiglipClassifier } = await import('./lib/siglip-web.js');
    const load = SiglipClassifier.load.bind(SiglipClassifier);
    SiglipClassifier.load = async (...given) => {
      const classifier = await load(...given);
      return Object.defineProperty(classifier, 'info', { value: { ...classifier.info, cached: true, bytes: 2e8 } });
    };
    if (!listed) SiglipClassifier.caches = async () => [];
  }, listed);
  const chooseOther = async (page, name) => {
    await model(page).selectOption('other');
    const dialog = page.getByRole('dialog', { name: 'Choose a model' });
    await dialog.getByRole('textbox').fill(name);
    await dialog.getByRole('button', { name: 'Load' }).click();
  };
  const loadCopy = async (page) => {
    await chooseOther(page, './lib/models/demo/?a=copy');
    await page.getByText('The model was fetched from ./lib/models/demo').waitFor();
    await answered(page);
  };

  for (const [answer, words] of [[true, 'The browser keeps models until you remove them.'], [false, 'The browser may clear kept models away by itself']]) {
    onPage(`the browser is asked once to keep a large model, and the panel says that it answered ${answer ? 'yes' : 'no'}, and how much room is left`, async (page) => {
      await page.evaluate((answer) => {
        window.asked = 0;
        navigator.storage.persisted = async () => false;
        navigator.storage.persist = async () => { window.asked += 1; return answer; };
        navigator.storage.estimate = async () => ({ usage: 1e9, quota: 3.5e9 });
      }, answer);
      await page.getByText('Models kept in this browser').click();
      await page.getByText('The browser may clear kept models away by itself').waitFor();
      assert.equal(await page.evaluate(() => window.asked), 0, 'not for the demo');
      await pretendLarge(page);
      await loadCopy(page);
      await page.locator('#storage').getByText(words).waitFor();
      await page.getByText('This browser has 2.5 GB left for this page.').waitFor();
      assert.equal(await page.evaluate(() => window.asked), 1);
    });
  }

  onPage('a model that is forgotten at once, as in private windows, is said to be', async (page) => {
    await page.getByText('Models kept in this browser').click();
    await pretendLarge(page, { listed: false });
    await loadCopy(page);
    await page.getByText('This browser has already forgotten the model that was to be kept, as private windows do').waitFor();
  });

  onPage('a download for which there is no room is told before it begins, and made if the person says so', async (page, requests) => {
    await page.evaluate(() => { navigator.storage.estimate = async () => ({ usage: 4e8, quota: 5e8 }); });
    await model(page).selectOption('other');
    await page.getByRole('dialog').getByText('can’t be kept: this browser has 100 MB left for this page').first().waitFor();
    await page.getByRole('dialog').getByRole('button', { name: 'Load' }).click();
    await says(page, /SigLIP 2 B\/16, 224 px, 8 bits could not be loaded\. It takes 229 MB to keep, and this browser has 100 MB left.* The demo model is still in use/s);
    assert.deepEqual(requests.filter((url) => url.includes('huggingface') && url.endsWith('config.json')), []);
    const asked = page.waitForRequest(/huggingface\.co\/.*\/config\.json/);
    await page.getByRole('button', { name: 'Load it all the same' }).click();
    await asked;
    await says(page, /could not be loaded/);
  }, { expected: UNREACHED });

  onPage('a model stays in use until the next is known to have room, or where its size is asked in vain; where it had to go, the demo’s answer still offers the way on', async (page, requests) => {
    await loadCopy(page);
    const inUse = /\.\/lib\/models\/demo\/\?a=copy is still in use\.$/i;
    await page.evaluate(() => {
      window.room = navigator.storage.estimate;
      navigator.storage.estimate = async () => ({ usage: 4e8, quota: 5e8 });
    });
    const wanted = 'google/siglip-base-patch16-224';
    await model(page).selectOption(wanted);
    await says(page, /could not be loaded\. It takes/);
    await says(page, inUse);
    await page.getByText('The model was fetched from ./lib/models/demo').waitFor();
    assert.equal(await chosen(page), './lib/models/demo/?a=copy');
    await page.getByRole('button', { name: 'Load it all the same' }).waitFor();
    await answered(page);

    let asked;
    const measured = new Promise((resolve) => (asked = resolve));
    await page.context().route('https://huggingface.co/me/mine/resolve/main/model.safetensors', asked); // never answered
    await model(page).selectOption('demo');
    await answered(page);
    await loadCopy(page);
    await chooseOther(page, 'me/mine');
    await measured;
    await page.getByRole('button', { name: 'Cancel' }).click();
    await says(page, /^Stopped loading me\/mine\./i);
    await says(page, inUse);
    await answered(page);

    // It is not to be had, which is seen when there is no model left: words that are new take the demo a while.
    await page.evaluate(() => { navigator.storage.estimate = window.room; });
    await labels(page).fill(ABSENT);
    await answered(page, ABSENT.split(', '));
    await model(page).selectOption(wanted);
    await says(page, /could not be loaded\. .*The demo model is in use again\. /s);
    await answered(page);
    requests.length = 0;
    await page.getByRole('button', { name: 'Try again' }).click();
    await says(page, /could not be loaded\. .*The demo model is still in use/s);
    assert.ok(requests.some((url) => url.includes(wanted)));
    await stillWorks(page);
  }, { expected: UNREACHED });

  onPage('so is that of a model whose name was typed: its header tells what it takes, and without one the server', async (page, requests) => {
    await page.evaluate(() => { navigator.storage.estimate = async () => ({ usage: 4e8, quota: 5e8 }); });
    const header = Buffer.from(JSON.stringify({
      __metadata__: { format: 'pt' },
      'vision_model.head.weight': { dtype: 'F32', shape: [1000, 100_000], data_offsets: [0, 4e8] },
      // Only rows of it are fetched.
      'text_model.embeddings.token_embedding.weight': { dtype: 'F32', shape: [256_000, 768], data_offsets: [4e8, 4e8 + 786_432_000] },
    }));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.length));
    const file = Buffer.concat([length, header]);
    const headers = { 'Access-Control-Allow-Origin': '*', 'Access-Control-Allow-Headers': 'Range' };
    await page.context().route('https://huggingface.co/me/mine/resolve/main/model.safetensors', (route) => {
      const [, from, to] = /bytes=(\d+)-(\d+)/.exec(route.request().headers().range ?? '') ?? [];
      return from === undefined ? route.abort() : route.fulfill({ status: 206, headers, body: file.subarray(Number(from), Number(to) + 1) });
    });
    await page.context().route('https://huggingface.co/me/shards/resolve/main/model.safetensors.index.json', (route) => route.fulfill({ headers, json: { metadata: { total_size: 8e8 } } }));
    await page.context().route('https://huggingface.co/me/shards/resolve/main/model.safetensors', (route) => route.fulfill({ status: 404, headers }));
    const load = (name) => chooseOther(page, name);
    // 100 million numbers in 1.28 bytes each, that arrive in four; and 200 million.
    await load('me/mine');
    await says(page, /^me\/mine could not be loaded\. It takes 128 MB to keep, and this browser has 100 MB left.*\(400 MB\).* The demo model is still in use/si);
    await load('me/shards');
    await says(page, /^me\/shards could not be loaded\. It takes 256 MB to keep.*\(800 MB\)/si);
    assert.deepEqual(requests.filter((url) => /me\/.*config\.json/.test(url)), []);
    const asked = page.waitForRequest(/huggingface\.co\/me\/shards\/.*\/config\.json/);
    await page.getByRole('button', { name: 'Load it all the same' }).click();
    await asked;
    await says(page, /^me\/shards could not be loaded/i);
    // A smaller one is not asked about.
    await page.evaluate(() => { navigator.storage.estimate = async () => ({ usage: 1e8, quota: 5e8 }); });
    const begun = page.waitForRequest(/huggingface\.co\/me\/mine\/.*\/config\.json/);
    await load('me/mine');
    await begun;
  }, { expected: new RegExp(`${UNREACHED.source}|404`) });
});

describe('looks', () => {
  for (const width of [320, 360]) {
    onPage(`fits a phone of ${width} px, with fingers' room on everything`, async (page) => {
      await page.getByText('Advanced').tap();
      await page.getByRole('button', { name: 'Link' }).tap();
      await type(page, `${'w'.repeat(300)}, a house, ${'longish words '.repeat(20)}`.trim());
      await page.getByRole('checkbox', { name: 'Make one label win' }).tap();
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
      const small = await page.evaluate(() => [...document.querySelectorAll('button, input, select, textarea, summary, .switch')]
        .filter((node) => node.checkVisibility() && node.type !== 'checkbox').map((node) => [node.id || node.className || node.tagName, node.getBoundingClientRect()])
        .filter(([, box]) => box.width < 44 || box.height < 43.5).map(([name, box]) => `${name} ${box.width} × ${box.height}`));
      assert.deepEqual(small, []);
      const box = await status(page).boundingBox();
      assert.ok(box.y < 740, 'the answer is in sight without scrolling');
    }, { viewport: { width, height: 740 }, hasTouch: true, isMobile: true });
  }

  for (const colorScheme of ['light', 'dark']) {
    onPage(`text is legible in ${colorScheme} colours`, async (page) => {
      await type(page, 'a house, a pencil');
      await page.evaluate(() => Promise.all(document.getAnimations().map(({ finished }) => finished)));
      const faint = await page.evaluate(() => {
        const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
        const rgb = (color) => {
          canvas.clearRect(0, 0, 1, 1);
          canvas.fillStyle = color;
          canvas.fillRect(0, 0, 1, 1);
          return [...canvas.getImageData(0, 0, 1, 1).data];
        };
        const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const behind = (node) => {
          for (let at = node; at; at = at.parentElement) {
            const color = rgb(getComputedStyle(at).backgroundColor);
            if (color[3] > 200) return color;
          }
          return [255, 255, 255];
        };
        const found = [];
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
          const node = walker.currentNode.parentElement;
          if (!walker.currentNode.data.trim() || !node.checkVisibility() || node.closest('.skip, noscript, .drop, dialog')) continue;
          const [a, b] = [light(rgb(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
          const ratio = (a + 0.05) / (b + 0.05);
          if (ratio < 4.5) found.push(`${ratio.toFixed(2)} “${walker.currentNode.data.trim().slice(0, 40)}”`);
        }
        return found;
      });
      assert.deepEqual(faint, []);
    }, { colorScheme });
  }

  onPage('keeps still for those who ask for it', async (page) => {
    await type(page, 'a tree, a house, a cup');
    assert.equal(await page.evaluate(() => document.getAnimations().filter((animation) => animation.playState === 'running').length), 0);
  }, { reducedMotion: 'reduce' });
});
