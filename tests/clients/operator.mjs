// Works with the operator's page: node operator.mjs http://127.0.0.1:PORT [API_KEY]
// With a key the page has to ask for it first. Prints what was done; exits with 1 and a message where a step fails.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { withBrowser } from "./browser.mjs";
import { Peer, deadline } from "./peer.mjs";

const [base, key = ""] = process.argv.slice(2);
const WIDTHS = [320, 390, 768, 1440];
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const counts = { tiles: 0, published: 0, rooms: 0, kicked: 0, disconnected: 0, findings: 0, widths: 0, cut: 0, violations: 0 };
deadline(90_000);

/** What of the controls is not inside the screen. */
function cutOff() {
  const controls = [...document.querySelectorAll("button, input, select, textarea, a")].filter((control) => control.offsetParent !== null);
  const cut = controls.filter((control) => {
    const box = control.getBoundingClientRect();
    return box.left < -0.5 || box.right > document.documentElement.clientWidth + 0.5;
  });
  const sideways = document.scrollingElement.scrollWidth - document.documentElement.clientWidth;
  return [...cut.map((control) => control.dataset.test ?? control.textContent), ...(sideways > 0 ? [`${sideways} pixels sideways`] : [])];
}

await withBrowser(async (context) => {
  const page = await context.newPage();
  const part = (name) => page.locator(`[data-test="${name}"]`);
  const says = (name, text) => part(name).getByText(text).first().waitFor();
  const outside = [];
  page.on("request", (request) => { if (!request.url().startsWith(base)) outside.push(request.url()); });
  await page.goto(`${base}/operator`);

  if (key !== "") {
    await part("key-form").waitFor({ state: "visible" });
    await part("key").fill(key);
    await page.keyboard.press("Enter");
  }
  await part("tile-connections").getByText(/^[0-9]/).waitFor();
  await part("tile-deliveries").getByText(/^[0-9]/).waitFor();
  counts.tiles = await page.locator(".tile").count();

  const socketBase = base.replace(/^http/, "ws");
  const bob = await Peer.connect(socketBase, "bob");
  await bob.join("ops");

  // By keyboard alone: the name, the content, and Enter on the button.
  await part("target").fill("ops");
  await part("from").fill("operator");
  await part("content").fill('{"n":1}');
  await part("publish").focus();
  await page.keyboard.press("Enter");
  await says("publish-outcome", /^published/);
  const message = await bob.type("room_msg");
  assert.deepEqual([message.from, message.content], ["operator", { n: 1 }]);
  await part("kind").selectOption("private");
  await part("target").fill("bob");
  await part("content").fill("no JSON");
  await part("publish").click();
  assert.equal((await bob.type("private_msg")).content, "no JSON");
  await part("kind").selectOption("broadcast");
  await part("publish").click();
  assert.equal((await bob.type("broadcast")).content, "no JSON");
  counts.published = 3;

  await part("match").fill("op*");
  await part("rooms-list").click();
  await part("rooms-table").getByRole("button", { name: "ops" }).click();
  await says("room-present", "1 user");
  counts.rooms = await part("rooms-table").locator("tbody tr").count();

  // What cannot be undone asks first, and Enter alone means no.
  await part("kick-user").fill("bob");
  await part("kick-reason").fill("too loud");
  await part("kick").click();
  await part("ask").waitFor({ state: "visible" });
  await page.keyboard.press("Enter");
  await part("ask").waitFor({ state: "hidden" });
  await says("room-present", "1 user");
  await part("kick").click();
  await part("ask-yes").click();
  const left = await bob.type("left");
  assert.deepEqual([left.roomId, left.reason], ["ops", "too loud"]);
  await says("room-present", "0 users");
  counts.kicked = 1;

  await part("user").fill("bob");
  await part("user-look").click();
  await says("user-name", "bob: 1 connection");
  await part("disconnect").click();
  await part("ask-yes").click();
  await says("user-name", "bob: 0 connections");
  assert.equal((await bob.ended()).code, 1008);
  counts.disconnected = 1;

  await part("doctor").click();
  await says("doctor-outcome", /finding/);
  counts.findings = Math.min(await part("findings").locator("tbody tr").count(), 5);

  for (const width of WIDTHS) {
    await page.setViewportSize({ width, height: 844 });
    const cut = await page.evaluate(cutOff);
    assert.deepEqual(cut, [], `cut off at ${width} pixels`);
    counts.widths++;
  }
  // The page itself lets no script in but its own; the browser's own tools may look at it.
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`), []);
  assert.deepEqual(outside, [], "nothing from outside");
});
console.log(JSON.stringify(counts));
process.exit(0);
