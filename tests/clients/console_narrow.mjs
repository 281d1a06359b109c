// Measures the console page on screens of several widths: node console_narrow.mjs http://127.0.0.1:PORT [SCREENSHOT.png]
// Every control has to be whole inside its pane and inside the screen. Prints what was measured; exits with 1 where a
// control is cut off.
import assert from "node:assert/strict";
import { withBrowser } from "./browser.mjs";
import { deadline } from "./peer.mjs";

const [base, picture] = process.argv.slice(2);
const WIDTHS = [320, 360, 390, 412, 600, 768, 861, 1024, 1440];
const LONG = "a room with a name that is as long as a narrow screen is wide, and then some";
const counts = { widths: 0, cut: 0 };
deadline(90_000);

/** The controls that are there, and what of them is not inside the screen or their pane. */
function measure() {
  const cut = [];
  const controls = [...document.querySelectorAll("button, input")].filter((control) => control.offsetParent !== null);
  for (const control of controls) {
    const box = control.getBoundingClientRect();
    const pane = control.closest(".pane")?.getBoundingClientRect();
    const left = Math.max(0, pane?.left ?? 0), right = Math.min(document.documentElement.clientWidth, pane?.right ?? Infinity);
    if (box.left < left - 0.5 || box.right > right + 0.5 || box.width < 24) {
      cut.push(`${control.dataset.test ?? control.className}: ${box.left.toFixed()} to ${box.right.toFixed()} of ${left.toFixed()} to ${right.toFixed()}`);
    }
  }
  return { controls: controls.length, cut, sideways: document.scrollingElement.scrollWidth - document.documentElement.clientWidth };
}

await withBrowser(async (context) => {
  const page = await context.newPage();
  await page.goto(`${base}/`);
  for (const side of ["left", "right"]) {
    await page.locator(`[data-test="${side}-state"][data-state="online"]`).waitFor();
    for (const room of ["lobby", LONG]) {
      if (room !== "lobby") {
        await page.locator(`[data-test="${side}-room"]`).fill(room);
        await page.locator(`[data-test="${side}-join"]`).click();
      }
      await page.locator(`.chip:not(.wait) > [data-test="${side}-select"][data-room="${room}"]`).waitFor();
    }
  }
  const found = [];
  for (const width of WIDTHS) {
    await page.setViewportSize({ width, height: 844 });
    for (const room of ["lobby", LONG]) {
      for (const side of ["left", "right"]) await page.locator(`[data-test="${side}-select"][data-room="${room}"]`).click();
      const { controls, cut, sideways } = await page.evaluate(measure);
      assert.ok(controls >= 20, `${controls} controls at ${width} pixels`);
      counts.cut += cut.length;
      found.push(...cut.map((what) => `at ${width} pixels ${what}`));
      if (sideways > 0) found.push(`at ${width} pixels the page is ${sideways} pixels too wide`);
    }
    counts.widths++;
    if (picture && width === 390) await page.screenshot({ path: picture, fullPage: true });
  }
  assert.deepEqual(found, []);
});
console.log(JSON.stringify(counts));
process.exit(0);
