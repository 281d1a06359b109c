// Clicks through the console page: node console.mjs http://127.0.0.1:PORT
// Prints what was done; exits with 1 and a message where a step fails.
import assert from "node:assert/strict";
import { withBrowser } from "./browser.mjs";
import { deadline } from "./peer.mjs";

const base = process.argv[2];
const counts = { said: 0, private: 0, broadcast: 0, rooms: 0, ticks: 0, reconnects: 0, between_tabs: 0 };
deadline(90_000);

/** A page with its two panes. */
class Console {
  static async open(context, query = "") {
    const page = new Console();
    page.page = await context.newPage();
    await page.page.goto(`${base}/${query}`);
    for (const side of ["left", "right"]) {
      await page.state(side, "online");
      await page.member(side, "lobby");
    }
    return page;
  }

  part(name) {
    return this.page.locator(`[data-test="${name}"]`);
  }

  async state(side, state) {
    await this.page.locator(`[data-test="${side}-state"][data-state="${state}"]`).waitFor();
  }

  /** Waits until the pane's join of `room` has been answered. */
  async member(side, room) {
    await this.page.locator(`.chip:not(.wait) > [data-test="${side}-select"][data-room="${room}"]`).waitFor();
  }

  async say(side, text, button = "send") {
    await this.part(`${side}-message`).fill(text);
    await this.part(`${side}-${button}`).click();
  }

  async sees(side, text) {
    await this.part(`${side}-stream`).getByText(text, { exact: true }).first().waitFor();
  }

  async times(side, text) {
    return this.part(`${side}-stream`).getByText(text, { exact: true }).count();
  }
}

await withBrowser(async (context) => {
  const first = await Console.open(context);

  // To and fro in the lobby; the sender shows its own line once, marked when it is acked.
  for (const [from, to, text] of [["left", "right", "hello from the left"], ["right", "left", "<b>markup</b> & \"quotes\" 🦀"]]) {
    await first.say(from, text);
    await first.sees(to, text);
    await first.part(`${from}-stream`).getByText(/^✓/).first().waitFor();
    assert.equal(await first.times(from, text), 1, "the sender's own line");
    assert.equal(await first.times(to, text), 1, "the receiver's line");
    counts.said++;
  }

  // Long enough to come compressed.
  const long = "fanfare 🦀 ".repeat(150).trim();
  await first.say("left", long);
  await first.sees("right", long);
  counts.said++;

  await first.part("right-to").fill("alice");
  await first.say("right", "between us", "private");
  await first.sees("left", "between us");
  counts.private++;
  await first.say("left", "to everyone", "broadcast");
  await first.sees("right", "to everyone");
  counts.broadcast++;

  // A room of their own.
  for (const side of ["left", "right"]) {
    await first.part(`${side}-room`).fill("attic");
    await first.part(`${side}-join`).click();
    await first.member(side, "attic");
    await first.page.locator(`[data-test="${side}-select"][data-room="attic"]`).click();
    counts.rooms++;
  }
  await first.say("left", "upstairs");
  await first.sees("right", "upstairs");
  counts.said++;
  for (const side of ["left", "right"]) {
    await first.page.locator(`[data-test="${side}-select"][data-room="lobby"]`).click();
  }

  // Prices run through the market room until the feed is stopped.
  await first.part("feed-toggle").click();
  for (const side of ["left", "right"]) {
    await first.part(`${side}-ticker`).waitFor({ state: "visible" });
    await first.part(`${side}-ticks`).getByText(/^[1-9][0-9.]* ticks?\/s$/).waitFor();
    counts.ticks++;
  }
  await first.part("feed-toggle").click();
  assert.equal(await first.part("feed-toggle").getAttribute("aria-pressed"), "false");

  // Away and back: the rooms are joined again.
  await first.part("left-connect").click();
  await first.state("left", "offline");
  await first.part("left-connect").click();
  await first.state("left", "online");
  await first.member("left", "lobby");
  await first.say("right", "welcome back");
  await first.sees("left", "welcome back");
  counts.reconnects++;

  const second = await Console.open(context, "?user=carol");
  await first.say("left", "from tab to tab");
  await second.sees("left", "from tab to tab");
  await second.say("left", "and back");
  await first.sees("left", "and back");
  counts.between_tabs = 2;
});
console.log(JSON.stringify(counts));
process.exit(0);
