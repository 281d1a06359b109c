// Clicks through the console page of a server that asks for tokens:
// node console_tokens.mjs http://127.0.0.1:PORT made
// node console_tokens.mjs http://127.0.0.1:PORT/PATH asked TOKEN API_KEY
// Prints what was done; exits with 1 and a message where a step fails.
import assert from "node:assert/strict";
import { withBrowser } from "./browser.mjs";
import { deadline } from "./peer.mjs";

const [base, how, token, key] = process.argv.slice(2);
const counts = { online: 0, said: 0, refused: 0, counters: 0 };
deadline(90_000);

await withBrowser(async (context) => {
  const page = await context.newPage();
  const part = (name) => page.locator(`[data-test="${name}"]`);
  const state = (side, state) => page.locator(`[data-test="${side}-state"][data-state="${state}"]`).waitFor();
  const sees = (side, text) => part(`${side}-stream`).getByText(text).first().waitFor();
  await page.goto(`${base}/`);

  if (how === "asked") {
    for (const side of ["left", "right"]) {
      await part(`${side}-token`).waitFor({ state: "visible" });
      assert.equal(await part(`${side}-user`).isVisible(), false, "the token names the user");
      for (const [bad, why] of [["", /paste one above/], ["no.token", /is the token good/], ["no token", /is the token good/]]) {
        await part(`${side}-token`).fill(bad);
        await part(`${side}-connect`).click();
        await sees(side, why);
        await state(side, "offline");
        counts.refused++;
      }
      await part(`${side}-token`).fill(token);
      await part(`${side}-connect`).click();
    }
    // The counters are shown to a key alone.
    await part("key").waitFor({ state: "visible" });
    await part("key").fill("no key");
    await part("key-show").click();
    await part("key-why").getByText(/no key of this server/).waitFor();
    counts.refused++;
    await part("key").fill(key);
    await part("key-show").click();
  }
  for (const side of ["left", "right"]) {
    await state(side, "online");
    await page.locator(`.chip:not(.wait) > [data-test="${side}-select"][data-room="lobby"]`).waitFor();
    counts.online++;
  }
  await part("stat-connections").getByText("2", { exact: true }).waitFor();
  assert.equal(await part("key-form").isVisible(), false);
  counts.counters++;
  assert.equal(await part("right-user").inputValue(), how === "made" ? "bob" : "alice");
  for (const [from, to] of [["left", "right"], ["right", "left"]]) {
    await part(`${from}-message`).fill(`hello from the ${from}`);
    await part(`${from}-send`).click();
    await part(`${from}-stream`).getByText(/^✓/).first().waitFor();
    await sees(to, `hello from the ${from}`);
    counts.said++;
  }
});
console.log(JSON.stringify(counts));
process.exit(0);
