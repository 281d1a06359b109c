// Watches the ladder: node ladder.mjs http://127.0.0.1:PORT ROOM PLAIN_ROOM
// ROOM is keyed on the server, PLAIN_ROOM is not. Prints what was seen; exits with 1 and a message where a step fails.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { withBrowser } from "./browser.mjs";
import { deadline } from "./peer.mjs";

const [base, room, plain, picture] = process.argv.slice(2);
const WIDTHS = [320, 390, 768, 1440];
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const counts = { instruments: 0, joined: 0, fed: 0, tuned: 0, resumed: 0, told: 0, widths: 0, cut: 0, violations: 0 };
deadline(90_000);

/** What of the controls is not inside the screen. */
function cutOff() {
  const controls = [...document.querySelectorAll("button, input, select, a")].filter((control) => control.offsetParent !== null);
  const cut = controls.filter((control) => {
    const box = control.getBoundingClientRect();
    return box.left < -0.5 || box.right > document.documentElement.clientWidth + 0.5 || box.width < 24;
  });
  const sideways = document.scrollingElement.scrollWidth - document.documentElement.clientWidth;
  return [...cut.map((control) => control.dataset.test ?? control.textContent), ...(sideways > 0 ? [`${sideways} pixels sideways`] : [])];
}

await withBrowser(async (context) => {
  const page = await context.newPage();
  const part = (name) => page.locator(`[data-test="${name}"]`);
  const outside = [];
  page.on("request", (request) => { if (!request.url().startsWith(base)) outside.push(request.url()); });
  await page.goto(`${base}/ladder?room=${room}`);
  for (const side of ["fast", "slow"]) {
    await page.locator(`[data-test="${side}-pane"][data-joined="true"]`).waitFor();
    counts.joined++;
    counts.instruments += await part(`${side}-rows`).locator("li").count();
  }

  // Both panes get prices, and all of them in time.
  await part("feed").click();
  await part("published").getByText(/^[1-9]/).waitFor();
  for (const side of ["fast", "slow"]) {
    await page.waitForFunction((name) => {
      const values = [...document.querySelectorAll(`[data-test="${name}"] b`)];
      return values.every((value) => /^\d+\.\d\d$/.test(value.textContent));
    }, `${side}-rows`);
    counts.fed++;
  }
  await part("fast-unsent").getByText(/^\d+ %$/).waitFor();
  await part("fast-age-half").getByText(/^[\d.]+ m?s$/).waitFor();

  // With a long interval most of what is published is left out.
  await part("interval").fill("1500");
  await page.locator('[data-test="fast-pane"][data-interval="1500"]').waitFor();
  await part("fast-unsent").getByText(/^[1-9]\d %$/).waitFor();
  await part("interval").fill("0");
  await page.locator('[data-test="fast-pane"][data-interval="0"]').waitFor();
  counts.tuned = 2;

  // Without new updates both panes come to the same prices, however slowly one of them is read.
  await part("pace").selectOption("all");
  await part("feed").click();
  await page.waitForFunction(() => {
    const [fast, slow] = ["fast", "slow"].map((side) => [...document.querySelectorAll(`[data-test="${side}-rows"] b`)].map((b) => b.textContent).join());
    return fast === slow;
  });
  counts.resumed++;

  for (const width of WIDTHS) {
    await page.setViewportSize({ width, height: 844 });
    const cut = await page.evaluate(cutOff);
    assert.deepEqual(cut, [], `at ${width} pixels`);
    counts.cut += cut.length;
    counts.widths++;
  }
  if (picture) await page.screenshot({ path: picture });
  // The page itself lets no script in but its own; the browser's own tools may look at it.
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`), []);
  counts.violations = violations.length;

  // Where the room is not keyed the page says what to do.
  await page.goto(`${base}/ladder?room=${plain}`);
  await part("trouble").getByText(/is not keyed here/).waitFor();
  counts.told++;
  assert.deepEqual(outside, [], "the page asks nobody else");
});
console.log(JSON.stringify(counts));
process.exit(0);
