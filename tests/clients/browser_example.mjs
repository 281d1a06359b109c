// Opens the browser example from its file: node browser_example.mjs ws://127.0.0.1:PORT USER EXPECTED FILE
// Prints `ready` once the page shows its connection, and exits with 0 once the page shows the text EXPECTED.
import { pathToFileURL } from "node:url";
import { withBrowser } from "./browser.mjs";
import { deadline } from "./peer.mjs";

const [server, user, expected, file] = process.argv.slice(2);
deadline(60_000);

await withBrowser(async (context) => {
  const page = await context.newPage();
  const url = pathToFileURL(file);
  url.search = new URLSearchParams({ server, user }).toString();
  await page.goto(url.href);
  await page.getByText('"type":"welcome"').waitFor();
  console.log("ready");
  await page.getByText(expected).waitFor();
  console.log(expected);
});
process.exit(0);
