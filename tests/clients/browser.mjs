// Finds and starts the machine's own Chromium, headless.
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";
import { chromium } from "playwright-core";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
const ARGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

function executable() {
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    for (const name of NAMES) {
      const path = join(folder, name);
      try {
        accessSync(path, constants.X_OK);
        return path;
      } catch {
        // Not here.
      }
    }
  }
  console.error("no Chromium in PATH: run tests/run, which installs it");
  process.exit(1);
}

/** Runs `use(context, errors)` in a fresh browser; `errors` collects what pages throw. Exits the process. */
export async function withBrowser(use) {
  const browser = await chromium.launch({ executablePath: executable(), args: ARGS });
  try {
    // Certificates of tests are of an authority that no browser knows.
    const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ignoreHTTPSErrors: true });
    context.setDefaultTimeout(15_000);
    const errors = [];
    context.on("weberror", (event) => errors.push(String(event.error())));
    await use(context, errors);
    if (errors.length > 0) throw new Error(`pages threw:\n${errors.join("\n")}`);
  } finally {
    await browser.close();
  }
}
